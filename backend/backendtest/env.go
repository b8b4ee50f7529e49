package backendtest

import (
	"context"
	"math"
	"slices"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// env is what a case works with: a device, a model, and limits.
type env struct {
	t     T
	dev   backend.Device
	o     *Options
	sh    *shape
	typ   quant.Type
	m     *backend.Model
	lim   backend.Limits
	lines []*line
}

// line is a whole model, loaded as one or more stages, whose runs a batch
// passes in order.
type line struct {
	x       *env
	steps   []step
	stages  []backend.Stage
	classes map[int]bool // row classes of the batches so far
}

type step struct {
	stage backend.Stage
	run   int
	r     backend.Range
}

// part is rows of one sequence: tokens from position pos on.
type part struct {
	pages  []int32
	pos    int
	tokens []int32
}

// result is logits (rows, vocab) and the row classes that they and their
// cache came from.
type result struct {
	logits  []float32
	classes map[int]bool
}

// load puts the model on dev as stages, each with its runs.
func (x *env) load(dev backend.Device, stages ...[]backend.Range) *line {
	x.t.Helper()
	l := &line{x: x, classes: map[int]bool{}}
	x.lines = append(x.lines, l)
	for _, runs := range stages {
		s, err := dev.Load(context.Background(), x.m, runs, x.lim, nil)
		if err != nil {
			x.t.Fatalf("load %v: %v", runs, err)
		}
		l.stages = append(l.stages, s)
		for i, r := range runs {
			l.steps = append(l.steps, step{s, i, r})
		}
	}
	slices.SortFunc(l.steps, func(a, b step) int { return a.r.Lo - b.r.Lo })
	return l
}

// whole puts the model on dev as one run.
func (x *env) whole(dev backend.Device) *line {
	x.t.Helper()
	return x.load(dev, x.all())
}

func (x *env) all() []backend.Range { return []backend.Range{{Lo: 0, Hi: x.m.Config.Blocks()}} }

// reference is the model on the reference.
func (x *env) reference() *line {
	x.t.Helper()
	return x.whole(ref.New())
}

// limit is the largest NMSE against the reference.
func (x *env) limit() float64 {
	if x.o.Tolerance != nil {
		return x.o.Tolerance(x.typ, x.lim.K, x.lim.V).NMSE
	}
	return ToleranceOf(x.typ, x.lim.K, x.lim.V).NMSE
}

func (x *env) closeLines() {
	for _, l := range x.lines {
		l.close()
	}
	x.lines = nil
}

func (l *line) close() {
	for _, s := range l.stages {
		if err := s.Close(); err != nil {
			l.x.t.Errorf("close: %v", err)
		}
	}
	l.stages = nil
}

// batch asks for the logits of every row of parts.
func (x *env) batch(parts ...part) *backend.Batch {
	b := &backend.Batch{}
	for _, p := range parts {
		for i, id := range p.tokens {
			b.Out = append(b.Out, int32(len(b.Tokens)))
			b.Tokens, b.Pos = append(b.Tokens, id), append(b.Pos, int32(p.pos+i))
		}
		b.Seqs = append(b.Seqs, backend.Seq{Rows: len(p.tokens), Pages: p.pages})
	}
	b.Logits = nans(len(b.Out) * vocab)
	return b
}

// forward sends a batch through the line.
func (l *line) forward(ctx context.Context, b *backend.Batch) error {
	if l.x.o.Class != nil {
		l.classes[l.x.o.Class(len(b.Tokens))] = true
	}
	hidden := nans(len(b.Tokens) * l.x.m.Config.Dim)
	for _, s := range l.steps {
		c := *b
		if s.r.Lo > 0 || s.r.Hi < l.x.m.Config.Blocks() {
			c.Hidden = hidden
		}
		if err := s.stage.Forward(ctx, s.run, &c); err != nil {
			return err
		}
	}
	return nil
}

// send is forward for a batch that must succeed.
func (l *line) send(b *backend.Batch) {
	l.x.t.Helper()
	if err := l.forward(context.Background(), b); err != nil {
		l.x.t.Fatalf("forward: %v", err)
	}
}

// logits sends parts as one batch and gives the logits of every row.
func (l *line) logits(parts ...part) result {
	l.x.t.Helper()
	b := l.x.batch(parts...)
	l.send(b)
	return result{b.Logits, l.classes}
}

// feed sends a sequence's tokens from position pos on in batches of sizes, the
// last size again and again, and gives the logits of every row.
func (l *line) feed(p part, sizes ...int) result {
	l.x.t.Helper()
	var all []float32
	for i := 0; len(p.tokens) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(p.tokens))
		all = append(all, l.logits(part{p.pages, p.pos, p.tokens[:n]}).logits...)
		p.pos, p.tokens = p.pos+n, p.tokens[n:]
	}
	return result{all, l.classes}
}

// rows gives rows [lo, hi) of a result.
func (r result) rows(lo, hi int) result { return result{r.logits[lo*vocab : hi*vocab], r.classes} }

// same wants got to be want, to the bit if all came from one row class.
func (x *env) same(what string, got, want result) {
	x.t.Helper()
	classes := map[int]bool{}
	for _, r := range []result{got, want} {
		for c := range r.classes {
			classes[c] = true
		}
	}
	if len(classes) > 1 {
		x.near(what, got.logits, want.logits)
		return
	}
	x.equal(what, got.logits, want.logits)
}

// equal wants the same bits.
func (x *env) equal(what string, got, want []float32) {
	x.t.Helper()
	if len(got) != len(want) {
		x.t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) || math.IsNaN(float64(want[i])) {
			x.t.Errorf("%s: row %d value %d is %v (%08x), want %v (%08x) to the bit; NMSE %.1e", what, i/vocab, i%vocab,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]), ref.NMSE(got, want))
			return
		}
	}
}

// near wants got within the format's tolerance of want.
func (x *env) near(what string, got, want []float32) {
	x.t.Helper()
	limit := x.limit()
	if e := ref.NMSE(got, want); !(e <= limit) {
		x.t.Errorf("%s: NMSE %.2e, at most %.0e for %v (caches %v, %v)", what, e, limit, x.typ, x.lim.K, x.lim.V)
	} else {
		x.t.Logf("%s: NMSE %.1e", what, e)
	}
}

// random is n tokens that depend on seed.
func (x *env) random(seed, n int) []int32 {
	tokens, state := make([]int32, n), uint64(seed)
	for i := range tokens {
		state = state*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
		tokens[i] = int32(state >> 33 % vocab)
	}
	return tokens
}

func nans(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.NaN())
	}
	return x
}
