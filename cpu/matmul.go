package cpu

import (
	"sync/atomic"
	"unsafe"
)

// Up to oneByOneRows rows are multiplied one by one, where the set or the format
// has no kernel for up to fewRows at once; more in panels. Any way gives the same
// bits.
const (
	oneByOneRows = 3
	fewRows      = 8
)

// mostFew is the most rows that any set multiplies so.
const mostFew = 64

// unitBytes is about how much of a matrix a worker takes at once in decode:
// long enough for the hardware to prefetch (two workers on Q4_0 read 36 GB/s in
// pieces of 128 KiB, 42 in pieces of 512), short enough to share what is left.
const unitBytes = 512 << 10

// floatGroups is how many groups the float kernels keep in flight at once.
const floatGroups = 4

// panelGroups is the most groups that are multiplied with panels at once, and
// panelBytes how much of the L2 cache their weights may take.
const (
	panelGroups = 4
	panelBytes  = 512 << 10
)

// input is what a product's activations are made of: x (rows, cols) with rows
// ld apart, after norm or silu(gate)*up.
type input struct {
	x              []float32
	ld, cols, rows int
	norm           *vector // x is normalised into normed first
	silu           bool    // x is gate: it becomes silu(x) * up first
	rowIDs         []int32 // x's rows to take, or nil: all in order

	tile         int // rows in an activation record: 1 or those of a panel; 0: by the number of rows
	quant, float bool
}

// product is dst (rows, ld) = activations times part of m, transposed.
type product struct {
	m    *matrix
	part int // expert
	dst  []float32
	ld   int

	rows []int32   // the input's rows to take, where its tile is 1, or nil: all in order
	sum  []float32 // dst and bias are added to it (rows, m.rows), or nil
	bias *vector
	up   *matrix // see gated.go, or nil

	step int // groups in a unit
}

// products are the matrices that one input is multiplied with.
type products struct {
	in   input
	act  []byte // its quantised activations
	list []product
	then *matrix   // read after them, or nil
	next []counter // by worker: how many units of its share are taken
}

// share is which of n groups are worker id's of so many: it reads them at load,
// so that they lie in its memory, and takes them first in products. Even, for the
// kernels that take two groups at once.
func share(n, id, workers int) (lo, hi int) {
	cut := func(id int) int {
		if id == workers {
			return n
		}
		return n * id / workers &^ 1
	}
	return cut(id), cut(id + 1)
}

type counter struct {
	_ [64]byte
	atomic.Int64
	_ [56]byte
}

// Rows of a prompt are cut into parts for as many bands of workers, so that what a
// band makes of its rows stays in its caches from one op to the next: a band takes
// its part first, then what others have left of theirs. Workers of a band share
// the groups of weights. A part has at least bandRows rows: every band unpacks all
// weights for itself.
const bandRows = 192

// bandsOf is how many bands so many workers make for a tile of rows.
func bandsOf(workers, rows int) int {
	n := min(workers, rows/bandRows)
	for n > 1 && workers%n != 0 {
		n--
	}
	return max(n, 1)
}

// bandOf is the units of band b of n, step at a time, of so many bands.
func bandOf(n, step, b, bands int) (lo, hi int) {
	steps := (n + step - 1) / step
	return min(steps*b/bands*step, n), min(steps*(b+1)/bands*step, n)
}

// each runs task over n units, step at a time; a single step runs at once.
func (s *stage) each(task func(worker, lo, hi int), n, step int) {
	if n <= step || s.pool.n == 1 {
		task(0, 0, n)
		return
	}
	s.job.task, s.job.units, s.job.step = task, n, step
	for b := range s.parts {
		s.products.next[b].Store(0)
	}
	s.pool.run(s.tasks.claim)
}

// job is what each's workers share.
type job struct {
	task        func(worker, lo, hi int)
	units, step int
}

