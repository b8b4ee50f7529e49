package metal

import (
	"cmp"
	"slices"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// arena hands out places of one buffer: bytes from its beginning. Place 0 is
// nobody's: it stands for what is not there.
type arena struct{ used uint64 }

const placeAlign = 256

// bytes takes n bytes, aligned as any load wants it.
func (a *arena) bytes(n uint64) uint64 {
	at := max(a.used, placeAlign)
	a.used = at + aligned(n)
	return at
}

func aligned(n uint64) uint64 { return (n + placeAlign - 1) &^ (placeAlign - 1) }

// floats takes n float32; ints n int32.
func (a *arena) floats(n int) uint64 { return a.bytes(4 * uint64(n)) }
func (a *arena) ints(n int) uint64   { return a.bytes(4 * uint64(n)) }

// size is the length of the arena's buffer, which is never empty.
func (a *arena) size() uint64 { return max(a.used, placeAlign) }

// matrix is weights; with experts, one after the other.
type matrix struct {
	tensor     *backend.Tensor
	f          *format
	rows, cols int    // of one expert
	parts      int    // experts; 1 for a plain matrix
	stride     uint64 // bytes of one expert
	segment    int    // of layout.segments
	at         uint64 // in the segment
}

func (m *matrix) bytes() uint64 { return uint64(m.parts) * m.stride }

// mapped is the address where the matrix lies in memory as kernels read it, or 0.
func (m *matrix) mapped() uintptr {
	const align = 16
	data := m.tensor.Source.Mapped()
	p := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	if m.f.converted || uint64(len(data)) != m.bytes() || p%align != 0 {
		return 0
	}
	return p
}

// segment is one buffer of weights: pages of mapped memory, used where they are, or
// a copy. The pages are no pointer: their ends may be of what Go has freed, which the
// garbage collector must not find again. The tensors keep what is theirs.
type segment struct {
	pages uintptr // 0: a copy
	bytes uint64
}

// vector is a tensor of one row, as float32 among the constants.
type vector struct {
	tensor *backend.Tensor
	at     uint64
}

// place is 0 for a vector that a model does not have.
func (v *vector) place() uint64 {
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
	values                     uint64 // in the layer's cache, where keys come first: both (pages, kvHeads, PageRows, headDim)
	cacheBytes                 uint64
	ffnNorm                    *vector
	router                     *matrix
	gate, up, down             *matrix
}

// The rows that go through a block, and through the head, at once.
const tileRows, headRows = 1024, 32

// cutRows is how many positions attention of the decode class sums at a time;
// topPart how many logits a threadgroup of top_parts sorts.
const cutRows, topPart = 128, 1024

// longestSegment is the most bytes of a buffer of weights, unless one matrix has
// more.
const longestSegment = 4 << 30

// layout is where everything of a stage lies. It follows from the model, the
// limits and the size of a page alone.
type layout struct {
	c       *backend.Config
	lim     backend.Limits
	runs    []backend.Range
	layers  map[int]*layer
	attends bool // there is an attention block
	embed   *matrix
	norm    *vector
	output  *matrix
	of      map[*backend.Tensor]*matrix // tied tensors lie once
	tensors []*matrix
	vectors []*vector

	segments                   []segment
	constants, scratch, args   arena
	vectorBytes, weights, kept uint64 // of constants, of all weights, of all caches

	cos, sin                                uint64 // (context, dims/2) of the positions
	x                                       uint64 // (rows, ld.dim) hidden state
	in, att, q, k, v                        uint64 // (tile, ld): normed rows, attended ones, queries, keys, values
	partial                                 uint64 // of attention, for decodeRows rows
	gate, up                                uint64 // (tile, ld.ffn), of slots with experts; gate holds the activations too
	routed, shares, chosen, list, mixed     uint64 // experts: logits, weights, ids, work list, (slots, ld.dim) results
	logits                                  uint64 // (headRows, ld.vocab)
	keys, stats, topIDs, topValues, logSums uint64 // of decodeRows rows at a time
	inputs                                  uint64 // what comes with a batch
	inputWords                              int
	ld                                      struct{ dim, q, kv, ffn, experts, vocab int }
	tile                                    int // rows of a tile
	maxPages, maxCuts                       int
}

// newLayout lays a stage out in memory of pages of so many bytes.
func newLayout(m *backend.Model, runs []backend.Range, l backend.Limits, page uint64) *layout {
	s := &layout{c: &m.Config, lim: l, runs: runs, layers: map[int]*layer{}, of: map[*backend.Tensor]*matrix{}}
	c := s.c
	s.ld.dim, s.ld.q, s.ld.kv = pad(c.Dim, 4), pad(c.Heads*c.HeadDim, 4), pad(c.KVHeads*c.HeadDim, 4)
	s.ld.ffn, s.ld.experts, s.ld.vocab = pad(c.FFN, 4), pad(c.Experts, 4), pad(c.Vocab, 4)
	s.tile, s.maxPages, s.maxCuts = min(l.Rows, tileRows), ceil(l.Context, backend.PageRows), ceil(l.Context, cutRows)
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			s.block(m, b)
		}
	}
	s.placeWeights(page)
	s.vectorBytes = s.constants.size()
	s.placeScratch()
	s.args.bytes(argBytes * uint64(argSlots(len(s.layers))))
	return s
}

