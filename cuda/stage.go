//go:build (linux && cgo) || windows

package cuda

import (
	"context"
	"errors"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// stage is the blocks of its runs on one card: one allocation, its kernels, and
// the stream that everything goes through.
type stage struct {
	*layout
	d       *device
	kernels *stageKernels
	stream  *stream
	arena   uint64 // the allocation
	pinned  []byte
	used    backend.Need
	byBlock []blockProducts
	embedK  *weightKernels
	outputs products

	// pinned memory, in parts
	words   []int32   // inputs
	hidden  []float32 // (rows, ld.dim)
	results []float32

	prompts promptShape
	tiles   []tileList // by tile of rows

	pass   pass
	traced traced
	graphs map[graphKey]*graph
	args   arguments
}

// arguments are the parameters of the launch under way. They lie here, not on
// the stack, since their address goes to the driver.
type arguments struct {
	embed     Embed
	norm      Norm
	convert   Convert
	product   Product
	gate      Gate
	rope      Rope
	attention Attention
	prompt    PromptAttention
	combine   Combine
	act       Act
	route     Route
	mix       Mix
	top       Top
}

// products are matrices that share their input, by format.
type products []product

// product is up to three matrices of one format; what does not change from batch
// to batch is in args.
type product struct {
	k      *weightKernels
	rows   []int
	hidden bool // results go to the hidden state, which is of all rows, not of a tile
	args   Product
}

// blockProducts is what a block of the model launches.
type blockProducts struct {
	layer                        *layer
	qkv, o, router, gateUp, down products
	gate                         *product // gate and up at once, where they are of one format
	prompts                      bool     // every expert's product has a kernel for prompts
}

// Need says what Load would take.
func (d *device) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	return need(d.info.ISA, d.granule, m, runs, l)
}

// Converts reports whether weights of type t are rewritten at load, since there
// are no kernels for their blocks.
func (d *device) Converts(t quant.Type) bool { return Converts(t) }

