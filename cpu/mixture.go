package cpu

import (
	"math"

	"drover/backend"
)

// experts is the scratch of a mixture-of-experts feed-forward.
type experts struct {
	logits  []float32 // (r, padded experts) the router's
	weights []float32 // (r, used) by rank
	chosen  []int32   // (r, used) expert by rank
	rows    [][]int32 // by expert: the rows that chose it
	ranks   [][]int32 // by expert: at which rank
	parts   []float32 // (r, used, dim) what each chosen expert gave
	x       []float32 // (r, dim) normalised rows, kept while act is used for other things
	order   []int32   // 0, 1, 2, ...
	list    []product // of all experts, for few rows
	ld      int       // of logits
}

// pairs is how many rows the experts have between them where all run at once.
func pairs(c *backend.Config, rows int) int { return min(rows, oneByOneRows) * c.ExpertsUsed }

func (e *experts) layout(a *arena, c *backend.Config, r int) {
	if c.Experts == 0 {
		return
	}
	e.ld = pad(c.Experts, 2*groupRows)
	e.logits, e.weights = a.floats(r*e.ld), a.floats(r*c.ExpertsUsed)
	e.parts, e.x = a.floats(r*c.ExpertsUsed*c.Dim), a.floats(r*c.Dim)
	n := pairs(c, r)
	e.order, e.list = make([]int32, n), make([]product, 0, 2*n)
	for i := range e.order {
		e.order[i] = int32(i)
	}
	e.chosen = make([]int32, r*c.ExpertsUsed)
	e.rows, e.ranks = make([][]int32, c.Experts), make([][]int32, c.Experts)
	for i := range e.rows {
		e.rows[i], e.ranks[i] = make([]int32, 0, r), make([]int32, 0, r)
	}
}

// mixtureTile is x += the weighted sum, in rank order, of the experts that the
// router chose for each row.
func (s *stage) mixtureTile(l *layer, rows int) {
	c, e := s.config, &s.moe
	x := s.x[s.lo*c.Dim:]
	// norm, router
	s.input(input{x: x, ld: c.Dim, cols: c.Dim, rows: rows, norm: l.ffnNorm}, l.router)
	s.mark(opFFNNorm, rows)
	s.multiply(nil, product{m: l.router, dst: e.logits, ld: e.ld})
	s.mark(opRouter, rows)
	copy(e.x, s.normed[:rows*c.Dim])
	s.route(rows)
	s.mark(opChoose, rows)
	if rows <= oneByOneRows {
		s.expertsAtOnce(l, rows)
	} else {
		s.expertByExpert(l)
	}
	// weighted sum, residual
	s.each(s.tasks.gather, rows, panelRows)
	s.mark(opMix, rows)
	s.trace(backend.OpFFNOut, x, c.Dim, c.Dim, rows)
}

// expertsAtOnce has two runs of the workers, whatever the number of experts.
func (s *stage) expertsAtOnce(l *layer, rows int) {
	c, e := s.config, &s.moe
	n := 0
	e.list = e.list[:0]
	for i, ids := range e.rows {
		if len(ids) > 0 {
			e.list = append(e.list, product{m: l.gate, part: i, dst: s.gate[n*s.ld.ffn:], ld: s.ld.ffn, rows: ids},
				product{m: l.up, part: i, dst: s.up[n*s.ld.ffn:], ld: s.ld.ffn, rows: ids})
			n += len(ids)
		}
	}
	// quantise, gate, up
	s.input(input{x: e.x, ld: c.Dim, cols: c.Dim, rows: rows, tile: 1}, l.gate, l.up)
	s.mark(opExpert, rows)
	s.multiply(nil, e.list...)
	s.mark(opGateUp, n)
	at := 0
	e.list = e.list[:0]
	for i, ids := range e.rows {
		if len(ids) > 0 {
			e.list = append(e.list, product{m: l.down, part: i, dst: s.out[at*s.ld.dim:], ld: s.ld.dim, rows: e.order[at : at+len(ids)]})
			at += len(ids)
		}
	}
	// silu * up, quantise, down
	s.input(input{x: s.gate, ld: s.ld.ffn, cols: c.FFN, rows: n, silu: true, tile: 1}, l.down)
	s.mark(opAct, n)
	s.multiply(s.firstOf(l.index+1), e.list...)
	s.mark(opDown, n)
	at = 0
	for i := range e.rows {
		at += s.keepParts(i, at)
	}
	s.mark(opCollect, n)
}

// expertByExpert lets many rows share one expert's scratch.
func (s *stage) expertByExpert(l *layer) {
	c, e := s.config, &s.moe
	for i := range e.rows {
		n := len(e.rows[i])
		if n == 0 {
			continue
		}
		// quantise, gate, up
		s.input(input{x: e.x, ld: c.Dim, cols: c.Dim, rows: n, rowIDs: e.rows[i]}, l.gate, l.up)
		s.mark(opExpert, n)
		s.multiply(nil, product{m: l.gate, part: i, dst: s.gate, ld: s.ld.ffn}, product{m: l.up, part: i, dst: s.up, ld: s.ld.ffn})
		s.mark(opGateUp, n)
		// silu * up, quantise, down
		s.input(input{x: s.gate, ld: s.ld.ffn, cols: c.FFN, rows: n, silu: true}, l.down)
		s.mark(opAct, n)
		s.multiply(nil, product{m: l.down, part: i, dst: s.out, ld: s.ld.dim})
		s.mark(opDown, n)
		s.keepParts(i, 0)
		s.mark(opCollect, n)
	}
}

// keepParts takes what expert i gave its rows from out's rows from lo on.
func (s *stage) keepParts(i, lo int) int {
	c, e := s.config, &s.moe
	for j, row := range e.rows[i] {
		at := int(row)*c.ExpertsUsed + int(e.ranks[i][j])
		copy(e.parts[at*c.Dim:(at+1)*c.Dim], s.out[(lo+j)*s.ld.dim:])
	}
	return len(e.rows[i])
}

// route chooses each row's experts: the largest logits, ties by lower index,
// weighted by a softmax over the chosen.
func (s *stage) route(rows int) {
	e, used := &s.moe, s.config.ExpertsUsed
	for i := range e.rows {
		e.rows[i], e.ranks[i] = e.rows[i][:0], e.ranks[i][:0]
	}
	for row := range rows {
		ids, w := e.chosen[row*used:(row+1)*used], e.weights[row*used:(row+1)*used]
		largest(ids, w, e.logits[row*e.ld:][:s.config.Experts])
		most, sum := float64(w[0]), 0.0
		for _, v := range w {
			sum += math.Exp(float64(v) - most)
		}
		for rank, id := range ids {
			w[rank] = float32(math.Exp(float64(w[rank])-most) / sum)
			e.rows[id], e.ranks[id] = append(e.rows[id], int32(row)), append(e.ranks[id], int32(rank))
		}
	}
}

// gatherRows adds the experts' parts of rows [lo, hi) to x.
func (s *stage) gatherRows(_, lo, hi int) {
	c, e := s.config, &s.moe
	for row := lo; row < hi; row++ {
		x := s.x[(s.lo+row)*c.Dim:][:c.Dim]
		for i := range x {
			var sum float32
			for rank := range c.ExpertsUsed {
				at := row*c.ExpertsUsed + rank
				sum += float32(e.weights[at] * e.parts[at*c.Dim+i])
			}
			x[i] += sum
		}
	}
}
