package cpu

import (
	"math"
	"sync/atomic"

	"drover/backend"
	"drover/internal/quant"
)

// cutRows: the context is cut at multiples of so many positions. Each cut is
// summed in order, and cuts are combined in order, whatever the batch.
const cutRows = 256

// blockLines is about how many lines (a line is a query head of a row) go
// through the cache together. They share the widening of keys and values to
// float32, which takes as long as the products of two lines.
const blockLines = 64

// wideLines: keys and values are widened for more lines than this. For fewer
// the kernels read them as they lie in the cache, to the same bits.
const wideLines = 8

// A page of one head's keys is (headDim, PageRows), so that a vector has one
// dimension of many positions and scores need no sum over lanes. A page of
// values is (PageRows, headDim). In q8_0 both have, for every 32 dimensions, PageRows f16
// scales and then int8, two and two side by side: of keys (16, PageRows, 2), dimensions 2d and 2d+1 of
// each position, of values (PageRows/2, 32, 2), pairs of positions 16 apart (pairedPosition) in each dimension.

// runPages consecutive pages of one head lie together, then those of the next head. A
// decoding token reads a head's pages one after the other, and processors fetch ahead
// what lies in a row: of pages that other heads' lie between, one core read 31 GB/s where
// it read 39 of these. All of a head's pages together would be no faster, and the first
// token would touch memory all over the cache.
const runPages = 16

// attending is the attention of the tile under way. A unit of work is a block's
// lines of one key/value head, or, where that would leave workers idle, one cut
// of it: whoever ends a unit's last cut combines them.
type attending struct {
	blocks []lineBlock
	cuts   int // units of each block and key/value head: 1, or one a cut
	space  []lineSpace

	// turns: units do rope and write to the cache too, since no row sees another of its
	// batch, and nobody asks for the turned values. What a worker writes it then has, and
	// need not wait for others.
	turns bool

	// makes: they make the activations of the output's product too
	makes bool

	// split units: those of (block, key/value head)
	left  []atomic.Int32 // cuts to come
	parts []part         // (units, cuts, group)
	sums  []float32      // (units, cuts, group, headDim)
}

// lineBlock is consecutive rows of one sequence in the tile.
type lineBlock struct{ row, rows int }

// part is the largest score of a line in a cut, and the sum of the exponentials
// of all, less that.
type part struct{ most, total float32 }

// span is the positions of a cut that a row sees; none where hi <= lo.
type span struct{ lo, hi int }

// lineSpace is one worker's room for a block's lines.
type lineSpace struct {
	scaled  []float32    // (lines, headDim) queries
	scores  []float32    // (lines, cutRows)
	sums    []float32    // (lines, headDim) of a cut
	page    []float32    // of keys or values, widened
	weights [2][]float32 // weightsSize, of blocks of q8_0 values
	weighed weighedBlock
	row     []byte // a key or a value, on its way to the cache
	spans   []span // by row
	parts   []part // by line
	soFar   []part // by line: the cuts before
}

// lines is the most lines in a block.
func lines(c *backend.Config) int { return max(1, blockLines/c.Group()) * c.Group() }

// splitUnits is the most units that are split.
func splitUnits(threads int) int { return 2*threads - 1 }

func (at *attending) layout(a *arena, c *backend.Config, l backend.Limits, rows, threads, row int) {
	n := lines(c)
	at.blocks, at.space = make([]lineBlock, 0, rows), make([]lineSpace, threads)
	for i := range at.space {
		at.space[i] = lineSpace{scaled: a.floats(n * c.HeadDim), scores: a.floats(n * cutRows), sums: a.floats(n * c.HeadDim),
			page: a.floats(backend.PageRows * c.HeadDim), row: a.bytes(row),
			spans: make([]span, n/c.Group()), parts: make([]part, n), soFar: make([]part, n)}
	}
	if l.V == quant.Q8_0 {
		for i := range at.space {
			at.space[i].weights = [2][]float32{a.floats(weightsSize(n)), a.floats(weightsSize(n))}
		}
	}
	if units := min(splitUnits(threads), rows*c.KVHeads); threads > 1 {
		cuts := (l.Context + cutRows - 1) / cutRows
		at.left, at.parts = make([]atomic.Int32, units), make([]part, units*cuts*c.Group())
		at.sums = a.floats(units * cuts * c.Group() * c.HeadDim)
	}
}

