package verify

import (
	"fmt"
	"slices"

	"drover/backend"
)

// Budget is how many multiply-adds the reference may take for the layers, about
// twelve seconds of two cores, and DeviceBudget another device.
const Budget, DeviceBudget = 60e9, 3e12

// sample chooses layers: one of each device that carries any, then one of each mix
// of formats, then such that they lie evenly from the first to the last, as many as
// the budget allows for so many rows, but two at least.
func sample(m *backend.Model, where []int, rows int, o Options) []int {
	all := m.Config.Layers
	most := budgeted(m, rows, o)
	if o.Full || most >= all {
		layers := make([]int, all)
		for l := range layers {
			layers[l] = l
		}
		return layers
	}
	taken := map[int]bool{}
	devices, formats := map[string]bool{}, map[string]bool{}
	for l := range all {
		if on := fmt.Sprint(where[1+2*l], where[2+2*l]); !devices[on] {
			devices[on], taken[l] = true, true
			formats[mix(m, l)] = true
		}
	}
	for l := range all {
		if f := mix(m, l); !formats[f] && len(taken) < most {
			formats[f], taken[l] = true, true
		}
	}
	for len(taken) < most {
		taken[furthestFrom(taken, all)] = true
	}
	var layers []int
	for l := range taken {
		layers = append(layers, l)
	}
	slices.Sort(layers)
	return layers
}

// furthestFrom is the layer that lies furthest from those taken: the ends first, then
// what is between.
func furthestFrom(taken map[int]bool, all int) int {
	best, most := 0, -1
	for l := range all {
		least := all
		for t := range taken {
			least = min(least, max(l-t, t-l))
		}
		if least > most {
			best, most = l, least
		}
	}
	return best
}

// budgeted is how many layers the budget allows, two at least.
func budgeted(m *backend.Model, rows int, o Options) int {
	c := &m.Config
	layer := 0.0
	for _, t := range m.Tensors(backend.Range{Lo: 1, Hi: 3}) {
		n := float64(t.Rows) * float64(t.Cols)
		if l := &m.Layers[0]; c.Experts > 0 && (t == l.Gate || t == l.Up || t == l.Down) {
			n *= float64(c.ExpertsUsed) / float64(c.Experts)
		}
		layer += n
	}
	allowed := o.Budget
	switch {
	case allowed > 0:
	case o.Against != nil:
		allowed = DeviceBudget
	default:
		allowed = Budget
	}
	return max(2, int(min(1e6, allowed/(layer*float64(rows)))))
}

// mix names the formats of a layer's tensors.
func mix(m *backend.Model, layer int) (name string) {
	for _, t := range m.Tensors(backend.Range{Lo: 1 + 2*layer, Hi: 3 + 2*layer}) {
		name += t.Type.String() + " "
	}
	return name
}
