package ref

import (
	"context"
	"fmt"

	"drover/backend"
	"drover/internal/quant"
)

// stage is the blocks that were loaded, their caches, and room for a batch.
type stage struct {
	c      backend.Config
	lim    backend.Limits
	runs   []backend.Range
	embedW matrix  // (vocab, dim)
	layers []layer // (layers); empty where not loaded
	normW  matrix  // (1, dim)
	output matrix  // (vocab, dim)
	freq   []float64
	mscale float64
	round  func([]float64)
	close  func()
	scratch
}

// layer is one layer's weights and cache.
type layer struct {
	attnNorm, q, k, v, o       matrix
	qBias, kBias, vBias, oBias matrix // w is nil where there is none
	ffnNorm, router            matrix
	gate, up, down             matrix
	keys, values               []float32 // (pages, PageRows, kvHeads*headDim), rounded to the cache's format
}

// scratch is room for a batch of Limits.Rows rows.
type scratch struct {
	x          []float32 // (rows, dim) hidden state
	h          []float64 // (rows, dim) after a norm
	q, att     []float64 // (rows, heads*headDim)
	k, v       []float64 // (rows, kvHeads*headDim)
	out        []float64 // (rows, dim) what a block adds
	gate, up   []float64 // (rows, ffn)
	cos, sin   []float64 // (rows, rope.Dims/2)
	score      []float64 // (context) one row and head
	route      []float64 // (experts) one row
	rowIn      []float64 // (dim) one row through an expert
	rowOut     []float64 // (dim)
	rowCache   []float32 // (kvHeads*headDim) one row on its way to the cache
	blockCache []byte    // the same in the cache's format
	pos        []int32   // (rows) which row of all caches' pages it goes to
	wide       []float64 // (vocab) one row's logits
	normed     []float32 // (outs, dim)
	logits     []float32 // (outs, vocab)
}

func newScratch(c *backend.Config, l backend.Limits) scratch {
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return scratch{
		x: make([]float32, l.Rows*c.Dim), h: make([]float64, l.Rows*c.Dim), out: make([]float64, l.Rows*c.Dim),
		q: make([]float64, l.Rows*heads), att: make([]float64, l.Rows*heads),
		k: make([]float64, l.Rows*kv), v: make([]float64, l.Rows*kv),
		gate: make([]float64, l.Rows*c.FFN), up: make([]float64, l.Rows*c.FFN),
		cos: make([]float64, l.Rows*c.Rope.Dims/2), sin: make([]float64, l.Rows*c.Rope.Dims/2),
		score: make([]float64, l.Context), route: make([]float64, c.Experts),
		rowIn: make([]float64, c.Dim), rowOut: make([]float64, c.Dim),
		rowCache: make([]float32, kv), blockCache: make([]byte, 4*kv), pos: make([]int32, l.Rows),
		wide:   make([]float64, c.Vocab),
		normed: make([]float32, l.Outs*c.Dim), logits: make([]float32, l.Outs*c.Vocab),
	}
}

// scratchBytes is what newScratch takes.
func scratchBytes(c *backend.Config, l backend.Limits) uint64 {
	kv := c.KVHeads * c.HeadDim
	row := 4*c.Dim + 2*8*c.Dim + 2*8*c.Heads*c.HeadDim + 2*8*kv + 2*8*c.FFN + 8*c.Rope.Dims + 4
	out := 4*c.Dim + 4*c.Vocab
	return uint64(l.Rows)*uint64(row) + uint64(l.Outs)*uint64(out) + 8*uint64(l.Context) + 8*uint64(c.Experts+2*c.Dim+kv+c.Vocab)
}

func (s *scratch) bytes() uint64 {
	n := 4 * (len(s.x) + len(s.rowCache) + len(s.pos) + len(s.normed) + len(s.logits))
	n += len(s.blockCache)
	for _, f := range [][]float64{s.h, s.q, s.att, s.k, s.v, s.out, s.gate, s.up, s.cos, s.sin, s.score, s.route, s.rowIn, s.rowOut, s.wide} {
		n += 8 * len(f)
	}
	return uint64(n)
}

