package sched

import "math"

// bounds says how fast a plan can be at most. Memory is priced: with a price
// for each device's bytes, paid by blocks and given back for the free memory,
// the shortest path is never longer than the fastest plan that fits, whatever
// the prices (Lagrangian relaxation). Good prices bring it close.
type bounds struct {
	price []float64   // by device: seconds per byte
	togo  [][]float64 // (blocks+1, devices+1): from block b on, its predecessor on a device; the last column: at the start
}

// rounds is how many prices are tried.
const rounds = 200

// newBounds looks for the prices with the highest bound. fastest is the time of
// the best plan known, +Inf for none.
func newBounds(s *search, fastest float64) *bounds {
	n := len(s.devices)
	b := &bounds{price: make([]float64, n)}
	room := s.rooms
	price, used := make([]float64, n), make([]float64, n)
	togo := s.table()
	highest, step := math.Inf(-1), 1.0
	for range rounds {
		low := s.relaxed(price, togo, used)
		for d := range price {
			if price[d] > 0 {
				low -= price[d] * room[d]
			}
		}
		if low > highest {
			highest = low
			copy(b.price, price)
			if highest >= fastest {
				break
			}
		} else {
			step *= 0.95
		}
		// Polyak's step towards the best plan, or what the bound may still gain
		gap, square := fastest-low, 0.0
		if math.IsInf(fastest, 1) {
			gap = 0.1 * math.Abs(low)
		}
		for d := range price {
			if over := used[d] - room[d]; !math.IsInf(over, 0) {
				square += over * over
			}
		}
		if square == 0 || gap <= 0 {
			break
		}
		for d := range price {
			if over := used[d] - room[d]; !math.IsInf(over, 0) {
				price[d] = max(0, price[d]+step*gap/square*over)
			}
		}
	}
	b.togo = togo
	s.relaxed(b.price, b.togo, used)
	return b
}

func (s *search) table() [][]float64 {
	t := make([][]float64, len(s.t.allowed)+1)
	for i := range t {
		t[i] = make([]float64, len(s.devices)+1)
	}
	return t
}

// relaxed fills togo with the shortest ways to the end at these prices, and used
// with the bytes of the shortest one of all, whose length it returns.
func (s *search) relaxed(price []float64, togo [][]float64, used []float64) float64 {
	n, blocks := len(s.devices), len(s.t.allowed)
	step := func(b, last, d int) float64 {
		if s.t.allowed[b]>>d&1 == 0 {
			return math.Inf(1)
		}
		seconds := togo[b+1][d] + s.costs.request[d][b] + price[d]*float64(s.ledgers[d].least[s.t.blocks.of[b]])
		if last < n {
			seconds += s.costs.crossRequest[last][d]
		}
		return seconds
	}
	clear(togo[blocks])
	for b := blocks - 1; b >= 0; b-- {
		for last := range n + 1 {
			least := math.Inf(1)
			for d := range n {
				least = min(least, step(b, last, d))
			}
			togo[b][last] = least
		}
	}
	clear(used)
	for b, last := 0, n; b < blocks; b++ {
		best := 0
		for d := range n {
			if step(b, last, d) < step(b, last, best) {
				best = d
			}
		}
		used[best] += float64(s.ledgers[best].least[s.t.blocks.of[b]])
		last = best
	}
	return togo[0][n]
}

// room is what a device has for weights and cache at most, in bytes: its free
// memory without the least scratch. +Inf where it does not know its memory.
func (s *search) room(d int) float64 {
	g := s.ledgers[d]
	if g.device.Info.Total == 0 {
		return math.Inf(1)
	}
	scratch := math.Inf(1)
	for kind := range g.kinds.blocks {
		if n := g.empty.next[kind]; n.fits {
			scratch = min(scratch, float64(n.need.Total())-float64(n.need.Weights+n.need.Cache))
		}
	}
	if math.IsInf(scratch, 1) {
		return 0 // it carries nothing at all
	}
	return max(0, float64(g.free)-max(0, scratch-Granule))
}

// bound is the least time of any plan that begins as l does, at block b.
func (b *bounds) bound(s *search, l *label, at int) float64 {
	least := l.cost + b.togo[at][l.last]
	for d, price := range b.price {
		if price == 0 {
			continue
		}
		if n := l.loads[d]; n == s.ledgers[d].empty {
			least -= price * s.rooms[d]
		} else {
			least -= price * (float64(s.ledgers[d].free) - float64(n.need.Total()) + 2*Granule)
		}
	}
	return least
}