func (s *stage) claimUnits(worker int) {
	own := worker * s.parts / s.pool.n
	for i := range s.parts {
		b := (own + i) % s.parts
		first, end := bandOf(s.job.units, s.job.step, b, s.parts)
		for next := &s.products.next[b]; first+int(next.Load()) < end; {
			lo := first + int(next.Add(int64(s.job.step))) - s.job.step
			if lo >= end {
				break
			}
			s.job.task(worker, lo, min(lo+s.job.step, end))
		}
	}
}

// input makes the activations that matrices ms want.
func (s *stage) input(in input, ms ...*matrix) {
	for _, m := range ms {
		in.float = in.float || m.kind.float()
		in.quant = in.quant || !m.kind.float()
	}
	if in.tile == 0 {
		in.tile = s.tileOf(in.rows, in.float)
	}
	step := panelRows
	s.products.in, s.products.act, s.bands = in, s.act, 1
	switch {
	case in.tile > 1:
		s.bands = bandsOf(s.pool.n, in.rows)
	case in.rows > panelRows: // as many for each: of eight rows one worker had six
		step = (in.rows + s.pool.n - 1) / s.pool.n
	}
	s.parts = s.bands
	if in.rows > panelRows && s.bands == 1 {
		s.parts = s.pool.n
	}
	s.each(s.tasks.prep, in.rows, step)
}

// tileOf is the rows in a record of so many rows' activations.
func (s *stage) tileOf(rows int, float bool) int {
	if rows <= oneByOneRows || rows <= s.k.few && !float {
		return 1
	}
	return s.k.panel()
}

// prepRows makes the activations of rows [lo, hi).
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
		if in.quant {
			s.quantise(s.products.act, in, row, 0, x, in.cols)
		}
		if in.float {
			tile := min(in.tile, panelRows)
			panel, t := row/tile*tile, row%tile
			y := s.actFloat[panel*in.cols:]
			for c, v := range floats(x, in.cols) {
				y[c*tile+t] = v
			}
		}
	}
}

// quantise makes the activations in act of a row's columns from col on, n of them.
func (s *stage) quantise(act []byte, in *input, row, col int, x *float32, n int) {
	panel, t := row/in.tile*in.tile, row%in.tile
	at := panel*(in.cols/blockCols) + col/blockCols*in.tile
	if s.k.tiled() && in.tile > 1 {
		s.k.quantizeTiles(&act[at*s.k.recordBytes()], x, n/blockCols, t)
		return
	}
	s.k.quantize(&act[at*64], x, n/blockCols, in.tile, t, 64*in.tile)
}

// aheadBytes is how much of a matrix a worker that waits fetches at most: it may have to
// wait for another's unit. Of 128 KiB decode gains a third as much.
const aheadBytes = unitBytes

// ahead is the first of what a worker reads of the matrix after the products under way,
// of one or a few rows.
func (s *stage) ahead(worker int) []byte {
	m := s.products.then
	if m == nil || m.data == nil || s.products.in.tile > 1 {
		return nil
	}
	lo, hi := share(m.groups, worker, s.pool.n)
	return m.data[lo*m.stride : min(hi*m.stride, lo*m.stride+aheadBytes)]
}

// multiply runs the products of the input made last; then is the matrix that is read after
// them, as far as it is known.
func (s *stage) multiply(then *matrix, list ...product) {
	p := &s.products
	p.then = then
	p.list = append(p.list[:0], list...)
	units, work := 0, 1 // few rows wait for the weights, more for the products
	if p.in.tile > 1 {
		work = p.in.rows
	}
	for i := range p.list {
		q := &p.list[i]
		q.step = q.m.panelStep(s.k)
		switch {
		case p.in.tile > 1 && q.up != nil:
			q.step = gatedGroups
		case p.in.tile == 1:
			q.step = max(1, min(unitBytes/q.m.stride, q.m.groups/(2*s.pool.n)))
			switch {
			case q.m.kind.float():
				q.step = pad(q.step, floatGroups)
			case q.m.cut():
				q.step = pad(q.step, 2)
			}
			if q.up != nil { // as much of both together
				q.step = pad(max(1, q.step/2), gatedGroups)
			}
		}
		if q.up != nil {
			s.pool.did += int64(q.up.groups * q.up.stride * work)
		}
		units += (q.m.groups + q.step - 1) / q.step
		s.pool.did += int64(q.m.groups * q.m.stride * work)
	}
	for i := range p.next {
		p.next[i].Store(0)
	}
	if units == 1 || s.pool.n == 1 {
		s.multiplyShares(0)
		return
	}
	s.pool.run(s.tasks.multiply)
}

