// Package cpu runs blocks on the processor: pure Go, with Go assembly for the
// inner loops. It knows the contract (package backend) and the number formats
// (package quant), and nothing of files, tokens or other devices.
package cpu

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"drover/backend"
)

// Options choose how the processor is used.
type Options struct {
	ISA     string // kernel set, one of Sets; empty: the best this CPU has
	Threads int    // workers; 0: one for each physical core that this process may use
	Raw     bool   // weights stay as they lie in the file
	Memory  uint64 // bytes to pretend to have free; 0: what the system tells
}

// ErrISA: no CPU has a kernel set of that name.
var ErrISA = errors.New("unknown kernel set")

// ErrNoISA: this CPU, or this build, lacks the kernel set.
var ErrNoISA = errors.New("kernel set not available on this CPU")

// Sets names the kernel sets of all CPUs.
func Sets() []string { return []string{"generic", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"} }

// sets are kernelSets; tests have more.
var sets = kernelSets

// Available names the kernel sets of this CPU, best first.
func Available() []string {
	var names []string
	for _, k := range sets() {
		names = append(names, k.isa)
	}
	return names
}

// New is the processor as a device. Errors: ErrISA, ErrNoISA.
func New(o Options) (backend.Device, error) {
	sets := sets()
	k := sets[0]
	if o.ISA != "" {
		i := slices.IndexFunc(sets, func(k *kernels) bool { return k.isa == o.ISA })
		if i < 0 {
			err := ErrISA
			if slices.Contains(Sets(), o.ISA) {
				err = ErrNoISA
			}
			return nil, fmt.Errorf("%w: %q (here: %s)", err, o.ISA, strings.Join(Available(), ", "))
		}
		k = sets[i]
	}
	cores := physicalCores()
	if o.Threads <= 0 {
		o.Threads = min(cores, runtime.GOMAXPROCS(0))
	}
	return &device{options: o, k: k, name: processorName(), cores: cores, sensors: newSensors("/sys")}, nil
}

type device struct {
	options Options
	k       *kernels
	name    string
	cores   int
	taken   atomic.Uint64 // bytes that stages hold, where Options.Memory pretends
	sensors *sensors
}

func (d *device) Info() backend.Info {
	total, free := memory()
	if d.options.Memory != 0 {
		total, free = d.options.Memory, d.options.Memory-min(d.options.Memory, d.taken.Load())
	}
	return backend.Info{ID: "cpu", Kind: "cpu", Name: d.name, ISA: d.k.isa, Cores: d.cores, Total: total, Free: free}
}

func (d *device) Sensors() backend.Sensors { return d.sensors.now() }

func (d *device) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	return Need(d.options, m, runs, l)
}
