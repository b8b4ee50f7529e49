// Package device finds the devices of this machine. It is the only importer
// of the backends cuda, metal and cpu, and knows how --device names devices.
package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"drover/backend"
	"drover/cpu"
	"drover/cuda"
	"drover/metal"
)

// ErrSpec: the text does not name devices, or names one twice.
var ErrSpec = errors.New("unknown device")

// ErrUnavailable: the text names a device that is not here; the error says why.
var ErrUnavailable = errors.New("device unavailable")

// refusal is an error whose kind is one of the two above and whose text is its
// own.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), kind}
}

// Options are wishes for the devices found.
type Options struct {
	ISA     string // the CPU's kernel set, one of cpu.Sets; empty: the best this CPU has
	Threads int    // CPU threads; 0: one a core
	Raw     bool   // the CPU computes from the weights as they lie in the file
}

// Absent is a backend without a device here, or a card that cannot be used, and
// why.
type Absent struct {
	Kind   string
	ID     string // of the card; empty: the backend has no device at all
	Reason error
}

// All lists every device of this machine, the GPUs first, and what is absent.
func All(o Options) ([]backend.Device, []Absent, error) {
	var found []backend.Device
	var absent []Absent
	for _, kind := range []string{"cuda", "metal", "cpu"} {
		devices, err := ofKind(kind, o)
		if kind == "cpu" && err != nil {
			return nil, nil, err
		}
		if cards := leftOut(err); len(cards) > 0 {
			for _, c := range cards {
				absent = append(absent, Absent{kind, c.ID, errors.New(c.Reason)})
			}
		} else if err != nil {
			absent = append(absent, Absent{Kind: kind, Reason: err})
		}
		found = append(found, devices...)
	}
	return found, absent, nil
}

// Find gives the devices that spec names: "auto" (the GPUs, else the CPU),
// "all", "cpu", "cuda" (every one), "cuda:N", "cuda:UUID", "metal", or a list
// of these with commas. Errors: ErrSpec, ErrUnavailable.
func Find(spec string, o Options) ([]backend.Device, error) {
	if err := checkISA(o.ISA); err != nil {
		return nil, err
	}
	switch spec {
	case "all":
		devices, _, err := All(o)
		return devices, err
	case "auto":
		for _, kind := range []string{"cuda", "metal"} {
			if devices, _ := ofKind(kind, o); len(devices) > 0 {
				return devices, nil
			}
		}
		return ofKind("cpu", o)
	}
	var found []backend.Device
	for _, name := range strings.Split(spec, ",") {
		devices, err := named(strings.TrimSpace(name), o)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			id, _ := identity(d)
			if slices.ContainsFunc(found, func(f backend.Device) bool { other, _ := identity(f); return other == id }) {
				return nil, refuse(ErrSpec, "device list %q names %s twice", spec, id)
			}
		}
		found = append(found, devices...)
	}
	return found, nil
}

// named finds the devices of one name of a list.
func named(name string, o Options) ([]backend.Device, error) {
	kind, which, one := strings.Cut(name, ":")
	if !slices.Contains([]string{"cpu", "cuda", "metal"}, kind) || one && (kind != "cuda" || which == "") {
		return nil, refuse(ErrSpec, "unknown device %q: auto, cpu, cuda, cuda:N, cuda:UUID, metal or a list of them with commas is possible", name)
	}
	devices, err := ofKind(kind, o)
	if kind == "cpu" && err != nil {
		return nil, err // names the kernel set, not the device
	}
	if len(devices) == 0 {
		return nil, refuse(ErrUnavailable, "%s is not available: %v", name, err)
	}
	if !one {
		return devices, nil
	}
	var ids []string
	for i, d := range devices {
		id, uuid := identity(d)
		if name == id || strings.EqualFold(which, uuid) {
			return devices[i : i+1], nil
		}
		ids = append(ids, id)
	}
	for _, c := range leftOut(err) {
		if name == c.ID {
			return nil, refuse(ErrUnavailable, "%s is not available: %s", name, c.Reason)
		}
	}
	return nil, refuse(ErrUnavailable, "%s is not available: here are %s", name, strings.Join(ids, ", "))
}

// identity is a device's ID and UUID. A GPU tells them without opening a
// context, which takes time and memory of a card that may not be wanted.
func identity(d backend.Device) (id, uuid string) {
	if known, ok := d.(interface{ Identity() (id, uuid string) }); ok {
		return known.Identity()
	}
	i := d.Info()
	return i.ID, i.UUID
}

// leftOut are the cards in an error of ofKind.
func leftOut(err error) []*cuda.LeftOut {
	var cards []*cuda.LeftOut
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range all.Unwrap() {
			var c *cuda.LeftOut
			if errors.As(e, &c) {
				cards = append(cards, c)
			}
		}
	}
	return cards
}

// ofKind lists a backend's devices; none is an error that says why. Beside
// devices the error is of cards that are left out.
func ofKind(kind string, o Options) ([]backend.Device, error) {
	switch kind {
	case "cuda":
		return cuda.Devices()
	case "metal":
		return metal.Devices()
	}
	if err := checkISA(o.ISA); err != nil {
		return nil, err
	}
	d, err := cpu.New(cpu.Options{ISA: o.ISA, Threads: o.Threads, Raw: o.Raw})
	if err != nil {
		return nil, err
	}
	return []backend.Device{d}, nil
}

// checkISA holds a kernel set's name against those that exist, and those that
// this CPU runs.
func checkISA(isa string) error {
	known, here := cpu.Sets(), cpu.Available()
	switch {
	case isa == "" || slices.Contains(here, isa):
		return nil
	case !slices.Contains(known, isa):
		return refuse(ErrSpec, "no CPU kernels are called %q: DROVER_CPU is one of %s", isa, strings.Join(known, ", "))
	}
	return refuse(ErrUnavailable, "this CPU does not run the %s kernels that DROVER_CPU names: it runs %s", isa, strings.Join(here, ", "))
}
