package cuda

import (
	"math/bits"

	"drover/backend"
	"drover/internal/quant"
)

// arena hands out addresses one after the other. With base 0 it only counts.
type arena struct{ base, used uint64 }

// bytes takes n bytes, aligned as any load wants it.
func (a *arena) bytes(n uint64) uint64 {
	const align = 256
	at := a.base + a.used
	a.used += (n + align - 1) &^ (align - 1)
	return at
}

// floats takes n float32; ints n int32.
func (a *arena) floats(n int) uint64 { return a.bytes(4 * uint64(n)) }
func (a *arena) ints(n int) uint64   { return a.bytes(4 * uint64(n)) }

// matrix is packed weights; with experts, one after the other.
type matrix struct {
	tensor     *backend.Tensor
	f          *format
	rows, cols int    // of one expert
	parts      int    // experts; 1 for a plain matrix
	stride     uint64 // bytes of one expert
	at         uint64
}

// vector is a tensor of one row, as float32.
type vector struct {
	tensor *backend.Tensor
	at     uint64
}

// address is 0 for a vector that a model does not have.
func (v *vector) address() uint64 {
	if v == nil {
		return 0
	}
	return v.at
}

// layer is what a stage holds of one layer; the parts outside its runs are nil.
type layer struct {
	index                      int
	attnNorm                   *vector
	q, k, v, o                 *matrix
	qBias, kBias, vBias, oBias *vector
	keys, values               uint64 // cache: (pages, kvHeads, PageRows, headDim)
	ffnNorm                    *vector
	router                     *matrix
	gate, up, down             *matrix
}

// forms is a buffer for rows that products read, in the forms that they take
// (kernels/outputs.h); those that nobody takes are 0.
type forms struct {
	cols, ld, kpad    int
	plain             uint64 // f32 (rows, ld)
	half, scale, bf16 uint64 // A16, AB16
	sums              uint64 // of A16, decoding
	floats, f16, b16  bool   // which of them products of both classes read
}

// decodeRows is the most rows of a batch of the decode class. Larger batches are
// prompts: other kernels with other rounding.
const decodeRows = 8

// The rows that go through a block, and through the head, at once.
const tileRows, headRows = 1024, 32

// layout is where everything of a stage lies on the device. It follows from the
// model, the limits and the tier of kernels alone.
type layout struct {
	c       *backend.Config
	lim     backend.Limits
	runs    []backend.Range
	tier    int // 75, 80, 90 or warpgroupTier
	layers  map[int]*layer
	attends bool // there is an attention block
	embed   *matrix
	norm    *vector
	output  *matrix
	of      map[*backend.Tensor]*matrix // tied tensors lie once
	tensors []*matrix
	vectors []*vector

	weights, cache, scratch arena
	host                    uint64 // pinned memory of the computer, bytes

	cos, sin                                uint64 // (context, dims/2) of the positions
	x                                       uint64 // (rows, ld.dim) hidden state
	in, att, act                            forms  // normed rows; attended ones; activations, of slots with experts
	q, k, v                                 uint64 // (tile, ld)
	partial                                 uint64 // of attention, decode class
	gate, up                                uint64 // (tile, ld.ffn), of slots with experts
	routed, shares, chosen, list, mixed     uint64 // experts: logits, weights, ids, work list, (slots, ld.dim) results
	logits                                  uint64 // (headRows, ld.vocab)
	keys, stats, topIDs, topValues, logSums uint64 // of decodeRows rows at a time
	inputs                                  uint64 // what goes up with a batch
	inputWords                              int
	staging                                 uint64 // while loading: loadSlots pieces of raw weights
	stagingBytes                            int
	ld                                      struct{ dim, q, kv, ffn, experts, vocab int }
	tile                                    int // rows of a tile
	maxPages, maxCuts                       int
}

// loadSlots pieces of weights are on their way at once, of about loadBytes each.
const loadSlots, loadBytes = 4, 8 << 20

// newLayout lays a stage out in memory that begins at base; need says how much
// that is.
func newLayout(m *backend.Model, runs []backend.Range, l backend.Limits, tier int, base uint64) *layout {
	s := &layout{tier: tier}
	s.place(m, runs, l)
	if base != 0 {
		s.weights.base = base
		s.cache.base = base + s.weights.used
		s.scratch.base = s.cache.base + s.cache.used
		s.place(m, runs, l)
	}
	return s
}