// attend makes the attention of the tile's rows.
func (s *stage) attend(rows int) {
	c, at := s.config, &s.attending
	units := rows * c.KVHeads
	split := s.pool.n > 1 && units <= splitUnits(s.pool.n)
	most := max(1, min(lines(c)/c.Group(), units/(4*s.pool.n)))
	if split {
		most = 1
	}
	at.blocks, at.cuts = at.blocks[:0], 1
	row := 0
	for i := range s.b.Seqs {
		end := min(row+s.b.Seqs[i].Rows, s.lo+rows)
		for row = max(row, s.lo); row < end; {
			n := min(most, end-row)
			at.blocks = append(at.blocks, lineBlock{row - s.lo, n})
			row += n
			if split {
				at.cuts = max(at.cuts, s.where[row-1].pos/cutRows+1)
			}
		}
		row = end
	}
	units = len(at.blocks) * c.KVHeads
	if at.cuts > 1 {
		for i := range units {
			at.left[i].Store(int32(at.cuts))
		}
	}
	s.each(s.tasks.attend, units*at.cuts, 1)
}

// attendUnits makes units [lo, hi).
func (s *stage) attendUnits(worker, lo, hi int) {
	c, at := s.config, &s.attending
	sp := &at.space[worker]
	for u := lo; u < hi; u++ {
		unit, cut := u/at.cuts, u%at.cuts
		b, kv := at.blocks[unit/c.KVHeads], unit%c.KVHeads
		if at.turns && cut == s.where[s.lo+b.row].pos/cutRows%at.cuts {
			s.cacheHead(sp, b.row, kv)
		}
		s.scaleQueries(sp, b, kv)
		if at.cuts == 1 {
			s.attendBlock(sp, b, kv)
			s.makeAttended(b, kv)
			continue
		}
		group := c.Group()
		part := (unit*at.cuts + cut) * group
		s.attendCut(sp, b, kv, cut*cutRows, at.parts[part:part+group], at.sums[part*c.HeadDim:(part+group)*c.HeadDim])
		if at.left[unit].Add(-1) > 0 {
			continue
		}
		for cut := range at.cuts {
			part := (unit*at.cuts + cut) * group
			s.spansOf(sp, b, cut*cutRows)
			s.combineCut(sp, b, kv, cut*cutRows, at.parts[part:part+group], at.sums[part*c.HeadDim:])
		}
		s.makeAttended(b, kv)
	}
}

// makeAttended makes the activations of what a block has attended with one key/value head.
func (s *stage) makeAttended(b lineBlock, kv int) {
	if !s.attending.makes {
		return
	}
	in, n := &s.products.in, s.config.Group()*s.config.HeadDim
	for row := b.row; row < b.row+b.rows; row++ {
		s.quantise(s.products.act, in, row, kv*n, &s.attended[row*in.cols+kv*n], n)
	}
}

// scaleQueries takes a block's queries, scaled.
func (s *stage) scaleQueries(sp *lineSpace, b lineBlock, kv int) {
	n := s.config.Group() * s.config.HeadDim
	for r := range b.rows {
		dst, q := sp.scaled[r*n:(r+1)*n], s.queries[(b.row+r)*s.ld.q+kv*n:][:n]
		if s.attending.turns { // not in place: the units of other cuts turn them too
			q = sp.sums[:copy(sp.sums, q)]
			s.turnQueries(q, b.row+r, kv*s.config.Group())
		}
		clear(dst)
		s.k.combine(&dst[0], &q[0], 0, s.attnScale, n)
	}
	if s.limits.K == quant.Q8_0 {
		s.k.fix(&sp.scaled[0], b.rows*s.config.Group(), s.config.HeadDim)
	}
}