// multiplyShares takes units of the worker's own share, then what the others
// have left of theirs.
func (s *stage) multiplyShares(worker int) {
	n := s.pool.n
	for i := range n {
		for owner := (worker + i) % n; ; {
			q, lo, hi := s.unit(owner, int(s.products.next[owner].Add(1))-1)
			if q == nil {
				break
			}
			in := &s.products.in
			panel := panelRows
			if !q.m.kind.float() {
				panel = s.k.panel()
			}
			row, end := bandOf(in.rows, panel, owner*s.bands/n, s.bands)
			switch {
			case q.up != nil && in.tile == 1:
				s.gatedRows(q, in, lo, hi, worker)
			case q.up != nil:
				s.gatedTimes(q, in, lo, row, end, worker)
			case in.tile == 1:
				s.rowsTimes(q, in, lo, hi, worker)
			default:
				s.panelsTimes(q, in, lo, hi, row, end, worker)
			}
		}
	}
}

// unit is the groups [lo, hi) that are unit u of the owner's share of all
// products; nil beyond the last. With panels the workers of a band share them.
func (s *stage) unit(owner, u int) (q *product, lo, hi int) {
	workers := s.pool.n
	if s.products.in.tile > 1 {
		workers /= s.bands
		owner %= workers
	}
	for i := range s.products.list {
		q := &s.products.list[i]
		lo, hi := share(q.m.groups, owner, workers)
		if at := lo + u*q.step; at < hi {
			return q, at, min(at+q.step, hi)
		}
		u -= (hi - lo + q.step - 1) / q.step
	}
	return nil, 0, 0
}

// rowsTimes multiplies groups [lo, hi) with one row after another.
func (s *stage) rowsTimes(q *product, in *input, lo, hi, worker int) {
	m, rows := q.m, in.rows
	if q.rows != nil {
		rows = len(q.rows)
	}
	for i := range rows {
		clear(q.dst[i*q.ld+lo*groupRows : i*q.ld+hi*groupRows])
	}
	switch {
	case m.data == nil: // groups are packed one at a time
		for g := lo; g < hi; g++ {
			if !s.rawTimes(q, g, rows) {
				s.stripTimes(q, rows, g, 1, 0, m.strip, s.group(m, q.part, g, worker, 0), m.stride)
			}
		}
	case m.cut():
		for g := lo; g < hi; g += 2 {
			for b := 0; b < m.cols/blockCols; b += m.strip {
				at, n, size := m.stripAt(q.part, g, b)
				s.stripTimes(q, rows, g, min(2, hi-g), b, n, &m.data[at], size)
			}
		}
	default:
		s.stripTimes(q, rows, lo, hi-lo, 0, m.strip, s.group(m, q.part, lo, worker, 0), m.stride)
	}
	if q.sum != nil {
		s.residual(q, &q.dst[lo*groupRows], q.ld, 0, in.rows, lo, hi)
	}
}