// place lays everything out from the arenas' bases on.
func (s *layout) place(m *backend.Model, runs []backend.Range, l backend.Limits) {
	l.Rows, l.Outs = rounded(l.Rows), rounded(l.Outs)
	weights, cache, scratch := s.weights.base, s.cache.base, s.scratch.base
	*s = layout{c: &m.Config, lim: l, runs: runs, tier: s.tier, layers: map[int]*layer{}, of: map[*backend.Tensor]*matrix{}}
	s.weights.base, s.cache.base, s.scratch.base = weights, cache, scratch
	c := s.c
	s.ld.dim, s.ld.q, s.ld.kv = pad(c.Dim, 4), pad(c.Heads*c.HeadDim, 4), pad(c.KVHeads*c.HeadDim, 4)
	s.ld.ffn, s.ld.experts, s.ld.vocab = pad(c.FFN, 4), pad(c.Experts, 4), pad(c.Vocab, 4)
	s.tile, s.maxPages, s.maxCuts = min(l.Rows, tileRows), ceil(l.Context, backend.PageRows), ceil(l.Context, cutRows)
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			s.block(m, b)
		}
	}
	s.placeScratch()
	s.placeHost()
}

// rounded is the rows that batches of up to n are padded to.
func rounded(n int) int {
	if n > decodeRows {
		return n
	}
	return bucket(n)
}

// bucket is the smallest power of two that is n or more; of 0 it is 0.
func bucket(n int) int {
	if n <= 1 {
		return n
	}
	return 1 << bits.Len(uint(n-1))
}

func (s *layout) block(m *backend.Model, b int) {
	c := s.c
	if b == 0 {
		s.embed = s.matrix(m.Embed, 1)
		return
	}
	if b == c.Blocks()-1 {
		s.norm, s.output = s.vector(m.Norm), s.matrix(m.Output, 1)
		return
	}
	i := (b - 1) / 2
	w, l := &m.Layers[i], s.layers[i]
	if l == nil {
		l = &layer{index: i}
		s.layers[i] = l
	}
	if b%2 == 1 {
		l.attnNorm = s.vector(w.AttnNorm)
		l.q, l.k, l.v, l.o = s.matrix(w.Q, 1), s.matrix(w.K, 1), s.matrix(w.V, 1), s.matrix(w.O, 1)
		l.qBias, l.kBias, l.vBias, l.oBias = s.vector(w.QBias), s.vector(w.KBias), s.vector(w.VBias), s.vector(w.OBias)
		heads := uint64(s.lim.Pages) * uint64(c.KVHeads*backend.PageRows)
		l.keys, l.values = s.cache.bytes(heads*uint64(s.lim.K.RowBytes(c.HeadDim))), s.cache.bytes(heads*uint64(s.lim.V.RowBytes(c.HeadDim)))
		return
	}
	parts := max(1, c.Experts)
	l.ffnNorm = s.vector(w.FFNNorm)
	if w.Router != nil {
		l.router = s.matrix(w.Router, 1)
	}
	l.gate, l.up, l.down = s.matrix(w.Gate, parts), s.matrix(w.Up, parts), s.matrix(w.Down, parts)
}

func (s *layout) vector(t *backend.Tensor) *vector {
	if t == nil {
		return nil
	}
	v := &vector{tensor: t, at: s.weights.floats(t.Rows * t.Cols)}
	s.vectors = append(s.vectors, v)
	return v
}

func (s *layout) matrix(t *backend.Tensor, parts int) *matrix {
	if m := s.of[t]; m != nil {
		return m
	}
	m := &matrix{tensor: t, f: formatOf(t.Type), rows: t.Rows / parts, cols: t.Cols, parts: parts}
	m.stride = m.f.packedBytes(m.rows, m.cols)
	m.at = s.weights.bytes(uint64(parts) * m.stride)
	s.of[t] = m
	s.tensors = append(s.tensors, m)
	return m
}

// takes notes the forms in which a product by m reads its input.
func (f *forms) takes(tier int, ms ...*matrix) {
	for _, m := range ms {
		switch {
		case m == nil:
			continue
		case m.f.float:
			f.floats = true
			f.b16 = f.b16 || m.f.multiplies(tier)
		default:
			f.f16 = true
		}
	}
}

// forms takes room for rows of a batch, of which each has `slots`; plain is
// wanted by others than products.
func (s *layout) forms(f *forms, cols, slots int, plain bool) {
	a := &s.scratch
	f.cols, f.ld, f.kpad = cols, pad(cols, 4), pad(cols, 256)
	rows := s.tile * slots
	if f.floats || plain {
		f.plain = a.floats(rows * f.ld)
	}
	if f.f16 {
		decode := min(s.tile, decodeRows) * slots * f.kpad
		f.half, f.scale, f.sums = a.bytes(2*uint64(rows)*uint64(f.kpad)), a.floats(max(rows, decode/32)), a.floats(decode/16)
	}
	if f.b16 && s.lim.Rows > decodeRows {
		f.bf16 = a.bytes(2 * uint64(rows) * uint64(f.kpad))
	}
}