func load(ctx context.Context, m *backend.Model, runs []backend.Range, lim backend.Limits, progress func(done, total uint64)) (*stage, error) {
	s := &stage{c: m.Config, lim: lim, runs: runs, layers: make([]layer, m.Config.Layers), scratch: newScratch(&m.Config, lim)}
	s.freq, s.mscale = m.Config.Rope.Frequencies()
	var done, total uint64
	all := tensors(m, runs)
	for _, t := range all {
		total += t.Bytes()
	}
	loaded := map[*backend.Tensor]matrix{}
	for _, t := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w, err := read(t)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", t.Name, err)
		}
		loaded[t] = w
		done += t.Bytes()
		if progress != nil {
			progress(done, total)
		}
	}
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			s.take(m, b, loaded)
		}
	}
	return s, nil
}

// read dequantises a tensor, some rows at a time.
func read(t *backend.Tensor) (matrix, error) {
	w := matrix{rows: t.Rows, cols: t.Cols, w: make([]float32, t.Rows*t.Cols)}
	size := t.Type.RowBytes(t.Cols)
	step := max(1, 1<<20/size)
	buf := make([]byte, min(step, t.Rows)*size)
	for lo := 0; lo < t.Rows; lo += step {
		hi := min(lo+step, t.Rows)
		if err := t.Source.Rows(buf[:(hi-lo)*size], lo, hi); err != nil {
			return matrix{}, err
		}
		quant.Dequantize(t.Type, w.w[lo*t.Cols:hi*t.Cols], buf[:(hi-lo)*size])
		t.Source.Drop(lo, hi)
	}
	return w, nil
}

// take puts block b's weights in their places and makes its cache.
func (s *stage) take(m *backend.Model, b int, loaded map[*backend.Tensor]matrix) {
	switch {
	case b == 0:
		s.embedW = loaded[m.Embed]
	case b == s.c.Blocks()-1:
		s.normW, s.output = loaded[m.Norm], loaded[m.Output]
	case b%2 == 1:
		t, l := &m.Layers[(b-1)/2], &s.layers[(b-1)/2]
		l.attnNorm, l.q, l.k, l.v, l.o = loaded[t.AttnNorm], loaded[t.Q], loaded[t.K], loaded[t.V], loaded[t.O]
		l.qBias, l.kBias, l.vBias, l.oBias = loaded[t.QBias], loaded[t.KBias], loaded[t.VBias], loaded[t.OBias]
		n := s.lim.Pages * backend.PageRows * s.c.KVHeads * s.c.HeadDim
		l.keys, l.values = make([]float32, n), make([]float32, n)
	default:
		t, l := &m.Layers[(b-1)/2], &s.layers[(b-1)/2]
		l.ffnNorm, l.router, l.gate, l.up, l.down = loaded[t.FFNNorm], loaded[t.Router], loaded[t.Gate], loaded[t.Up], loaded[t.Down]
	}
}

// Used is the memory that the stage holds, counted from what it holds.
func (s *stage) Used() backend.Need {
	n := backend.Need{Scratch: s.scratch.bytes()}
	seen := map[*float32]bool{}
	add := func(ws ...matrix) {
		for _, w := range ws {
			if len(w.w) > 0 && !seen[&w.w[0]] {
				seen[&w.w[0]] = true
				n.Weights += 4 * uint64(len(w.w))
			}
		}
	}
	add(s.embedW, s.normW, s.output)
	for i := range s.layers {
		l := &s.layers[i]
		add(l.attnNorm, l.q, l.k, l.v, l.o, l.qBias, l.kBias, l.vBias, l.oBias, l.ffnNorm, l.router, l.gate, l.up, l.down)
		n.Cache += 4 * uint64(len(l.keys)+len(l.values))
	}
	return n
}

// Close gives the memory back.
func (s *stage) Close() error {
	s.close()
	s.embedW, s.normW, s.output, s.layers, s.scratch = matrix{}, matrix{}, matrix{}, nil, scratch{}
	return nil
}