// attendBlock goes over the cuts that a block's rows see (Dao et al. 2022,
// arXiv 2205.14135: the online softmax).
func (s *stage) attendBlock(sp *lineSpace, b lineBlock, kv int) {
	first, last := s.first(&s.where[s.lo+b.row]), s.where[s.lo+b.row+b.rows-1].pos
	for cut := first / cutRows * cutRows; cut <= last; cut += cutRows {
		s.attendCut(sp, b, kv, cut, sp.parts, sp.sums)
		s.combineCut(sp, b, kv, cut, sp.parts, sp.sums)
	}
}

// first is the first position that a row sees.
func (s *stage) first(p *place) int {
	if w := s.config.Window; w > 0 {
		return max(0, p.pos-w+1)
	}
	return 0
}

// spansOf finds what each row of a block sees of a cut.
func (s *stage) spansOf(sp *lineSpace, b lineBlock, cut int) {
	for r := range b.rows {
		p := &s.where[s.lo+b.row+r]
		sp.spans[r] = span{max(cut, s.first(p)), min(cut+cutRows, p.pos+1)}
	}
}

// attendCut sums one cut: parts and sums by line, of the lines that see it.
func (s *stage) attendCut(sp *lineSpace, b lineBlock, kv, cut int, parts []part, sums []float32) {
	group, hd := s.config.Group(), s.config.HeadDim
	s.spansOf(sp, b, cut)
	spans := sp.spans[:b.rows]
	for page := cut; page < cut+cutRows; page += backend.PageRows {
		lo, hi := seeing(spans, page)
		if lo == hi {
			continue
		}
		n := (hi - lo) * group
		k, next := s.keyPage(b, page, kv), s.valuePage(b, spans[lo].lo, kv)
		if page+backend.PageRows < min(cut+cutRows, spans[hi-1].hi) {
			next = s.keyPage(b, page+backend.PageRows, kv)
		}
		next = s.asked(k, next, n)
		score := s.score
		if s.widenKeys != nil && n > wideLines {
			s.widenKeys(&sp.page[0], k)
			k, score = bytesOf(&sp.page[0]), s.k.scoreF32
			next = k
		}
		score(&sp.scores[lo*group*cutRows+page-cut], &sp.scaled[lo*group*hd], k, next, n, hd)
	}
	for r := 0; r < len(spans); {
		seen, first := spans[r], r*group
		for r++; r < len(spans) && spans[r] == seen; r++ {
		}
		if seen.lo < seen.hi {
			s.k.softmax(&parts[first].most, &sp.scores[first*cutRows+seen.lo-cut], seen.hi-seen.lo, r*group-first)
		}
	}
	clear(sums[:b.rows*group*hd])
	for page := cut; page < cut+cutRows; page += backend.PageRows {
		lo, hi := seeing(spans, page)
		if lo == hi {
			continue
		}
		v := s.valuePage(b, page, kv)
		next := v
		if page+backend.PageRows < min(cut+cutRows, spans[hi-1].hi) {
			next = s.valuePage(b, page+backend.PageRows, kv)
		} else if spans[hi-1].hi < s.where[s.lo+b.row+hi-1].pos {
			next = s.keyPage(b, cut+cutRows, kv)
		}
		next = s.asked(v, next, (hi-lo)*group)
		if s.limits.V == quant.Q8_0 {
			s.sumQ8(sp, spans, lo, hi, cut, page, v, next, sums)
			continue
		}
		x := pageSums{accum: s.accum, v: v, next: next, row: s.valueRow, cut: cut, page: page, group: group, hd: hd, p: sp.scores, sums: sums}
		if s.widenValues != nil && (hi-lo)*group > wideLines {
			s.widenValues(&sp.page[0], v)
			x.v, x.row, x.accum = bytesOf(&sp.page[0]), 4*hd, s.k.accumF32
			x.next = x.v
		}
		x.rows(spans, lo, hi)
	}
	s.sumWeighed(sp, sums)
}

// asked is the page to ask for while lines read page: itself where one line reads faster with none asked for. Of
// more than one, a page's lines are read in an order that is not theirs.
func (s *stage) asked(page, next *byte, lines int) *byte {
	if s.k.alone && lines == 1 {
		return page
	}
	return next
}

