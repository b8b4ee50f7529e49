package doctor

import (
	"context"
	"errors"
	"fmt"

	"drover/backend"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/ref"
)

// seed of weights and tokens.
const seed = 20

// subject is a weight format and the cache's.
type subject struct{ typ, cache quant.Type }

// subjects are formats whose kernels share little: floats, int8, 4 bits with one
// scale a block, and with scales of scales, as files have them most.
func subjects() []subject {
	return []subject{{quant.F16, quant.F16}, {quant.Q8_0, quant.F16}, {quant.Q4_0, quant.Q8_0}, {quant.Q4_K, quant.F16}, {quant.Q6_K, quant.F16}}
}

// trial is a small model, some tokens, and what the reference gives for them.
type trial struct {
	subject
	m      *backend.Model
	tokens []int32
	logits []float32   // (tokens, vocab)
	points []ref.Point // (tokens, ...) each
}

// The prompt takes the kernels for many rows and goes over a page; then come
// batches of the decode class.
const promptRows = backend.PageRows + 6

// batches are the rows [lo, hi) of the tokens that are sent together.
func batches() [][2]int {
	return [][2]int{{0, promptRows}, {promptRows, promptRows + 1}, {promptRows + 1, promptRows + 2}, {promptRows + 2, promptRows + 6}}
}

// pages of the cache in the order in which the tokens use them.
var pages = [...]int32{2, 0}

func newTrial(ctx context.Context, s subject) (*trial, error) {
	f, err := model.Open(fmt.Sprintf("synthetic:dim=256,layers=2,heads=4,kv=2,ffn=256,vocab=331:%v:%d", s.typ, seed))
	if err != nil {
		return nil, fmt.Errorf("check of %v: %w", s.typ, err)
	}
	t := &trial{subject: s, m: f.Model}
	all := batches()
	for i := range all[len(all)-1][1] {
		t.tokens = append(t.tokens, int32((i*i*7+i*31+seed)%t.m.Config.Vocab))
	}
	t.logits, t.points, err = ref.Trace(ctx, t.m, t.tokens, s.cache, s.cache)
	return t, err
}

// limit is the largest NMSE that the conformance suite allows devices of a kind.
func (t *trial) limit(kind string) float64 {
	if kind == "cpu" {
		return ref.ToleranceInt8(t.typ, t.cache, t.cache).NMSE
	}
	return ref.ToleranceHalf(t.typ, t.cache, t.cache).NMSE
}

func (t *trial) load(ctx context.Context, dev backend.Device) (backend.Stage, error) {
	l := backend.Limits{Pages: 3, Rows: promptRows, Seqs: 1, Context: len(pages) * backend.PageRows, Outs: promptRows, K: t.cache, V: t.cache}
	return dev.Load(ctx, t.m, []backend.Range{{Lo: 0, Hi: t.m.Config.Blocks()}}, l, nil)
}

// batch asks for the logits of every row of [lo, hi).
func (t *trial) batch(lo, hi int) *backend.Batch {
	b := &backend.Batch{Tokens: t.tokens[lo:hi], Seqs: []backend.Seq{{Rows: hi - lo, Pages: pages[:]}}, Logits: make([]float32, (hi-lo)*t.m.Config.Vocab)}
	for i := range hi - lo {
		b.Pos, b.Out = append(b.Pos, int32(lo+i)), append(b.Out, int32(i))
	}
	return b
}

// trial runs a prompt and decodes after it; false: the device cannot go on.
func (e *examination) trial(ctx context.Context, t *trial) bool {
	prompt, decode := fmt.Sprintf("prompt %v", t.typ), fmt.Sprintf("decode %v", t.typ)
	s, err := t.load(ctx, e.dev)
	if err != nil {
		e.fail(prompt, fmt.Errorf("load %v: %w", t.typ, err))
		return false
	}
	defer s.Close()
	cut := promptRows * t.m.Config.Vocab
	var got []float32
	for i, rows := range batches() {
		b := t.batch(rows[0], rows[1])
		if err := s.Forward(ctx, 0, b); err != nil {
			e.fail([]string{prompt, decode}[min(i, 1)], err)
			return false
		}
		if got = append(got, b.Logits...); i > 0 {
			continue
		}
		if !e.compare(ctx, t, prompt, fmt.Sprintf("%d rows over %d pages", promptRows, len(pages)), got, t.logits[:cut], 0) {
			return true // decoding reads the same cache
		}
	}
	if e.compare(ctx, t, decode, "1 and 4 rows", got[cut:], t.logits[cut:], 1) {
		return e.greedy(ctx, t, s, got[cut:])
	}
	return true
}