// stripTimes adds the products of n blocks, or columns, of some groups from g on, which begin at block b and lie at w,
// stride bytes apart.
func (s *stage) stripTimes(q *product, rows, g, groups, b, n int, w *byte, stride int) {
	m := q.m
	if many := s.k.gemvRows[m.kind]; many != nil && rows > 1 && q.rows == nil {
		record := m.cols / blockCols * 64
		for i := 0; i < rows; i += fewRows {
			many(&q.dst[i*q.ld+g*groupRows], q.ld, w, &s.products.act[i*record+b*64], record, n, groups, stride, min(fewRows, rows-i))
		}
		return
	}
	for i := range rows {
		dst, row := &q.dst[i*q.ld+g*groupRows], i
		if q.rows != nil {
			row = int(q.rows[i])
		}
		act, _ := s.activations(m, row)
		s.k.gemv[m.kind](dst, w, skipBytes(act, b*64), n, groups, stride)
	}
}

// activations is the record of one row, and its blocks, or columns for float kinds.
func (s *stage) activations(m *matrix, row int) (act *byte, n int) {
	if m.kind.float() {
		return bytesOf(&s.actFloat[row*m.cols]), m.cols
	}
	n = m.cols / blockCols
	return &s.products.act[row*n*64], n
}

// panelsTimes multiplies groups [lo, hi), two at a time, with every panel of rows
// [first, last).
func (s *stage) panelsTimes(q *product, in *input, lo, hi, first, last, worker int) {
	m := q.m
	n, kind, strip, record := m.cols/blockCols, m.kind.panel(), s.k.strip(m.cols/blockCols), s.k.recordBytes()
	gemmFloat, unpack := s.k.gemmFloat[m.kind], m.unpacks(s.k)
	if m.kind.float() {
		strip = panelRows
		if unpack = unpack && (in.rows > 2*panelRows || m.data == nil); unpack {
			gemmFloat = s.k.gemmFloat[kindF32]
		}
	}
	var w [panelGroups]*byte
	s.panelsOf(w[:], m, q.part, lo, hi, worker, 0, unpack)
	if (hi-lo)%2 == 1 { // the last group fills the padding too
		w[hi-lo] = w[hi-lo-1]
	}
	for row := first; row < last; row += strip {
		for g := lo; g < hi; g += 2 {
			a, b, end := w[g-lo], w[g-lo+1], min(row+strip, last)
			dst, ld := s.tile(q, row, end, g, min(g+2, m.groups), worker)
			if m.kind.float() {
				gemmFloat(dst, ld, a, b, bytesOf(&s.actFloat[row*in.cols]), m.cols)
			} else {
				s.k.multiplyRows(kind, dst, ld, a, b, &s.products.act[row*n*record], n, end-row, s.ring(worker))
			}
			s.addTile(q, row, end, g, min(g+2, m.groups), worker)
		}
	}
}

// panelsOf puts into w groups [lo, hi) of a matrix as products with many rows want them: as they are, or unpacked or widened
// into the worker's panels from one on.
func (s *stage) panelsOf(w []*byte, m *matrix, part, lo, hi, worker, first int, unpack bool) {
	size := m.panelBytes(s.k)
	panel := func(g, b int) *byte {
		return &s.panels[worker][(first+g-lo)*size+b*s.k.panelBytes(m.kind.panel())]
	}
	if m.cut() {
		for g := lo; g < hi; g += 2 { // in the order in which they lie
			for b := 0; b < m.cols/blockCols; b += m.strip {
				for h := g; h < min(g+2, hi); h++ {
					at, n, _ := m.stripAt(part, h, b)
					s.k.unpack[m.kind](panel(h, b), &m.data[at], n)
					w[h-lo] = panel(h, 0)
				}
			}
		}
		return
	}
	for g := lo; g < hi; g++ {
		w[g-lo] = s.group(m, part, g, worker, (g-lo)%2)
		if !unpack {
			continue
		}
		to := panel(g, 0)
		if m.kind.float() {
			s.k.widen[m.kind](&at[float32](to, 0, 1)[0], w[g-lo], m.cols*groupRows)
		} else {
			s.k.unpack[m.kind](to, w[g-lo], m.cols/blockCols)
		}
		w[g-lo] = to
	}
}