// weighedBlock is a block of q8_0 values whose weights are made.
type weighedBlock struct {
	v, next *byte
	lines   int // 0: there is none
	at      int // where in the sums
	turn    int // which of two have its weights
}

// sumQ8 adds a page of q8_0 values to rows [lo, hi), but for its last block, which is left in sp.weighed: the weights of the
// next block are made before the products of one, which need not wait for them.
func (s *stage) sumQ8(sp *lineSpace, spans []span, lo, hi, cut, page int, v, next *byte, sums []float32) {
	group, hd := s.config.Group(), s.config.HeadDim
	n, written := (hi-lo)*group, min(spans[hi-1].hi-page, backend.PageRows)
	for r := lo; r < hi; r++ { // what a row does not see weighs nothing
		seen := span{max(0, spans[r].lo-page), min(spans[r].hi-page, backend.PageRows)}
		for l := r * group; l < (r+1)*group && seen != (span{0, backend.PageRows}); l++ {
			line := sp.scores[l*cutRows+page-cut:][:backend.PageRows]
			clear(line[:seen.lo])
			clear(line[seen.hi:])
		}
	}
	p, w := &sp.scores[lo*group*cutRows+page-cut], &sp.weighed
	for block := range hd / blockCols {
		v, weights := skipBytes(v, block*34*backend.PageRows), &sp.weights[w.turn^1][0]
		s.k.weigh(weights, p, v, n, written)
		s.sumWeighed(sp, sums)
		w.turn ^= 1
		w.v, w.next, w.lines, w.at = v, skipBytes(next, block*34*backend.PageRows), n, lo*group*hd+block*blockCols
	}
}

// sumWeighed adds the block that is left.
func (s *stage) sumWeighed(sp *lineSpace, sums []float32) {
	if w := &sp.weighed; w.lines > 0 {
		s.k.accumQ8(&sums[w.at], &sp.weights[w.turn][0], w.v, w.next, w.lines, s.config.HeadDim)
		w.lines = 0
	}
}

// seeing is the rows [lo, hi) that see any of a page's positions.
func seeing(spans []span, page int) (lo, hi int) {
	sees := func(s span) bool { return s.lo < s.hi && s.lo < page+backend.PageRows && s.hi > page }
	for lo < len(spans) && !sees(spans[lo]) {
		lo++
	}
	for hi = lo; hi < len(spans) && sees(spans[hi]); hi++ {
	}
	return lo, hi
}

// keyPage and valuePage are one head's page that holds a position.
func (s *stage) keyPage(b lineBlock, pos, kv int) *byte {
	return &s.layer.keys[s.headPage(b, pos, kv)*s.keyRow]
}

func (s *stage) valuePage(b lineBlock, pos, kv int) *byte {
	return &s.layer.values[s.headPage(b, pos, kv)*s.valueRow]
}

// headPage is the first row of such a page in the cache.
func (s *stage) headPage(b lineBlock, pos, kv int) int {
	return s.cacheRow(int(s.where[s.lo+b.row].pages[pos/backend.PageRows]), kv)
}

// cacheRow is the first row of one head's page in the cache. The last run may be shorter.
func (s *stage) cacheRow(page, kv int) int {
	run := page / runPages * runPages
	length := min(runPages, s.limits.Pages-run)
	return (run*s.config.KVHeads + kv*length + page - run) * backend.PageRows
}

// pageSums adds a page of values to the sums of lines.
type pageSums struct {
	accum     func(acc, p *float32, v, next *byte, lines, n, dim int)
	v, next   *byte
	row       int // bytes
	cut, page int
	group, hd int
	p, sums   []float32
}

// rows adds what rows [lo, hi) see: all of them at once where that is the whole
// page; else as many as make four lines, and what only some of those see apart.
func (x *pageSums) rows(spans []span, lo, hi int) {
	end := x.page + backend.PageRows
	if common := meet(spans[lo:hi]); common.lo <= x.page && common.hi >= end {
		x.add(lo, hi, x.page, end)
		return
	}
	step := max(1, 4/x.group)
	for r := lo; r < hi; r += step {
		some := spans[r:min(r+step, hi)]
		common := meet(some)
		common.lo, common.hi = max(common.lo, x.page), min(common.hi, end)
		common.hi = max(common.lo, common.hi)
		for i, seen := range some {
			x.add(r+i, r+i+1, max(seen.lo, x.page), min(common.lo, seen.hi))
		}
		x.add(r, r+len(some), common.lo, common.hi)
		for i, seen := range some {
			x.add(r+i, r+i+1, max(common.hi, seen.lo), min(seen.hi, end))
		}
	}
}

