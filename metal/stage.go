//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"context"
	"slices"

	"drover/backend"
)

// stage is the blocks of its runs on the GPU: its buffers and its kernels.
type stage struct {
	*layout
	d       *device
	kernels *stageKernels
	used    backend.Need

	segmentBuffers                             []buffer          // of layout.segments
	caches                                     map[*layer]buffer // keys and values
	scratchBuffer, constantsBuffer, argsBuffer buffer
	argSlots                                   int

	byBlock []blockProducts
	outputs products
	prompts promptShape
	tiles   []tileList // by tile of rows

	queue       queue
	pass        pass
	traced      traced
	unitSeconds float64 // what a row of a block takes in prompts, as last measured; 0: not yet
}

// products are matrices that share their input, by format.
type products []product

// product is up to three matrices of one format; what does not change from batch
// to batch is in args.
type product struct {
	k       *weightKernels
	m       []*matrix
	rows    []int
	experts int  // 0: plain
	hidden  bool // results go to the hidden state, which is of all rows, not of a tile
	args    Product
}

// blockProducts is what a block of the model dispatches.
type blockProducts struct {
	layer                        *layer
	qkv, o, router, gateUp, down products
}

// Load puts runs of blocks on the GPU.
func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (_ backend.Stage, err error) {
	if err := most().Check("metal", m, runs, l); err != nil {
		return nil, err
	}
	s := &stage{layout: newLayout(m, runs, l, pageOf(simulated)), d: d, caches: map[*layer]buffer{}}
	s.used = s.need()
	if s.kernels, err = d.kernels(s.layout); err != nil {
		return nil, err
	}
	if free := d.free(); s.used.Total() > free {
		return nil, &backend.MemoryError{Device: "metal", Need: s.used.Total(), Free: free}
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err = s.take(); err != nil {
		return nil, err
	}
	if err = s.load(ctx, progress); err != nil {
		return nil, err
	}
	s.prepare()
	return s, nil
}

// take makes the stage's buffers.
func (s *stage) take() (err error) {
	take := func(n uint64) (b buffer) {
		if err == nil {
			b, err = s.d.take(n)
		}
		return b
	}
	for _, g := range s.segments {
		var b buffer
		if g.pages != 0 {
			b = s.d.inPlace(g.pages, g.bytes)
		}
		if b.id == 0 { // to be copied, or the system cannot use it in place
			b = take(g.bytes)
		}
		s.segmentBuffers = append(s.segmentBuffers, b)
	}
	for _, l := range s.layers {
		if l.cacheBytes > 0 {
			s.caches[l] = take(l.cacheBytes)
		}
	}
	s.scratchBuffer, s.constantsBuffer, s.argsBuffer = take(s.scratch.size()), take(s.constants.size()), take(s.args.size())
	s.argSlots = len(s.argsBuffer.data) / argBytes
	return err
}

// buffers are all that the stage has made.
func (s *stage) buffers() []buffer {
	all := append(slices.Clone(s.segmentBuffers), s.scratchBuffer, s.constantsBuffer, s.argsBuffer)
	for _, b := range s.caches {
		all = append(all, b)
	}
	return all
}

// Used is the memory that the stage holds, counted from its buffers.
func (s *stage) Used() backend.Need {
	n := backend.Need{Scratch: uint64(len(s.scratchBuffer.data) + len(s.argsBuffer.data))}
	for _, b := range s.segmentBuffers {
		n.Weights += b.bytes
	}
	for _, b := range s.caches {
		n.Cache += b.bytes
	}
	n.Weights += s.vectorBytes
	n.Scratch += uint64(len(s.constantsBuffer.data)) - s.vectorBytes
	return n
}

// Close gives the memory back. The stage must not be used again.
func (s *stage) Close() error {
	for _, b := range s.buffers() {
		if b.id != 0 {
			b.release()
		}
	}
	*s = stage{}
	return nil
}
