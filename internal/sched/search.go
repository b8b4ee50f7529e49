package sched

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"drover/backend"
)

// Models of up to exactBlocks blocks get the very best plan. Larger ones keep
// beam beginnings of plans a block, those that could become the fastest, and do
// not cut a model into more pieces for less than worth of its time.
const exactBlocks, beam, worth = 16, 500, 1e-3

// search is the search for one context.
type search struct {
	t       *task
	devices []Device
	limits  backend.Limits
	ledgers []*ledger // by device; like devices share one
	unlike  int       // different ledgers
	rooms   []float64 // by device, of room
	host    uint64    // memory of the computer that stages may take in all, bytes
	costs   *costs
}

func newSearch(t *task, l backend.Limits, spare uint64) (*search, error) {
	s := &search{t: t, devices: t.devices, limits: l, host: math.MaxUint64}
	if t.l.Host > 0 {
		s.host = t.l.Host
	}
	for i := range s.devices {
		d := &s.devices[i]
		free := d.Info.Free
		if d.Info.Kind == "cpu" && d.Info.Total > 0 {
			if spare > 0 {
				free -= free / spare
			}
			s.host = free
		}
		var g *ledger
		for j := range i {
			if s.alike(j, i) {
				g = s.ledgers[j]
			}
		}
		if g == nil {
			g = newLedger(d, t.m, t.blocks, l, free)
			s.unlike++
		}
		s.ledgers = append(s.ledgers, g)
	}
	for i := range s.devices {
		s.rooms = append(s.rooms, s.room(i))
	}
	s.costs = newCosts(s.devices, s.ledgers, t.m, l, t.w.Request)
	return s, s.failed()
}

// failed is an error of a Need, if there was one that is not of its model.
func (s *search) failed() error {
	for _, g := range s.ledgers {
		if g.err != nil {
			return g.err
		}
	}
	return nil
}

// alike says that two devices differ by their names only.
func (s *search) alike(a, b int) bool {
	x, y := s.devices[a].Info, s.devices[b].Info
	x.ID, x.UUID, y.ID, y.UUID = "", "", "", ""
	p, q := s.devices[a].Rates, s.devices[b].Rates
	if x != y || x.Kind == "cpu" || !maps.Equal(p.Format, q.Format) || !maps.Equal(s.devices[a].Speed, s.devices[b].Speed) {
		return false
	}
	p.Format, q.Format = nil, nil
	if p.Read != q.Read || p.Copy != q.Copy || p.Matrix != q.Matrix || p.Float != q.Float || p.Launch != q.Launch || p.Link != q.Link || p.Latency != q.Latency {
		return false
	}
	return !slices.ContainsFunc(s.t.allowed, func(m uint32) bool { return m>>a&1 != m>>b&1 })
}

// label is the beginning of a plan: its time, and what each device carries. Of
// those that carry the same and end on the same device one is kept.
type label struct {
	labelKey
	cost, bound float64 // seconds of the request: so far, and at least
	from        int     // the label of the block before
}

type labelKey struct {
	loads [MaxDevices]*load
	last  int // device, or their number at the start
}

// solve gives each block its device. Errors: errNoRoom, those of Need.
func (s *search) solve() ([]int, error) {
	best, fastest := s.chain(), math.Inf(1)
	if best != nil {
		if fastest = s.seconds(best); len(s.devices) == 1 {
			return best, nil
		}
	}
	better, err := s.improve(fastest)
	if err != nil {
		return nil, err
	}
	if better != nil {
		best = better
	}
	if best == nil {
		for _, g := range s.ledgers {
			if g.why != nil {
				return nil, g.why
			}
		}
		return nil, errNoRoom
	}
	return s.tidy(best), nil
}