// meet is what all spans have in common.
func meet(spans []span) span {
	all := spans[0]
	for _, s := range spans[1:] {
		all.lo, all.hi = max(all.lo, s.lo), min(all.hi, s.hi)
	}
	return all
}

// add adds positions [from, to) to the lines of rows [lo, hi).
func (x *pageSums) add(lo, hi, from, to int) {
	if from < to {
		v := at[byte](x.v, (from-x.page)*x.row, 1)
		x.accum(&x.sums[lo*x.group*x.hd], &x.p[lo*x.group*cutRows+from-x.cut], &v[0], x.next, (hi-lo)*x.group, to-from, x.hd)
	}
}

// combineCut adds a cut to the lines that see it.
func (s *stage) combineCut(sp *lineSpace, b lineBlock, kv, cut int, parts []part, sums []float32) {
	c := s.config
	group, hd := c.Group(), c.HeadDim
	for r, seen := range sp.spans[:b.rows] {
		if seen.hi <= seen.lo {
			continue
		}
		p := &s.where[s.lo+b.row+r]
		for g := range group {
			l := r*group + g
			now, next := parts[l], float32(1)
			all, old := part{now.most, now.total}, float32(0)
			if seen.lo > s.first(p) { // there are cuts before
				all, old = sp.soFar[l], 1
				if now.most > all.most {
					old = float32(math.Exp(float64(all.most - now.most)))
					all.most = now.most
				} else {
					next = float32(math.Exp(float64(now.most - all.most)))
				}
				all.total = float32(all.total*old) + float32(now.total*next)
			}
			sp.soFar[l] = all
			if seen.hi > p.pos { // this is the last
				old, next = old/all.total, next/all.total
			}
			dst := s.attended[((b.row+r)*c.Heads+kv*group+g)*hd:][:hd]
			if seen.lo == s.first(p) {
				clear(dst) // whatever it was
			}
			s.k.combine(&dst[0], &sums[l*hd], old, next, hd)
		}
	}
}

// storeKey writes one head's key to its place in a page.
func (k *kernels) storeKey(t quant.Type, page []byte, at int, x []float32, space []byte) {
	if t == quant.F32 {
		for d, v := range x {
			le.PutUint32(page[(d*backend.PageRows+at)*4:], math.Float32bits(v))
		}
		return
	}
	k.store(t, space, x)
	if t == quant.F16 {
		for d := range x {
			le.PutUint16(page[(d*backend.PageRows+at)*2:], le.Uint16(space[2*d:]))
		}
		return
	}
	for b := range len(x) / blockCols {
		from, to := space[b*34:(b+1)*34], page[b*34*backend.PageRows:(b+1)*34*backend.PageRows]
		copy(to[2*at:2*at+2], from)
		for d, q := range from[2:] {
			to[2*backend.PageRows+(d/2*backend.PageRows+at)*2+d%2] = q
		}
	}
}

// storeValue writes one head's value to its place in a page.
func (k *kernels) storeValue(t quant.Type, page []byte, at int, x []float32, space []byte) {
	if t != quant.Q8_0 {
		row := len(page) / backend.PageRows
		k.store(t, page[at*row:(at+1)*row], x)
		return
	}
	k.store(t, space, x)
	pair, which := pairedPosition(at)
	for b := range len(x) / blockCols {
		from, to := space[b*34:(b+1)*34], page[b*34*backend.PageRows:(b+1)*34*backend.PageRows]
		copy(to[2*at:2*at+2], from)
		for d, q := range from[2:] {
			to[2*backend.PageRows+(pair*blockCols+d)*2+which] = q
		}
	}
}
