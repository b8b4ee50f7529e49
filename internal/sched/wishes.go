package sched

import (
	"math"

	"drover/backend"
)

// allow is by block which devices may carry it, a bit each. Errors: ErrWish.
func allow(devices []Device, c *backend.Config, w Wishes) ([]uint32, error) {
	all, cpu := uint32(1)<<len(devices)-1, uint32(0)
	for i := range devices {
		if devices[i].Info.Kind == "cpu" {
			cpu |= 1 << i
		}
	}
	if w.Strict {
		if all &^= cpu; all == 0 {
			return nil, refuse("nothing may lie on the CPU, and there is no other device")
		}
		cpu = 0
	}
	allowed := make([]uint32, c.Blocks())
	for b := range allowed {
		allowed[b] = all
	}
	if w.Split != nil {
		if w.GPULayers >= 0 || w.ExpertsOnCPU > 0 {
			return nil, refuse("a split leaves nothing for a number of GPU layers, or of experts on the CPU, to say")
		}
		return allowed, split(allowed, len(devices), c, w.Split)
	}
	if w.GPULayers >= 0 {
		if err := gpuLayers(allowed, all&^cpu, cpu, c, w.GPULayers); err != nil {
			return nil, err
		}
	}
	return allowed, expertsOnCPU(allowed, cpu, c, w.ExpertsOnCPU)
}

// gpuLayers puts the last n layers and the head on GPUs, what is before them on
// the CPU; the embedding lies where it likes.
func gpuLayers(allowed []uint32, gpus, cpu uint32, c *backend.Config, n int) error {
	if n > 0 && gpus == 0 {
		return refuse("%d layers on GPUs, and there is none", n)
	}
	if n < c.Layers && cpu == 0 {
		return refuse("%d of %d layers on GPUs, and no CPU for the others", n, c.Layers)
	}
	if n == 0 {
		for b := range allowed {
			allowed[b] = cpu
		}
		return nil
	}
	first := 1 + 2*max(0, c.Layers-n)
	for b := 1; b < len(allowed); b++ {
		if allowed[b] = gpus; b < first {
			allowed[b] = cpu
		}
	}
	return nil
}

// expertsOnCPU puts the feed-forwards of the first n layers on the CPU.
func expertsOnCPU(allowed []uint32, cpu uint32, c *backend.Config, n int) error {
	switch {
	case n == 0:
		return nil
	case c.Experts == 0:
		return refuse("experts of %d layers on the CPU, and the model has no experts", n)
	case cpu == 0:
		return refuse("experts of %d layers on the CPU, and it may not be used", n)
	}
	for l := range min(n, c.Layers) {
		allowed[2+2*l] = cpu
	}
	return nil
}

// split gives each device its share of the layers, in whole layers.
func split(allowed []uint32, devices int, c *backend.Config, shares []float64) error {
	sum, last := 0.0, -1
	for i, s := range shares {
		if !(s >= 0) || math.IsInf(s, 0) {
			return refuse("a share of %v", s)
		}
		if sum += s; s > 0 {
			last = i
		}
	}
	if len(shares) != devices || last < 0 || math.IsInf(sum, 0) {
		return refuse("%d shares for %d devices, of which one at least must be above 0", len(shares), devices)
	}
	before, lo := 0.0, 0
	for i, s := range shares {
		before += s
		hi := 1 + 2*int(before/sum*float64(c.Layers)+0.5)
		if i == last {
			hi = c.Blocks()
		}
		if s == 0 {
			continue
		}
		for ; lo < hi; lo++ {
			if allowed[lo] &= 1 << i; allowed[lo] == 0 {
				return refuse("the split gives block %d to the CPU, where nothing may lie", lo)
			}
		}
	}
	return nil
}