// panelBytes is the size of a group's panel.
func (m *matrix) panelBytes(k *kernels) int {
	if m.kind.float() {
		return m.cols * 4 * groupRows
	}
	return m.cols / blockCols * k.panelBytes(m.kind.panel())
}

// unpacks says whether the matrix's groups have panels of their own.
func (m *matrix) unpacks(k *kernels) bool {
	return k.unpack[m.kind] != nil || m.widens(k)
}

// widens says whether groups of F16 or BF16 become float32 before many rows are multiplied, which costs
// those kernels two instructions in seven: where two of them fit in the L2 cache.
func (m *matrix) widens(k *kernels) bool {
	return k.widen[m.kind] != nil && m.cols%4 == 0 && 2*m.panelBytes(k) <= k.mostPanelBytes()*3/2
}

// mostPanelBytes is panelBytes; blocks of panels for tiles are wider, and processors with tiles have 2 MB.
func (k *kernels) mostPanelBytes() int {
	if k.tiled() {
		return 2 * panelBytes
	}
	return panelBytes
}

// panelStep is how many groups a unit of products with panels has: four read the
// activations half as often as two, as long as they stay in the L2 cache. Where
// weights are in the file and have no panel, the worker has room for two.
func (m *matrix) panelStep(k *kernels) int {
	size, unpacked := m.stride, m.unpacks(k)
	if unpacked {
		size = m.panelBytes(k)
	}
	if panelGroups*size > k.mostPanelBytes() || m.mapped != nil && !unpacked {
		return 2
	}
	return panelGroups
}

// panelSize is the bytes of a unit's panels.
func (m *matrix) panelSize(k *kernels) int {
	if m.kind.float() && !m.widens(k) {
		return 0
	}
	return m.panelStep(k) * m.panelBytes(k)
}

// tile is where gemm writes groups [lo, hi) of rows [row, end): to the product, or,
// where that is added to a sum, near the worker, while the sum is on its way.
func (s *stage) tile(q *product, row, end, lo, hi, worker int) (dst *float32, ld int) {
	if q.sum == nil {
		return &q.dst[row*q.ld+lo*groupRows], q.ld
	}
	if s.k.prefetch != nil {
		s.k.prefetch(&q.sum[row*q.m.rows+lo*groupRows], q.m.rows, end-row)
	}
	return &s.tiles[worker][0], 2 * groupRows
}

// ring is the worker's scratch for gemmTiles.
func (s *stage) ring(worker int) *byte { return bytesOf(&s.tiles[worker][2*tileSize]) }

// addTile adds what gemm wrote to the sum.
func (s *stage) addTile(q *product, row, end, lo, hi, worker int) {
	switch x := &s.tiles[worker][0]; {
	case q.sum == nil:
	case s.k.addTile != nil && q.bias == nil && (lo+2)*groupRows <= q.m.rows:
		s.k.addTile(&q.sum[row*q.m.rows+lo*groupRows], q.m.rows, x, end-row)
	default:
		s.residual(q, x, 2*groupRows, row, end, lo, hi)
	}
}

// residual adds x (rows, ld), groups [lo, hi) of a product's rows [row, end), and
// bias, to the product's sum.
func (s *stage) residual(q *product, x *float32, ld, row, end, lo, hi int) {
	lo, hi = lo*groupRows, min(hi*groupRows, q.m.rows)
	for i := range end - row {
		from := &floats(x, i*ld+1)[i*ld]
		if q.bias != nil {
			s.k.add(from, &q.bias.data[lo], hi-lo)
		}
		s.k.add(&q.sum[(row+i)*q.m.rows+lo], from, hi-lo)
	}
}

func bytesOf(p *float32) *byte { return (*byte)(unsafe.Pointer(p)) }
