package engine

import (
	"errors"
	"fmt"

	"drover/backend"
)

// Wishes is what a user said of the placement. Nil and -1 say nothing.
type Wishes struct {
	Shares    []float64 // of the layers, one a device
	GPULayers int       // so many of the last layers go to GPUs, the others to the CPU, which must be among the devices
}

// Spread places whole layers on devices in their order: everything on the first
// if it fits there, else as many layers on each as its memory holds, unless the
// wishes say otherwise. The context shrinks as the options allow until the model
// fits.
// Errors: a *backend.MemoryError for the last device, those of Device.Need.
func Spread(m *backend.Model, devices []backend.Device, w Wishes, o Options) ([]Placement, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if w.Shares != nil {
		return proportional(m, devices, w.Shares), nil
	}
	var first []Placement
	if w.GPULayers >= 0 && w.GPULayers <= m.Config.Layers {
		first, devices = onCPU(m, devices, m.Config.Layers-w.GPULayers)
	}
	if first == nil && len(devices) == 1 {
		return Whole(m, devices[0]), nil
	}
	return shrink(m, first, devices, o)
}

// onCPU places the embedding and that many layers on the CPU, with the head
// where there is no other device, and gives the devices that are left.
func onCPU(m *backend.Model, devices []backend.Device, layers int) ([]Placement, []backend.Device) {
	var cpu backend.Device
	var others []backend.Device
	for _, d := range devices {
		if d.Info().Kind == "cpu" {
			cpu = d
		} else {
			others = append(others, d)
		}
	}
	hi := 1 + 2*layers
	if len(others) == 0 || layers == m.Config.Layers {
		hi = m.Config.Blocks()
	}
	if cpu == nil || hi == 1 {
		return nil, devices
	}
	return []Placement{{cpu, []backend.Range{{Lo: 0, Hi: hi}}}}, others
}

// shrink fills the devices after what is placed already, with the longest
// context that halving finds.
func shrink(m *backend.Model, before []Placement, devices []backend.Device, o Options) ([]Placement, error) {
	lo := 0
	for _, p := range before {
		lo = p.Runs[0].Hi
	}
	if lo == m.Config.Blocks() {
		return before, nil
	}
	context := o.Context
	if context == 0 {
		context = m.Config.Context
	}
	var first error
	for {
		places, err := fillUp(m, devices, lo, o.Limits(&m.Config, context))
		if err == nil || !errors.Is(err, backend.ErrMemory) {
			return append(before, places...), err
		}
		if first == nil {
			first = err
		}
		if o.Context != 0 || o.FitOff || context <= smallest {
			return nil, first
		}
		context = max(smallest, context/2)
	}
}

// fillUp gives each device as many layers as it holds, from block lo on.
func fillUp(m *backend.Model, devices []backend.Device, lo int, l backend.Limits) ([]Placement, error) {
	blocks := m.Config.Blocks()
	var places []Placement
	var short *backend.MemoryError
	for _, d := range devices {
		free := d.Info().Free
		// Need grows with the run, so that the longest that fits is found by halves
		fits := func(hi int) (bool, error) {
			need, err := d.Need(m, []backend.Range{{Lo: lo, Hi: hi}}, l)
			if err != nil {
				return false, fmt.Errorf("%s: %w", d.Info().ID, err)
			}
			if need.Total() > free {
				short = &backend.MemoryError{Device: d.Info().ID, Need: need.Total(), Free: free}
			}
			return need.Total() <= free, nil
		}
		best, worst := 0, len(cuts(blocks, lo))
		for best < worst {
			mid := (best + worst + 1) / 2
			ok, err := fits(cuts(blocks, lo)[mid-1])
			if err != nil {
				return nil, err
			}
			if ok {
				best = mid
			} else {
				worst = mid - 1
			}
		}
		if best == 0 {
			continue
		}
		hi := cuts(blocks, lo)[best-1]
		places = append(places, Placement{d, []backend.Range{{Lo: lo, Hi: hi}}})
		if lo = hi; lo == blocks {
			return places, nil
		}
	}
	return nil, short
}

// cuts are where a run that begins at block lo may end: after the embedding,
// after each layer, after the head.
func cuts(blocks, lo int) []int {
	var all []int
	for hi := 1; hi < blocks; hi += 2 {
		if hi > lo {
			all = append(all, hi)
		}
	}
	return append(all, blocks)
}

// proportional gives each device its share of the layers, the first the
// embedding too and the last the head.
func proportional(m *backend.Model, devices []backend.Device, shares []float64) []Placement {
	var sum, before float64
	for _, s := range shares {
		sum += s
	}
	last := 0
	for i, s := range shares {
		if s > 0 {
			last = i
		}
	}
	var places []Placement
	lo := 0
	for i, d := range devices {
		before += shares[i]
		hi := 1 + 2*int(before/sum*float64(m.Config.Layers)+0.5)
		if i == last {
			hi = m.Config.Blocks()
		}
		if shares[i] > 0 && hi > lo {
			places = append(places, Placement{d, []backend.Range{{Lo: lo, Hi: hi}}})
			lo = hi
		}
	}
	return places
}
