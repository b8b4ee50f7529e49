package backendtest

import (
	"context"
	"errors"
	"math"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

var faults = []*fault{
	{name: "swapped rows", shape: "mha", by: "nmse against the reference", forward: after(func(s *stage, b *backend.Batch) {
		if len(b.Logits) >= 2*vocab {
			for i := range vocab {
				b.Logits[i], b.Logits[vocab+i] = b.Logits[vocab+i], b.Logits[i]
			}
		}
	})},
	{name: "single rows one position late", shape: "gqa", by: "nmse against the reference", forward: before(func(s *stage, b *backend.Batch) {
		if len(b.Pos) == 1 && b.Pos[0] > 0 && b.Pos[0]%page != page-1 {
			b.Pos[0]++
		}
	})},
	{name: "the first page for every page", shape: "gqa", by: "full context", forward: before(func(s *stage, b *backend.Batch) {
		for _, q := range b.Seqs {
			for i := range q.Pages {
				q.Pages[i] = q.Pages[0]
			}
		}
	})},
	{name: "the ninth page is not read", shape: "gqa", by: "long context", model: func(m *backend.Model) { m.Config.Window = 512 }},
	{name: "ignored window", shape: "window", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Window = 0 }},
	{name: "window one wider", shape: "window70", by: "full context", model: func(m *backend.Model) { m.Config.Window++ }},
	{name: "released pages squeezed out", shape: "window", by: "released pages", forward: before(func(s *stage, b *backend.Batch) {
		for i, q := range b.Seqs {
			var pages []int32
			for _, p := range q.Pages {
				if p >= 0 {
					pages = append(pages, p)
				}
			}
			b.Seqs[i].Pages = append(pages, q.Pages[len(pages):]...)
		}
	})},
	{name: "no bias of queries", shape: "bias", by: "nmse against the reference", model: func(m *backend.Model) { m.Layers[1].QBias = nil }},
	{name: "no bias of keys", shape: "qwen2", by: "nmse against the reference", model: func(m *backend.Model) { m.Layers[0].KBias = nil }},
	{name: "no bias of the output", shape: "bias", by: "nmse against the reference", model: func(m *backend.Model) { m.Layers[1].OBias = nil }},
	{name: "keys of another head", shape: "gqa", by: "nmse against the reference", model: func(m *backend.Model) { m.Layers[0].K = turned(m.Layers[0].K, 32) }},
	{name: "rope factors ignored", shape: "llama3", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Rope.Factors = nil }},
	{name: "rope pairs of the other layout", shape: "qwen2", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Rope.Halves = false }},
	{name: "rope over the whole head", shape: "head96", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Rope.Dims = 96 }},
	{name: "no YaRN magnitude", shape: "yarn", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Rope.AttnFactor /= 1 + 0.1*math.Log(4) }},
	{name: "no linear scaling", shape: "linear", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.Rope.Scaling = backend.ScaleNone }},
	{name: "an expert fewer", shape: "moe", by: "nmse against the reference", model: func(m *backend.Model) { m.Config.ExpertsUsed-- }},
	{name: "router ties to the higher index", shape: "moe", by: "router ties", model: func(m *backend.Model) {
		for i := range m.Layers {
			l, n := &m.Layers[i], m.Config.Experts
			l.Router, l.Gate, l.Up, l.Down = backwards(l.Router, n), backwards(l.Gate, n), backwards(l.Up, n), backwards(l.Down, n)
		}
	}},
	{name: "activation scales in f16", shape: "mqa", typ: quant.Q4_1, by: "arithmetic", round: func(row []float64) {
		for i, v := range row {
			row[i] = v * (1 + 3e-4*math.Sin(float64(i/32)))
		}
		ref.Int8Blocks(row)
	}},
	{name: "activations rounded to six bits", shape: "mqa", typ: quant.Q8_0, by: "nmse against the reference", round: func(row []float64) {
		for i := 0; i < len(row); i += 32 {
			var most float64
			for _, v := range row[i:min(i+32, len(row))] {
				most = math.Max(most, math.Abs(v))
			}
			for j := i; j < min(i+32, len(row)) && most > 0; j++ {
				row[j] = math.Round(row[j]/most*31) * most / 31
			}
		}
	}},
	{name: "cache in F32 whatever is asked", shape: "mha", by: "cache formats", limits: func(l *backend.Limits) { l.K, l.V = quant.F32, quant.F32 }},
	{name: "formats of keys and values exchanged", shape: "mha", by: "cache formats", limits: func(l *backend.Limits) { l.K, l.V = l.V, l.K }},
	{name: "several rows by other sums", shape: "mqa", by: "rows at once = one by one", forward: after(func(s *stage, b *backend.Batch) {
		if len(b.Tokens) > 2 {
			nudge(b.Logits)
		}
	})},
	{name: "a batch of several sequences by other sums", shape: "head8", by: "rows = whatever else is in the batch", forward: after(func(s *stage, b *backend.Batch) {
		if len(b.Seqs) > 3 {
			nudge(b.Logits)
		}
	})},
	{name: "the other instance by other sums", shape: "gqa", by: "other instances give the same bits", other: after(func(s *stage, b *backend.Batch) { nudge(b.Logits) })},
	{name: "one sequence's pages for the next", shape: "gqa", by: "two sequences interleaved = apart", forward: before(func(s *stage, b *backend.Batch) {
		for i := range b.Seqs {
			b.Seqs[i].Pages = b.Seqs[0].Pages
		}
	})},
	{name: "goes on after a rewind", shape: "mha", by: "rewind", forward: before(func(s *stage, b *backend.Batch) {
		for i, q := range b.Seqs {
			first, next := q.Pages[0], s.seen[q.Pages[0]]
			if len(b.Seqs) > 1 || first < 0 || int(next)+q.Rows > page || s.runs[0].Lo != 0 || i > 0 {
				return
			}
			for j := range b.Pos {
				b.Pos[j] = max(b.Pos[j], next+int32(j))
			}
			s.seen[first] = b.Pos[len(b.Pos)-1] + 1
		}
	})},
	{name: "a new page is read as empty", shape: "mha", by: "shared prefix pages", forward: before(func(s *stage, b *backend.Batch) {
		if len(b.Seqs) > 1 { // the second sequence is given a page of its own
			if q := b.Seqs[1]; len(q.Pages) > 1 {
				q.Pages[0] = 6
			}
		}
	})},
	{name: "hidden state not handed on", shape: "gqa", by: "cut at every block = whole", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		c := *b
		c.Hidden = append([]float32(nil), b.Hidden...)
		return s.Stage.Forward(ctx, run, &c)
	}},
	{name: "always the first run", shape: "gqa", by: "several runs on one stage", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		return s.Stage.Forward(ctx, 0, b)
	}},
	{name: "no results, no cache", shape: "mqa", by: "empty and partial Out", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		if len(b.Out) == 0 && s.head(run) {
			return nil
		}
		return s.Stage.Forward(ctx, run, b)
	}},
	{name: "the first rows for Out", shape: "mqa", by: "empty and partial Out", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		c := *b
		c.Out = nil
		for i := range b.Out {
			c.Out = append(c.Out, int32(i))
		}
		return s.Stage.Forward(ctx, run, &c)
	}},
	{name: "ties to the higher id", shape: "mha", by: "Top and LogSum against Logits", says: "rank", forward: after(func(s *stage, b *backend.Batch) {
		for i := 1; i < len(b.TopIDs); i++ {
			if b.TopLogits[i] == b.TopLogits[i-1] {
				b.TopIDs[i], b.TopIDs[i-1] = b.TopIDs[i-1], b.TopIDs[i]
			}
		}
	})},
	{name: "LogSum over the top only", shape: "mha", by: "Top and LogSum against Logits", says: "LogSum", forward: after(func(s *stage, b *backend.Batch) {
		for i := range b.LogSum {
			var sum float64
			for _, v := range b.TopLogits[i*b.Top : (i+1)*b.Top] {
				sum += math.Exp(float64(v))
			}
			b.LogSum[i] = float32(math.Log(sum))
		}
	})},
	{name: "no Norm without Logits", shape: "mha", by: "Norm", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		c := *b
		if c.Logits == nil {
			c.Norm = nil
		}
		return s.Stage.Forward(ctx, run, &c)
	}},
	{name: "a wrong key in layer 1", shape: "gqa", by: "trace against the reference", says: "first difference at layer 1, k:", model: func(m *backend.Model) { m.Layers[1].K = turned(m.Layers[1].K, 1) }},
	{name: "a block is not traced", shape: "mha", by: "trace against the reference", says: "layer 1 attn_out is not traced", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		c := *b
		if b.Trace != nil {
			c.Trace = func(layer int, op backend.Op, x []float32) {
				if layer != 1 || op != backend.OpAttnOut {
					b.Trace(layer, op, x)
				}
			}
		}
		return s.Stage.Forward(ctx, run, &c)
	}},
	{name: "the context is not looked at", shape: "mha", by: "cancellation, then rewind", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		return s.Stage.Forward(context.WithoutCancel(ctx), run, b)
	}},
	{name: "the context is looked at once", shape: "mha", by: "cancellation, then rewind", says: "cancelled at block 3", forward: func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.Stage.Forward(context.WithoutCancel(ctx), run, b)
	}},
	{name: "one weight wrong", shape: "mqa", typ: quant.Q4_K, by: "arithmetic", round: ref.Int8Blocks, model: func(m *backend.Model) {
		m.Output = moved(m.Output, func(row int) int { return row })
		data := m.Output.Source.(memory)
		data[len(data)-1] ^= 0x80
	}},
	{name: "need a byte short", shape: "mqa", by: "Need equals what is used", need: func(n *backend.Need) { n.Scratch-- }},
	{name: "need without pages", shape: "mqa", by: "Need equals what is used", need: func(n *backend.Need) { n.Cache = 0 }},
	{name: "memory kept after Close", shape: "mha", by: "MemoryError leaks nothing", close: func(s *stage) error { return nil }},
	{name: "memory refused with another error", shape: "mha", by: "MemoryError leaks nothing", load: func(d *device, load func(*backend.Model) (backend.Stage, error), m *backend.Model) (backend.Stage, error) {
		s, err := load(m)
		if errors.Is(err, backend.ErrMemory) {
			return nil, errOther
		}
		return s, err
	}},
	{name: "memory kept after a load that failed", shape: "mha", by: "a load that fails leaks nothing", load: func(d *device, load func(*backend.Model) (backend.Stage, error), m *backend.Model) (backend.Stage, error) {
		s, err := load(m)
		if errors.Is(err, errBroken) {
			for i := range m.Layers { // a stage that nobody closes
				m.Layers[i].Q, m.Layers[i].O, m.Layers[i].FFNNorm = mended(m.Layers[i].Q), mended(m.Layers[i].O), mended(m.Layers[i].FFNNorm)
				m.Layers[i].Up, m.Layers[i].Down = mended(m.Layers[i].Up), mended(m.Layers[i].Down)
			}
			load(m)
		}
		return s, err
	}},
	{name: "a source's error is ignored", shape: "mha", by: "a load that fails leaks nothing", model: func(m *backend.Model) {
		for i := range m.Layers {
			m.Layers[i].Up = heedless(m.Layers[i].Up)
			m.Layers[i].Q = heedless(m.Layers[i].Q)
			m.Layers[i].O = heedless(m.Layers[i].O)
			m.Layers[i].FFNNorm = heedless(m.Layers[i].FFNNorm)
			m.Layers[i].Down = heedless(m.Layers[i].Down)
		}
	}},
	{name: "progress ends at half", shape: "mha", by: "progress", progress: func(done, total uint64) (uint64, uint64) { return done / 2, total }},
}