// argBytes is the room of a dispatch's arguments. argSlots is how many are kept: as
// many as a decoded token takes.
const argBytes = 256

func argSlots(layers int) int { return 16*layers + 64 }

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
		s.attends = true
		l.attnNorm = s.vector(w.AttnNorm)
		l.q, l.k, l.v, l.o = s.matrix(w.Q, 1), s.matrix(w.K, 1), s.matrix(w.V, 1), s.matrix(w.O, 1)
		l.qBias, l.kBias, l.vBias, l.oBias = s.vector(w.QBias), s.vector(w.KBias), s.vector(w.VBias), s.vector(w.OBias)
		heads := uint64(s.lim.Pages) * uint64(c.KVHeads*backend.PageRows)
		l.values = aligned(heads * uint64(s.lim.K.RowBytes(c.HeadDim)))
		l.cacheBytes = l.values + aligned(heads*uint64(s.lim.V.RowBytes(c.HeadDim)))
		s.kept += l.cacheBytes
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
	v := &vector{tensor: t, at: s.constants.floats(t.Rows * t.Cols)}
	s.vectors = append(s.vectors, v)
	return v
}

func (s *layout) matrix(t *backend.Tensor, parts int) *matrix {
	if m := s.of[t]; m != nil {
		return m
	}
	m := &matrix{tensor: t, f: formatOf(t.Type), rows: t.Rows / parts, cols: t.Cols, parts: parts}
	m.stride = m.f.matrixBytes(m.rows, m.cols)
	s.of[t] = m
	s.tensors = append(s.tensors, m)
	return m
}

// placeWeights makes segments of the matrices: of those that lie in mapped memory
// the pages that they touch, one segment where pages meet; and copies of the others.
func (s *layout) placeWeights(page uint64) {
	var inPlace []*matrix
	for _, m := range s.tensors {
		if m.mapped() != 0 {
			inPlace = append(inPlace, m)
		}
	}
	address := func(m *matrix) uint64 { return uint64(m.mapped()) }
	slices.SortFunc(inPlace, func(a, b *matrix) int { return cmp.Compare(address(a), address(b)) })
	var lo, hi uint64 // pages of the last segment
	for _, m := range inPlace {
		at := address(m)
		first, end := at&^(page-1), (at+m.bytes()+page-1)&^(page-1)
		if len(s.segments) == 0 || first > hi || end-lo > longestSegment {
			s.segments = append(s.segments, segment{pages: uintptr(first)})
			lo, hi = first, first
		}
		hi = max(hi, end)
		m.segment, m.at = len(s.segments)-1, at-lo
		s.segments[m.segment].bytes = hi - lo
	}
	copies := -1 // the segment that is filled
	for _, m := range s.tensors {
		if m.mapped() != 0 {
			continue
		}
		n := aligned(m.bytes())
		if copies < 0 || s.segments[copies].bytes+n > longestSegment {
			copies = len(s.segments)
			s.segments = append(s.segments, segment{})
		}
		m.segment, m.at = copies, s.segments[copies].bytes
		s.segments[copies].bytes += n
	}
	for _, g := range s.segments {
		s.weights += g.bytes
	}
}

func (s *layout) placeScratch() {
	c, a, l := s.c, &s.scratch, s.lim
	slots, ffn := max(1, c.ExpertsUsed), false
	for _, l := range s.layers {
		ffn = ffn || l.down != nil
	}
	s.x, s.in = a.floats(l.Rows*s.ld.dim), a.floats(s.tile*s.ld.dim)
	if s.attends {
		s.q, s.k, s.v, s.att = a.floats(s.tile*s.ld.q), a.floats(s.tile*s.ld.kv), a.floats(s.tile*s.ld.kv), a.floats(s.tile*s.ld.q)
		s.partial = a.floats(min(s.tile, decodeRows) * c.Heads * s.maxCuts * partialFloats(c.HeadDim))
		s.cos, s.sin = s.constants.floats(l.Context*c.Rope.Dims/2), s.constants.floats(l.Context*c.Rope.Dims/2)
	}
	if ffn {
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
	s.inputWords = newParts(l.Rows, l.Seqs, l.Outs, s.maxPages).words
	s.inputs = a.ints(s.inputWords)
}

// partialFloats is the length of what attention makes of a head's cut.
func partialFloats(headDim int) int { return (headDim + 5) &^ 3 }

// listWords is the length of a list of experts for so many slots.
func listWords(experts, slots int) int { return 4 + experts + experts + 1 + slots }

// need is what the layout takes, buffer by buffer.
func (s *layout) need() backend.Need {
	tables := s.constants.size() - s.vectorBytes
	return backend.Need{Weights: s.weights + s.vectorBytes, Cache: s.kept, Scratch: s.scratch.size() + s.args.size() + tables}
}

// cacheName is the name of a cache format in those of kernels.
func cacheName(t quant.Type) string {
	switch t {
	case quant.F16:
		return "f16"
	case quant.Q8_0:
		return "q8_0"
	}
	return "f32"
}

func pad(n, to int) int { return ceil(n, to) * to }