// tidy gives like layers that lie differently an order, those with the most on
// slow devices first, where that costs nothing.
func (s *search) tidy(where []int) []int {
	kind := func(l int) [2]int { return [2]int{s.t.blocks.of[1+2*l], s.t.blocks.of[2+2*l]} }
	lies := func(l int) [2]int { return [2]int{where[1+2*l], where[2+2*l]} }
	speed := func(pair [2]int) float64 {
		return s.devices[pair[0]].Rates.Read + s.devices[pair[1]].Rates.Read
	}
	tidied := slices.Clone(where)
	done := map[[2]int]bool{}
	for first := range s.t.m.Config.Layers {
		if done[kind(first)] {
			continue
		}
		done[kind(first)] = true
		var layers []int
		var pairs [][2]int
		for l := first; l < s.t.m.Config.Layers; l++ {
			if kind(l) == kind(first) {
				layers, pairs = append(layers, l), append(pairs, lies(l))
			}
		}
		slices.SortStableFunc(pairs, func(a, b [2]int) int {
			return cmp.Or(cmp.Compare(speed(a), speed(b)), cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
		})
		for i, l := range layers {
			tidied[1+2*l], tidied[2+2*l] = pairs[i][0], pairs[i][1]
		}
	}
	for b, d := range tidied {
		if s.t.allowed[b]>>d&1 == 0 {
			return where
		}
	}
	if less(s.seconds(where), s.seconds(tidied)) {
		return where
	}
	return tidied
}

// improve looks for a plan that takes less than fastest; nil if there is none.
func (s *search) improve(fastest float64) ([]int, error) {
	blocks, n := len(s.t.allowed), len(s.devices)
	exact := blocks <= exactBlocks
	limit := fastest * (1 - 1e-12)
	if !exact && !math.IsInf(fastest, 1) {
		limit = fastest * (1 - worth)
	}
	b := newBounds(s, fastest)
	start := label{labelKey: labelKey{last: n}, from: -1}
	for d := range n {
		start.loads[d] = s.ledgers[d].empty
	}
	layers := [][]label{{start}}
	var next []label // of one block, and where each stands
	index := map[labelKey]int{}
	for at := range blocks {
		next = next[:0]
		clear(index)
		for from := range layers[at] {
			for d := range n {
				l, ok := s.extend(&layers[at][from], from, at, d)
				if !ok {
					continue
				}
				if l.bound = b.bound(s, &l, at+1); !(l.bound < limit) && !math.IsInf(limit, 1) {
					continue
				}
				i, known := index[l.labelKey]
				if known && !less(l.cost, next[i].cost) {
					continue
				}
				if known {
					next[i] = l
				} else {
					index[l.labelKey] = len(next)
					next = append(next, l)
				}
			}
		}
		if !exact && len(next) > beam {
			layers = append(layers, nearest(next))
		} else {
			layers = append(layers, slices.Clone(next))
		}
	}
	if err := s.failed(); err != nil {
		return nil, err
	}
	return walkBack(layers), nil
}

// nearest are the beam labels with the lowest bounds, the first found of equal
// ones.
func nearest(all []label) []label {
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		if c := cmp.Compare(all[i].bound, all[j].bound); c != 0 {
			return c
		}
		return i - j
	})
	kept := make([]label, beam)
	for i := range kept {
		kept[i] = all[order[i]]
	}
	return kept
}

// extend gives block at to device d, if it may carry it and there is room. What
// lies beside a device that carries everything, which may be less, is left to
// chain.
func (s *search) extend(l *label, from, at, d int) (label, bool) {
	if s.t.allowed[at]>>d&1 == 0 || s.skips(l, d) {
		return label{}, false
	}
	next := label{labelKey: l.labelKey, from: from, cost: l.cost + s.costs.request[d][at]}
	if l.last < len(s.devices) {
		next.cost += s.costs.crossRequest[l.last][d]
	}
	next.loads[d] = s.ledgers[d].add(l.loads[d], s.t.blocks.of[at])
	next.last = d
	return next, next.loads[d].fits && s.shared(&next.loads)
}

// skips says that d would be used before another that is its like.
func (s *search) skips(l *label, d int) bool {
	g := s.ledgers[d]
	if l.loads[d] != g.empty {
		return false
	}
	for other := range d {
		if s.ledgers[other] == g && l.loads[other] == g.empty {
			return true
		}
	}
	return false
}

// shared says whether loads fit the computer's memory: what lies beside devices,
// and all of those that have none of their own.
func (s *search) shared(loads *[MaxDevices]*load) bool {
	for exact := false; ; exact = true {
		sum, off := uint64(0), uint64(0)
		for d := range s.devices {
			n := loads[d]
			own := s.devices[d].Info.Kind != "cpu" && s.devices[d].Info.Kind != "metal"
			if n.rough && !own {
				if exact {
					s.ledgers[d].ask(n)
				} else {
					off += Granule
				}
			}
			if sum += n.need.Host; !own {
				sum += n.need.Total()
			}
		}
		switch {
		case s.host == math.MaxUint64 || sum+off <= s.host:
			return true
		case off == 0 || sum > s.host+off:
			return false
		}
	}
}

// walkBack finds the fastest end's devices, block by block.
func walkBack(layers [][]label) []int {
	blocks := len(layers) - 1
	if len(layers[blocks]) == 0 {
		return nil
	}
	end := 0
	for i := range layers[blocks] {
		if less(layers[blocks][i].cost, layers[blocks][end].cost) {
			end = i
		}
	}
	where := make([]int, blocks)
	for at, i := blocks, end; at > 0; at-- {
		where[at-1] = layers[at][i].last
		i = layers[at][i].from
	}
	return where
}

// seconds is the request's time.
func (s *search) seconds(where []int) float64 {
	return total(where, s.costs.request, s.costs.crossRequest)
}

// total adds up blocks and crossings.
func total(where []int, block, cross [][]float64) float64 {
	sum := 0.0
	for b, d := range where {
		sum += block[d][b]
		if b > 0 && where[b-1] != d {
			sum += cross[where[b-1]][d]
		}
	}
	return sum
}

// fits says whether every device has room for its blocks.
func (s *search) fits(where []int) bool {
	var loads [MaxDevices]*load
	for d := range s.devices {
		loads[d] = s.ledgers[d].empty
	}
	for b, d := range where {
		if loads[d] = s.ledgers[d].add(loads[d], s.t.blocks.of[b]); !loads[d].fits {
			return false
		}
	}
	return s.shared(&loads)
}