// turned is a tensor whose rows are n further, the last ones first.
func turned(t *backend.Tensor, n int) *backend.Tensor {
	return moved(t, func(row int) int { return (row + n) % t.Rows })
}

// backwards is a tensor of n experts, the last one first.
func backwards(t *backend.Tensor, n int) *backend.Tensor {
	size := t.Rows / n
	return moved(t, func(row int) int { return (n-1-row/size)*size + row%size })
}

func moved(t *backend.Tensor, from func(row int) int) *backend.Tensor {
	size := t.Type.RowBytes(t.Cols)
	data := make(memory, t.Rows*size)
	for i := range t.Rows {
		if err := t.Source.Rows(data[i*size:(i+1)*size], from(i), from(i)+1); err != nil {
			return t // a broken source stays one
		}
	}
	c := *t
	c.Source = data
	return &c
}

// mended is a tensor without what breaks its source.
func mended(t *backend.Tensor) *backend.Tensor {
	c := *t
	if b, ok := t.Source.(broken); ok {
		c.Source = b.Source
	}
	return &c
}

// heedless ignores the errors of a tensor's source.
func heedless(t *backend.Tensor) *backend.Tensor {
	c := *t
	c.Source = ignoring{t.Source}
	return &c
}

type ignoring struct{ backend.Source }

func (s ignoring) Rows(dst []byte, lo, hi int) error {
	_ = s.Source.Rows(dst, lo, hi)
	return nil
}
