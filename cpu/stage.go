package cpu

import (
	"errors"
	"sync/atomic"

	"drover/backend"
)

// matrix is a weight matrix, packed.
type matrix struct {
	tensor *backend.Tensor
	kind   kind
	rows   int // of the matrix, or of one expert's part of it
	cols   int
	groups int    // ceil(rows / groupRows), of one expert
	parts  int    // experts; 1 for a plain matrix
	stride int    // bytes of a group
	strip  int    // see stripOf
	data   []byte // nil where weights stay in the file
	mapped []byte // the file's blocks, where weights stay there
}

// vector is a tensor of one row, as float32.
type vector struct {
	tensor *backend.Tensor
	data   []float32
}

// layer is what a stage holds of one layer; the parts outside its runs are nil.
type layer struct {
	index    int
	attnNorm *vector
	q, k, v  *matrix
	o        *matrix
	qBias    *vector
	kBias    *vector
	vBias    *vector
	oBias    *vector
	keys     []byte // cache: pages of keys and of values, see
	values   []byte // attention.go; (*stage).cacheRow orders them

	ffnNorm  *vector
	router   *matrix
	gate, up *matrix
	down     *matrix
}

// stage is the blocks of its runs, their cache and the scratch of a batch.
type stage struct {
	k      *kernels
	config *backend.Config
	limits backend.Limits
	runs   []backend.Range
	embed  *backend.Tensor
	layers map[int]*layer
	norm   *vector
	output *matrix

	taken                   *atomic.Uint64 // the device's count of bytes,
	held                    uint64         // and this stage's part
	weights, cache, scratch arena
	matrices                []*matrix
	vectors                 []*vector
	pool                    *pool

	// scratch; r is the rows of a tile, padded to whole panels
	row          []byte      // a raw row of the embedding
	x            []float32   // (rows, dim) hidden state
	normed       []float32   // (r, dim)
	act          []byte      // quantised activations of the product under way
	actFloat     []float32   // the same for float matrices
	fewAct       []byte      // of down's product with a few rows
	queries      []float32   // (r, padded heads*headDim)
	keys, values []float32   // (r, padded kvHeads*headDim), before the cache
	attended     []float32   // (r, heads*headDim)
	gate, up     []float32   // (r, padded ffn)
	out          []float32   // (r, padded dim)
	logits       []float32   // (headRows, padded vocab)
	cos, sin     []float32   // (rows, dims/2)
	panels       [][]byte    // by worker: unpacked groups,
	tiles        [][]float32 // and of two products (stripRows, 2*groupRows), and tileRing
	raw          []rawGroups // by worker, where weights stay in the file
	attending    attending
	moe          experts
	freq         []float64 // angle per position
	mscale       float64
	ld           leading
	keyRow       int // bytes of one head's key, and value, in the cache
	valueRow     int
	attnScale    float32
	b            *backend.Batch
	where        []place // by row: its sequence's pages and position
	lo           int     // first row of the tile
	traced       [backend.OpLogits + 1][]float32
	outLo        int    // first of Out in the head's chunk
	layer        *layer // of the block under way
	byBlock      []*layer
	score        func(dst, q *float32, k, next *byte, lines, dim int)
	accum        func(acc, p *float32, v, next *byte, lines, n, dim int)
	widenKeys    func(dst *float32, page *byte) // nil unless F16
	widenValues  func(dst *float32, page *byte)
	tasks        tasks
	job          job
	products     products
	bands        int      // of the input made last
	parts        int      // of its rows, for the ops that follow it: a worker begins with its own
	profile      *profile // nil: off
}

// leading is the distance between rows of the buffers that products write.
type leading struct{ q, kv, ffn, dim, vocab int }

// passRows is how many rows go through a block at once: with half as many, prompts of Q8_0 were 1 to 12 % slower
// (four pairs), of Q4_0 1 %, and a quarter takes 4 to 6 % more. A multiple of panelsRows.
const passRows = 528

// The largest scratch is that of one of these sets.
var anyKernels, tileKernels = generic(), genericTiles()

// panelsRows are whole panels of every set.
const panelsRows = 3 * tileRows

// headRows is how many rows go through the head at once.
const headRows = 8 * panelRows

func pad(n, to int) int { return (n + to - 1) / to * to }

// layout takes every piece of memory that the stage needs from its arenas.
func (s *stage) layout(o Options, m *backend.Model, runs []backend.Range, l backend.Limits) {
	c := &m.Config
	s.config, s.limits, s.runs, s.layers = c, l, runs, map[int]*layer{}
	s.keyRow, s.valueRow = l.K.RowBytes(c.HeadDim), l.V.RowBytes(c.HeadDim)
	s.matrices, s.vectors = s.matrices[:0], s.vectors[:0]
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			s.layoutBlock(o, m, b)
		}
	}
	s.layoutScratch(o.Threads)
}