// compare holds logits to the reference's. Where they are wrong the batches are
// sent once more, traced, to name where it begins; first is the batch from which
// on.
func (e *examination) compare(ctx context.Context, t *trial, name, what string, got, want []float32, first int) bool {
	limit, nmse := t.limit(e.kind), ref.NMSE(got, want)
	if nmse <= limit {
		c := e.pass(name, fmt.Sprintf("%s: NMSE %.1e, at most %.0e", what, nmse, limit))
		c.NMSE, c.Limit = nmse, limit
		return true
	}
	op, at := "logits", nmse
	if d, found := e.locate(ctx, t, first); found {
		op, at = fmt.Sprintf("layer %d %v", d.Layer, d.Op), d.NMSE
		if d.Layer < 0 || d.Layer >= t.m.Config.Layers {
			op = d.Op.String()
		}
	} else {
		op += " (op by op it is right: it is a fused kernel)"
	}
	c := e.fail(name, fmt.Errorf("%s: wrong from %s on: NMSE %.1e, at most %.0e; logits %.1e", what, op, at, limit, nmse))
	c.Hint, c.NMSE, c.Limit = wrong(e.kind), nmse, limit
	return false
}

// locate is the first traced point, from a batch on, that is beyond the limit.
func (e *examination) locate(ctx context.Context, t *trial, first int) (ref.Difference, bool) {
	s, err := t.load(ctx, e.dev)
	if err != nil {
		return ref.Difference{}, false
	}
	defer s.Close()
	for i, rows := range batches() {
		var points []ref.Point
		b := t.batch(rows[0], rows[1])
		b.Trace = ref.Record(&points)
		if err := s.Forward(ctx, 0, b); err != nil {
			return ref.Difference{}, false
		}
		if i < first {
			continue
		}
		all, _ := ref.Compare(points, t.rows(rows[0], rows[1])) // its error is of what is not comparable
		for _, d := range all {
			if !(d.NMSE <= t.limit(e.kind)) {
				return d, true
			}
		}
	}
	return ref.Difference{}, false
}

// rows are the reference's points of rows [lo, hi) alone.
func (t *trial) rows(lo, hi int) []ref.Point {
	some := make([]ref.Point, len(t.points))
	for i, p := range t.points {
		width := len(p.X) / len(t.tokens)
		some[i] = ref.Point{Layer: p.Layer, Op: p.Op, X: p.X[lo*width : hi*width]}
	}
	return some
}

// greedy sends the last batch again and asks for the largest logit alone, as greedy
// decoding does: it is that of the logits before.
func (e *examination) greedy(ctx context.Context, t *trial, s backend.Stage, logits []float32) bool {
	name := fmt.Sprintf("greedy %v", t.typ)
	all := batches()
	rows := all[len(all)-1]
	n, vocab := rows[1]-rows[0], t.m.Config.Vocab
	b := t.batch(rows[0], rows[1])
	b.Logits, b.Top, b.TopIDs, b.TopLogits, b.LogSum = nil, 1, make([]int32, n), make([]float32, n), make([]float32, n)
	if err := s.Forward(ctx, 0, b); err != nil {
		e.fail(name, err)
		return !errors.Is(err, backend.ErrLost)
	}
	logits = logits[len(logits)-n*vocab:]
	for i := range n {
		row, most := logits[i*vocab:(i+1)*vocab], 0
		for id, v := range row {
			if v > row[most] {
				most = id
			}
		}
		if b.TopIDs[i] != int32(most) || b.TopLogits[i] != row[most] {
			e.fail(name, fmt.Errorf("the largest logit of row %d is token %d (%v); its kernel finds token %d (%v)", i, most, row[most], b.TopIDs[i], b.TopLogits[i])).Hint = wrong(e.kind)
			return true
		}
	}
	e.pass(name, fmt.Sprintf("the largest of %d logits, %d rows", vocab, n))
	return true
}
