package cpu

import "unsafe"

// The activations of down are made where gate and up are multiplied: two groups of
// each make a block of 32 columns. In prompts it goes from the tile of one panel of
// rows to silu(gate)*up and its quantised values. gate and up as a whole (5632
// columns of 256 rows are 12 MB) would leave the caches of their worker, and come
// back. In decode one worker would do it for all, while memory waits.

// gatedGroups is how many groups of gate, and of up, a unit has.
const gatedGroups = panelGroups / 2

// tileSize is the values of the product of a strip.
const tileSize = stripRows * 2 * groupRows

// gates says that a layer's feed-forward goes so with the input made last: where its
// matrices are quantised and nobody asks for the values themselves, and, with panels,
// those of gate and up are of one kind and fit.
func (s *stage) gates(l *layer) bool {
	if s.b.Trace != nil || l.gate.kind.float() || l.up.kind.float() || l.down.kind.float() {
		return false
	}
	return s.products.in.tile == 1 || l.gate.kind == l.up.kind && min(l.gate.panelStep(s.k), l.up.panelStep(s.k)) == panelGroups
}

// gated makes down's activations of the input made last.
func (s *stage) gated(l *layer) {
	s.multiply(l.down, product{m: l.gate, dst: s.gate, ld: s.ld.ffn, up: l.up})
}

// feed takes the activations that gated made for the input of the next product.
func (s *stage) feed() {
	in := &s.products.in
	s.products.act = s.gatedAct()
	*in = s.gatedInput()
}

// gatedInput is what gated's activations are of.
func (s *stage) gatedInput() input {
	in := &s.products.in
	return input{cols: s.config.FFN, rows: in.rows, tile: in.tile, quant: true}
}

// gatedAct is where they lie: of a few rows by themselves, of more in the memory of
// gate's values, which take twice as much.
func (s *stage) gatedAct() []byte {
	if s.products.in.tile == 1 {
		return s.fewAct
	}
	return at[byte](bytesOf(&s.gate[0]), 0, 4*len(s.gate))
}

// gatedRows multiplies groups [lo, hi) of gate, then of up, with all rows.
func (s *stage) gatedRows(q *product, in *input, lo, hi, worker int) {
	up := *q
	up.m, up.dst = q.up, s.up
	s.rowsTimes(q, in, lo, hi, worker)
	s.rowsTimes(&up, in, lo, hi, worker)
	to, col, n := s.gatedInput(), lo*groupRows, (hi-lo)*groupRows
	for row := range in.rows {
		x := &s.gate[row*s.ld.ffn+col]
		s.k.siluMul(x, x, &s.up[row*s.ld.ffn+col], n)
		s.quantise(s.fewAct, &to, row, col, x, n)
	}
}

// gatedTimes multiplies groups [lo, lo+2) of gate and up with every panel of rows
// [first, last).
func (s *stage) gatedTimes(q *product, in *input, lo, first, last, worker int) {
	n, out := in.cols/blockCols, s.config.FFN/blockCols
	var w [2 * gatedGroups]*byte
	s.panelsOf(w[:], q.m, 0, lo, lo+gatedGroups, worker, 0, q.m.unpacks(s.k))
	s.panelsOf(w[gatedGroups:], q.up, 0, lo, lo+gatedGroups, worker, gatedGroups, q.up.unpacks(s.k))
	gate, up := &s.tiles[worker][0], &s.tiles[worker][tileSize]
	record, strip := s.k.recordBytes(), s.k.strip(n)
	to := s.gatedAct()[lo/gatedGroups*s.k.panel()*record:]
	for row := first; row < last; row += strip {
		s.fetch(q.m, lo+gatedGroups, row-first, strip, last-first)
		s.fetch(q.up, lo+gatedGroups, row-first, strip, last-first)
		act, rows := &s.products.act[row*n*record], min(strip, last-row)
		s.k.multiplyRows(q.m.kind.panel(), gate, 2*groupRows, w[0], w[1], act, n, rows, s.ring(worker))
		s.k.multiplyRows(q.up.kind.panel(), up, 2*groupRows, w[2], w[3], act, n, rows, s.ring(worker))
		s.k.siluMul(gate, gate, up, rows*2*groupRows)
		if !s.k.tiled() {
			s.k.quantize(&to[row*out*64], gate, rows, panelRows, 0, 4) // a row after another
			continue
		}
		for i := range rows {
			x := &s.tiles[worker][i*2*groupRows]
			s.k.quantizeTiles(&to[(row+i)/tileRows*out*tileRecord], x, 1, (row+i)%tileRows)
		}
	}
}

// fetch asks for the groups of the next unit, from g on, while a worker multiplies n rows: at row i for the part
// that falls to its strip, but no more than the strip's products hide.
func (s *stage) fetch(m *matrix, g, i, strip, n int) {
	const line = 2 * 64
	most := 64 * strip / panelRows
	if s.k.prefetch == nil || m.data == nil || n < bandRows {
		return
	}
	size := gatedGroups * m.stride
	lo := g*m.stride + size*i/n&^(line-1)
	hi := min(g*m.stride+size*(i+strip)/n, len(m.data)-line)
	if lines := min((hi-lo)/line, most); lines > 0 {
		s.k.prefetch((*float32)(unsafe.Pointer(&m.data[lo])), line/4, lines)
	}
}