func (s *stage) layoutBlock(o Options, m *backend.Model, b int) {
	c := &m.Config
	if b == 0 {
		s.embed = m.Embed
		return
	}
	if b == c.Blocks()-1 {
		s.norm = s.vector(m.Norm)
		s.output = s.matrix(o, m.Output, 1)
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
		l.q, l.k, l.v, l.o = s.matrix(o, w.Q, 1), s.matrix(o, w.K, 1), s.matrix(o, w.V, 1), s.matrix(o, w.O, 1)
		l.qBias, l.kBias, l.vBias, l.oBias = s.vector(w.QBias), s.vector(w.KBias), s.vector(w.VBias), s.vector(w.OBias)
		rows := s.limits.Pages * c.KVHeads * backend.PageRows
		l.keys, l.values = s.cache.bytes(rows*s.keyRow), s.cache.bytes(rows*s.valueRow)
		return
	}
	parts := max(1, c.Experts)
	l.ffnNorm = s.vector(w.FFNNorm)
	if w.Router != nil {
		l.router = s.matrix(o, w.Router, 1)
	}
	l.gate, l.up, l.down = s.matrix(o, w.Gate, parts), s.matrix(o, w.Up, parts), s.matrix(o, w.Down, parts)
}

func (s *stage) vector(t *backend.Tensor) *vector {
	if t == nil {
		return nil
	}
	v := &vector{tensor: t, data: s.weights.floats(t.Rows * t.Cols)}
	s.vectors = append(s.vectors, v)
	return v
}

func (s *stage) matrix(o Options, t *backend.Tensor, parts int) *matrix {
	m := &matrix{tensor: t, kind: kindOf(t.Type), rows: t.Rows / parts, cols: t.Cols, parts: parts}
	m.groups, m.stride = pad(m.rows, groupRows)/groupRows, m.kind.groupBytes(t.Cols)
	m.mapped = stays(o, t)
	m.strip = m.stripOf()
	if m.mapped == nil {
		m.data = s.weights.bytes(parts * m.groups * m.stride)
	}
	s.matrices = append(s.matrices, m)
	return m
}

func (s *stage) layoutScratch(threads int) {
	c, a := s.config, &s.scratch
	rows := s.limits.Rows
	r := pad(min(rows, passRows), panelsRows)
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	s.ld = leading{pad(heads, 2*groupRows), pad(kv, 2*groupRows), pad(c.FFN, 2*groupRows), pad(c.Dim, 2*groupRows), pad(c.Vocab, 2*groupRows)}
	wide := max(r, pairs(c, rows)) // rows of products of experts
	var attention, ffn bool
	for _, l := range s.layers {
		attention, ffn = attention || l.q != nil, ffn || l.down != nil
	}
	s.x, s.normed = a.floats(rows*c.Dim), a.floats(r*c.Dim)
	if attention {
		s.queries, s.keys, s.values, s.attended = a.floats(r*s.ld.q), a.floats(r*s.ld.kv), a.floats(r*s.ld.kv), a.floats(r*heads)
		s.cos, s.sin = a.floats(rows*c.Rope.Dims/2), a.floats(rows*c.Rope.Dims/2)
		s.attending.layout(a, c, s.limits, r, threads, max(s.keyRow, s.valueRow))
	}
	if ffn {
		s.gate, s.up = a.floats(wide*s.ld.ffn), a.floats(wide*s.ld.ffn)
		s.moe.layout(a, c, r)
		s.fewAct = a.bytes((min(r, mostFew) + fewRows) * pad(c.FFN, blockCols) / blockCols * 64)
	}
	if s.embed != nil {
		s.row = a.bytes(s.embed.Type.RowBytes(c.Dim))
	}
	if s.output != nil {
		s.logits = a.floats(headRows * s.ld.vocab)
	}
	s.out = a.floats(wide * s.ld.dim)
	// activations as wide as the widest matrix of each family; a worker's panel
	// holds the unpacked groups of a unit. A plan must not depend on the kernel set:
	// there is room for those with tiles, whose records and panels are larger
	quantised, float, panel := 0, 0, 0
	for _, m := range s.matrices {
		if m.kind.float() {
			float = max(float, m.cols)
		} else {
			quantised = max(quantised, m.cols/blockCols*tileRecord/tileRows)
		}
		panel = max(panel, m.panelSize(anyKernels), m.panelSize(tileKernels))
	}
	s.act, s.actFloat = a.bytes((wide+fewRows)*quantised), a.floats(wide*float)
	s.panels, s.tiles = make([][]byte, threads), make([][]float32, threads)
	for i := range threads {
		s.panels[i], s.tiles[i] = a.bytes(panel), a.floats(2*tileSize+tileRing/4)
	}
	s.where = make([]place, rows)
	s.products = products{list: make([]product, 0, max(3, 2*pairs(c, rows))), next: make([]counter, threads)}
	s.layoutRaw(threads)
}

// Used is the memory that the stage holds.
func (s *stage) Used() backend.Need { return s.used() }

// Close gives the memory back. The stage must not be used again.
func (s *stage) Close() error {
	if s.taken == nil {
		return nil // closed before
	}
	if s.pool != nil {
		s.pool.close()
	}
	s.taken.Add(-s.held)
	err := errors.Join(release(s.weights.mem), release(s.cache.mem), release(s.scratch.mem))
	*s = stage{}
	return err
}

// layersByBlock lets Forward find a block's layer without a search.
func (s *stage) layersByBlock() {
	s.byBlock = make([]*layer, s.config.Blocks())
	for i, l := range s.layers {
		s.byBlock[1+2*i], s.byBlock[2+2*i] = l, l
	}
}
