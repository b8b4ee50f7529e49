package sched

import (
	"math"
	"slices"
)

// chain is the fastest plan in which every device has one run, by dynamic
// programming over how many devices of each class are used, and where their
// runs end. nil if there is none that fits.
func (s *search) chain() []int {
	classes := s.classes()
	blocks := len(s.t.allowed)
	states := make([][]link, blocks+1)
	index := make([]map[linkKey]int, blocks+1)
	for i := range index {
		index[i] = map[linkKey]int{}
	}
	states[0] = []link{{linkKey: linkKey{last: -1}, from: -1}}
	for at := range blocks {
		for from := range states[at] {
			for c, class := range classes {
				state := states[at][from]
				if int(state.used[c]) == len(class) {
					continue
				}
				next := state.linkKey
				device := class[next.used[c]]
				next.used[c]++
				next.last = int8(c)
				seconds := state.cost
				if state.last >= 0 {
					seconds += s.costs.crossRequest[classes[state.last][0]][device]
				}
				n := s.ledgers[device].empty
				for b := at; b < blocks && s.t.allowed[b]>>device&1 == 1; b++ {
					if n = s.ledgers[device].add(n, s.t.blocks.of[b]); !n.fits {
						break
					}
					seconds += s.costs.request[device][b]
					if s.coarse(b+1) && b+1 < blocks {
						continue
					}
					i, known := index[b+1][next]
					if !known {
						i = len(states[b+1])
						index[b+1][next] = i
						states[b+1] = append(states[b+1], link{linkKey: next, cost: math.Inf(1)})
					}
					if l := &states[b+1][i]; less(seconds, l.cost) {
						l.cost, l.from, l.at = seconds, from, at
					}
				}
			}
		}
	}
	return s.bestChain(classes, states)
}

// link is a state of the search for chains: how much of each class is used.
type link struct {
	linkKey
	cost     float64 // seconds of the request so far
	at, from int     // block and state where the last run begins
}

type linkKey struct {
	used [MaxDevices]uint8
	last int8 // class of the last run, -1 at the start
}

// bestChain walks back from the fastest end whose stages fit the computer's
// memory too.
func (s *search) bestChain(classes [][]int, states [][]link) []int {
	blocks := len(s.t.allowed)
	ends := make([]int, len(states[blocks]))
	for i := range ends {
		ends[i] = i
	}
	slices.SortStableFunc(ends, func(i, j int) int {
		a, b := states[blocks][i], states[blocks][j]
		switch {
		case less(a.cost, b.cost):
			return -1
		case less(b.cost, a.cost):
			return 1
		}
		return 0
	})
	for _, end := range ends {
		where := make([]int, blocks)
		for at, i := blocks, end; at > 0; {
			l := states[at][i]
			device := classes[l.last][l.used[l.last]-1]
			for b := l.at; b < at; b++ {
				where[b] = device
			}
			at, i = l.at, l.from
		}
		if s.fits(where) {
			return where
		}
	}
	return nil
}

// coarse says that chains are not cut before block b: inside a layer of a large
// model with many classes of devices, where search.go looks for better.
func (s *search) coarse(b int) bool { return b > exactBlocks && s.unlike > 4 && b%2 == 0 }

// less is a < b by more than sums differ in whose order only was changed.
func less(a, b float64) bool { return a < b-1e-12*math.Abs(b) || math.IsInf(b, 1) && a < b }

// classes are the devices that cannot be told apart but by their place in the
// list, slower ones first: of equal plans the first found is kept.
func (s *search) classes() [][]int {
	var classes [][]int
	for d := range s.devices {
		i := slices.IndexFunc(classes, func(c []int) bool { return s.alike(c[0], d) })
		if i < 0 {
			classes = append(classes, []int{d})
		} else {
			classes[i] = append(classes[i], d)
		}
	}
	slices.SortStableFunc(classes, func(a, b []int) int {
		x, y := s.devices[a[0]].Rates.Read, s.devices[b[0]].Rates.Read
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return classes
}