func (s *layout) placeScratch() {
	c, a, l := s.c, &s.scratch, s.lim
	heads, slots := c.Heads*c.HeadDim, max(1, c.ExpertsUsed)
	var ffn bool
	for _, l := range s.layers {
		s.attends, ffn = s.attends || l.q != nil, ffn || l.down != nil
		s.in.takes(s.tier, l.q, l.k, l.v, l.router, l.gate, l.up)
		s.att.takes(s.tier, l.o)
		s.act.takes(s.tier, l.down)
	}
	s.in.takes(s.tier, s.output)
	s.x = a.floats(l.Rows * s.ld.dim)
	s.forms(&s.in, c.Dim, 1, true)
	if s.attends {
		s.forms(&s.att, heads, 1, true)
		s.q, s.k, s.v = a.floats(s.tile*s.ld.q), a.floats(s.tile*s.ld.kv), a.floats(s.tile*s.ld.kv)
		s.partial = a.bytes(uint64(min(s.tile, decodeRows)) * partialBytes(c.Heads, s.maxCuts, c.HeadDim))
		s.cos, s.sin = a.floats(l.Context*c.Rope.Dims/2), a.floats(l.Context*c.Rope.Dims/2)
	}
	if ffn {
		s.forms(&s.act, c.FFN, slots, false)
		s.gate, s.up = a.floats(s.tile*slots*s.ld.ffn), a.floats(s.tile*slots*s.ld.ffn)
		if c.Experts > 0 {
			s.routed, s.shares, s.chosen = a.floats(s.tile*s.ld.experts), a.floats(s.tile*slots), a.ints(s.tile*slots)
			s.list, s.mixed = a.ints(listWords(c.Experts, s.tile*slots)), a.floats(s.tile*slots*s.ld.dim)
		}
	}
	if s.output != nil {
		s.logits = a.floats(min(l.Outs, headRows) * s.ld.vocab)
		rows, parts := min(l.Outs, decodeRows), ceil(c.Vocab, topPart)
		s.keys, s.stats = a.bytes(8*uint64(rows)*uint64(parts*topPart)), a.floats(2*rows*parts)
		s.topIDs, s.topValues, s.logSums = a.ints(rows*c.Vocab), a.floats(rows*c.Vocab), a.floats(rows)
	}
	s.inputWords = max(newInputs(l.Rows, l.Seqs, l.Outs, s.maxPages).words, newInputs(decodeRows, decodeRows, decodeRows, s.maxPages).words)
	s.inputs = a.ints(s.inputWords)
	s.placeStaging()
}

// placeStaging takes room for weights on their way, over the scratch that only
// batches use.
func (s *layout) placeStaging() {
	least, most := 0, 0
	for _, m := range s.tensors {
		row := m.f.rawRow(m.tensor.Type, m.cols)
		least, most = max(least, row*min(16, m.rows)), max(most, row*m.rows)
	}
	for _, v := range s.vectors {
		least = max(least, 4*v.tensor.Rows*v.tensor.Cols)
	}
	s.stagingBytes = pad(max(least, min(loadBytes, most)), 256)
	s.staging = s.scratch.base
	s.scratch.used = max(s.scratch.used, uint64(loadSlots*s.stagingBytes))
}

// placeHost counts the pinned memory of the computer that batches go through.
func (s *layout) placeHost() {
	var h arena
	h.ints(s.inputWords)
	h.floats(s.hiddenFloats())
	h.floats(s.resultFloats())
	s.host = h.used
}

// hiddenFloats is the size of hidden states that come or go, 0 where none does.
func (s *layout) hiddenFloats() int {
	for _, r := range s.runs {
		if r.Lo > 0 || r.Hi < s.c.Blocks() {
			return s.lim.Rows * s.ld.dim
		}
	}
	return 0
}

// resultFloats is the size of the results of headRows rows: logits, normed rows,
// and of decodeRows rows the largest logits, their ids, and sums.
func (s *layout) resultFloats() int {
	if s.output == nil {
		return 0
	}
	return min(s.lim.Outs, headRows)*(s.ld.vocab+s.ld.dim) + min(s.lim.Outs, decodeRows)*(2*s.c.Vocab+1)
}

// need is what the layout takes. The stage is one allocation, of whole granules.
func (s *layout) need(granule uint64) backend.Need {
	n := backend.Need{Weights: s.weights.used, Cache: s.cache.used, Scratch: s.scratch.used, Host: s.host}
	n.Scratch += (granule - n.Total()%granule) % granule
	return n
}

// cacheType is the name of a cache format in those of kernels.
func cacheType(t quant.Type) string {
	switch t {
	case quant.F16:
		return "f16"
	case quant.Q8_0:
		return "q8_0"
	}
	return "f32"
}
