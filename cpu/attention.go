package cpu

import (
	"math"

	"drover/backend"
)

// cutRows: the context is cut at multiples of so many positions. Each cut is
// summed in order, and cuts are combined in order, whatever the batch.
const cutRows = 256

// attendUnits makes attention of units [lo, hi); a unit is one row
// of the tile and one key/value head, with all the query heads that share it.
func (s *stage) attendUnits(worker, lo, hi int) {
	c := s.config
	group, hd := c.Group(), c.HeadDim
	space := s.scores[worker]
	for u := lo; u < hi; u++ {
		row, kv := u/c.KVHeads, u%c.KVHeads
		for h := kv * group; h < (kv+1)*group; h++ {
			s.attendHead(s.attended[(row*c.Heads+h)*hd:][:hd], s.queries[row*s.ld.q+h*hd:][:hd], &s.where[s.lo+row], kv, space)
		}
	}
}

// attendHead is one query head's attention (Dao et al. 2022, arXiv 2205.14135:
// the online softmax over cuts). space holds a cut's scores, the scaled query,
// a cut's sum and one value more.
func (s *stage) attendHead(dst, q []float32, p *place, kv int, space []float32) {
	hd := len(q)
	scores, scaled, sum := space[:cutRows], space[cutRows:cutRows+hd], space[cutRows+hd:cutRows+2*hd]
	for i, v := range q {
		scaled[i] = v * s.attnScale
	}
	first := 0
	if w := s.config.Window; w > 0 {
		first = max(0, p.pos-w+1)
	}
	clear(dst)
	most, total := float32(math.Inf(-1)), float32(0)
	for cut := first / cutRows * cutRows; cut <= p.pos; cut += cutRows {
		lo, hi := max(cut, first), min(cut+cutRows, p.pos+1)
		n := hi - lo
		s.overPages(p, kv, lo, hi, func(off, n, at int) {
			s.score(&scores[off], &scaled[0], &s.layer.keys[at*s.keyRow], n, hd)
		})
		m := s.k.maxOf(&scores[0], n)
		l := s.k.expSum(&scores[0], n, m)
		clear(sum)
		s.overPages(p, kv, lo, hi, func(off, n, at int) {
			s.accum(&sum[0], &scores[off], &s.layer.values[at*s.valueRow], n, hd)
		})
		top := max(m, most)
		old, now := float32(math.Exp(float64(most-top))), float32(math.Exp(float64(m-top)))
		total = float32(total*old) + float32(l*now)
		for i, v := range sum {
			dst[i] = float32(dst[i]*old) + float32(v*now)
		}
		most = top
	}
	for i := range dst {
		dst[i] /= total
	}
}

// overPages calls f for each page's part of positions [lo, hi): its offset
// from lo, its length, and its first row in the layer's cache.
func (s *stage) overPages(p *place, kv, lo, hi int, f func(off, n, at int)) {
	for pos := lo; pos < hi; {
		page, in := int(p.pages[pos/backend.PageRows]), pos%backend.PageRows
		n := min(backend.PageRows-in, hi-pos)
		f(pos-lo, n, (page*s.config.KVHeads+kv)*backend.PageRows+in)
		pos += n
	}
}