// Load puts runs of blocks on the card.
func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (_ backend.Stage, err error) {
	need, err := d.Need(m, runs, l)
	if err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		return nil, err
	}
	k, err := d.kernels(newLayout(m, runs, l, tierNumber(d.info.ISA), 0))
	if err != nil {
		return nil, err
	}
	free, _, err := d.memory()
	if err != nil {
		return nil, err
	}
	if need.Total() > free {
		return nil, d.noRoom(need.Total(), free)
	}
	s := &stage{d: d, kernels: k, used: need, graphs: map[graphKey]*graph{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.arena, err = d.alloc(s.allocation()); err != nil {
		if errors.Is(err, backend.ErrMemory) {
			err = d.noRoom(need.Total(), free)
		}
		return nil, err
	}
	s.layout = newLayout(m, runs, l, tierNumber(d.info.ISA), s.arena)
	if s.stream, err = d.stream(); err != nil {
		return nil, err
	}
	s.stream.dependent = true
	if err = s.pin(); err != nil {
		return nil, err
	}
	if err = s.load(ctx, progress); err != nil {
		return nil, err
	}
	s.prepare()
	return s, nil
}

// allocation is the size of the stage's memory.
func (s *stage) allocation() uint64 {
	n := s.used.Total()
	if s.d.granule == realGranule {
		n -= overhead
	}
	return n
}

// pin takes the computer's memory that batches go through.
func (s *stage) pin() error {
	words, hidden, results := s.inputWords, s.hiddenFloats(), s.resultFloats()
	var err error
	if s.pinned, err = s.d.hostAlloc(int(s.host)); err != nil {
		return err
	}
	var at arena
	part := func(n int) []byte {
		from := at.floats(n)
		return s.pinned[from:][:4*n]
	}
	s.words = ints(part(words))
	s.hidden, s.results = floats(part(hidden)), floats(part(results))
	return nil
}

// floats and ints are bytes as numbers; the memory is not Go's, or aligned.
func floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
func ints(b []byte) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
func bytesOf[T int32 | float32](x []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// Used is the memory that the stage holds.
func (s *stage) Used() backend.Need { return s.used }

// Close gives the memory back. The stage must not be used again.
func (s *stage) Close() error {
	d := s.d
	if d == nil {
		return nil // closed before
	}
	var errs []error
	for _, g := range s.graphs {
		errs = append(errs, g.close())
	}
	if s.stream != nil {
		errs = append(errs, s.stream.close())
	}
	if s.arena != 0 {
		errs = append(errs, d.free(s.arena))
	}
	if s.pinned != nil {
		errs = append(errs, d.hostFree(s.pinned))
	}
	*s = stage{}
	if err := errors.Join(errs...); !errors.Is(err, backend.ErrLost) { // with the card all of it is gone
		return err
	}
	return nil
}

// prepare makes the parameters of every product that Forward launches.
func (s *stage) prepare() {
	c := s.c
	s.prompts = promptShapeOf(s.layout)
	s.tiles = make([]tileList, ceil(s.lim.Rows, s.tile))
	if s.embed != nil {
		s.embedK = s.kernels.weights[s.embed.f]
	}
	s.byBlock = make([]blockProducts, c.Blocks())
	for i, l := range s.layers {
		if l.q != nil {
			p := &s.byBlock[1+2*i]
			p.layer = l
			p.qkv = s.products(&s.in, 0, target{l.q, l.qBias, s.q, s.ld.q}, target{l.k, l.kBias, s.k, s.ld.kv}, target{l.v, l.vBias, s.v, s.ld.kv})
			p.o = s.products(&s.att, 1, target{l.o, l.oBias, s.x, s.ld.dim})
		}
		if l.down != nil {
			p := &s.byBlock[2+2*i]
			p.layer = l
			s.prepareFeedForward(p, l)
		}
	}
	if s.output != nil {
		s.outputs = s.products(&s.in, 0, target{s.output, nil, s.logits, s.ld.vocab})
	}
}

func (s *stage) prepareFeedForward(p *blockProducts, l *layer) {
	gate, up := target{l.gate, nil, s.gate, s.ld.ffn}, target{l.up, nil, s.up, s.ld.ffn}
	p.gateUp = s.products(&s.in, 0, gate, up)
	if len(p.gateUp) == 1 {
		p.gate = &p.gateUp[0]
	}
	p.prompts = l.gate.f.multiplies(s.tier) && l.up.f.multiplies(s.tier) && l.down.f.multiplies(s.tier)
	if s.c.Experts == 0 {
		p.down = s.products(&s.act, 1, target{l.down, nil, s.x, s.ld.dim})
		return
	}
	p.router = s.products(&s.in, 0, target{l.router, nil, s.routed, s.ld.experts})
	p.down = s.products(&s.act, 0, target{l.down, nil, s.mixed, s.ld.dim})
	for _, group := range []products{p.gateUp, p.down} {
		for i := range group {
			group[i].args.Experts, group[i].args.Total = s.list, int32(s.c.Experts)
		}
	}
	for i := range p.gateUp {
		p.gateUp[i].args.Share = 1
	}
}

// target is a matrix and where its products go.
type target struct {
	m    *matrix
	bias *vector
	y    uint64
	ld   int
}

// products groups matrices that read `in` by format.
func (s *stage) products(in *forms, add int32, results ...target) products {
	var all products
	for _, r := range results {
		k := s.kernels.weights[r.m.f]
		at := -1
		for i := range all {
			if all[i].k == k {
				at = i
			}
		}
		if at < 0 {
			at = len(all)
			all = append(all, product{k: k, hidden: r.y == s.x, args: Product{Cols: int32(in.cols), Add: add, KPad: int32(in.kpad), LdX: int32(in.ld)}})
		}
		p := &all[at]
		p.args.M[p.args.Matrices] = Matrix{W: r.m.at, Y: r.y, Bias: r.bias.address(), Rows: int32(r.m.rows), LdY: int32(r.ld), Stride: r.m.stride}
		p.args.Matrices++
		p.rows = append(p.rows, r.m.rows)
	}
	return all
}
