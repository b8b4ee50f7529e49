package cpu

import (
	"sync/atomic"
	"unsafe"
)

// gemvRows: up to so many rows are multiplied one by one, more in panels.
// Either way gives the same bits.
const gemvRows = 3

// unitBytes is about how much of a matrix a worker takes at once in decode:
// long enough for the hardware to prefetch (two workers on Q4_0 read 36 GB/s in
// pieces of 128 KiB, 42 in pieces of 512), short enough to share what is left.
const unitBytes = 512 << 10

// floatGroups is how many groups the float kernels keep in flight at once.
const floatGroups = 4

// input is what a product's activations are made of: x (rows, cols) with rows
// ld apart, after norm or silu(gate)*up.
type input struct {
	x              []float32
	ld, cols, rows int
	norm           *vector // x is normalised into normed first
	silu           bool    // x is gate: it becomes silu(x) * up first
	rowIDs         []int32 // x's rows to take, or nil: all in order

	tile         int // rows in an activation record: 1 or panelRows
	quant, float bool
}

// product is dst (rows, ld) = activations times part of m, transposed.
type product struct {
	m    *matrix
	part int // expert
	dst  []float32
	ld   int

	first, units, step int // its place among the units; groups in a unit
}

// products are the matrices that one input is multiplied with.
type products struct {
	in   input
	list [3]product
	n    int
}

type counter struct {
	_ [64]byte
	atomic.Int64
	_ [56]byte
}

// each runs task over n units, step at a time; a single step runs at once.
func (s *stage) each(task func(worker, lo, hi int), n, step int) {
	if n <= step || s.pool.n == 1 {
		task(0, 0, n)
		return
	}
	s.job.task, s.job.units, s.job.step = task, n, step
	s.next.Store(0)
	s.pool.run(s.tasks.claim)
}

// job is what each's workers share.
type job struct {
	task        func(worker, lo, hi int)
	units, step int
}

func (s *stage) claimUnits(worker int) {
	for {
		lo := int(s.next.Add(int64(s.job.step))) - s.job.step
		if lo >= s.job.units {
			return
		}
		s.job.task(worker, lo, min(lo+s.job.step, s.job.units))
	}
}

// input makes the activations that matrices ms want.
func (s *stage) input(in input, ms ...*matrix) {
	in.tile = panelRows
	if in.rows <= gemvRows {
		in.tile = 1
	}
	for _, m := range ms {
		in.float = in.float || m.kind.float()
		in.quant = in.quant || !m.kind.float()
	}
	s.products.in = in
	s.each(s.tasks.prep, in.rows, panelRows)
}

// prepRows makes the activations of rows [lo, hi); lo is a multiple of panelRows.
func (s *stage) prepRows(_, lo, hi int) {
	in := &s.products.in
	for row := lo; row < hi; row++ {
		from := row
		if in.rowIDs != nil {
			from = int(in.rowIDs[row])
		}
		x := &in.x[from*in.ld]
		if in.norm != nil {
			s.k.rmsNorm(&s.normed[row*in.cols], x, &in.norm.data[0], s.config.NormEps, in.cols)
			x = &s.normed[row*in.cols]
		}
		if in.silu {
			s.k.siluMul(x, x, &s.up[from*in.ld], in.cols)
		}
		panel, t := row/in.tile*in.tile, row%in.tile
		if in.quant {
			n := in.cols / blockCols
			s.k.quantize(&s.act[panel*n*64], x, n, in.tile, t)
		}
		if in.float {
			y := s.actFloat[panel*in.cols:]
			for c, v := range floats(x, in.cols) {
				y[c*in.tile+t] = v
			}
		}
	}
}

// multiply runs the products of the input made last.
func (s *stage) multiply(list ...product) {
	p := &s.products
	p.n = copy(p.list[:], list)
	units := 0
	for i := range list {
		q := &p.list[i]
		q.step = 2
		if p.in.tile == 1 {
			q.step = max(1, min(unitBytes/q.m.stride, q.m.groups/(2*s.pool.n)))
			if q.m.kind.float() {
				q.step = pad(q.step, floatGroups)
			}
		}
		q.first, q.units = units, (q.m.groups+q.step-1)/q.step
		units += q.units
	}
	s.each(s.tasks.multiply, units, 1)
}

func (s *stage) multiplyUnits(worker, lo, hi int) {
	p := &s.products
	for u := lo; u < hi; u++ {
		i := 0
		for u >= p.list[i].first+p.list[i].units {
			i++
		}
		q := &p.list[i]
		g := (u - q.first) * q.step
		if p.in.tile == 1 {
			s.rowsTimes(q, &p.in, g, min(g+q.step, q.m.groups), worker)
		} else {
			s.panelsTimes(q, &p.in, g, worker)
		}
	}
}

// rowsTimes multiplies groups [lo, hi) with one row after another.
func (s *stage) rowsTimes(q *product, in *input, lo, hi, worker int) {
	m, step := q.m, hi-lo
	if m.data == nil {
		step = 1 // groups are packed one at a time
	}
	for g := lo; g < hi; g += step {
		w := s.group(m, q.part, g, worker, 0)
		for row := range in.rows {
			dst := &q.dst[row*q.ld+g*groupRows]
			if m.kind.float() {
				s.k.gemv[m.kind](dst, w, bytesOf(&s.actFloat[row*in.cols]), m.cols, step, m.stride)
				continue
			}
			n := m.cols / blockCols
			s.k.gemv[m.kind](dst, w, &s.act[row*n*64], n, step, m.stride)
		}
	}
}

// panelsTimes multiplies groups g and g+1 with every panel of rows.
func (s *stage) panelsTimes(q *product, in *input, g, worker int) {
	m := q.m
	h := min(g+1, m.groups-1) // an odd last group fills the padding too
	a, b := s.group(m, q.part, g, worker, 0), s.group(m, q.part, h, worker, 1)
	if m.kind.float() {
		for row := 0; row < in.rows; row += panelRows {
			s.k.gemmFloat[m.kind](&q.dst[row*q.ld+g*groupRows], q.ld, a, b, bytesOf(&s.actFloat[row*in.cols]), m.cols)
		}
		return
	}
	n, kind := m.cols/blockCols, m.kind.panel()
	if unpack := s.k.unpack[m.kind]; unpack != nil {
		pa, pb := &s.panels[worker][0], &s.panels[worker][n*kind.bytes()]
		unpack(pa, a, n)
		unpack(pb, b, n)
		a, b = pa, pb
	}
	for row := 0; row < in.rows; row += panelRows {
		s.k.gemm[kind](&q.dst[row*q.ld+g*groupRows], q.ld, a, b, &s.act[row*n*64], n)
	}
}

func bytesOf(p *float32) *byte { return (*byte)(unsafe.Pointer(p)) }
