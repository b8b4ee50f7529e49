// Package device finds the devices of this machine. It is the only importer
// of the backends cuda, metal and cpu, and knows how --device names devices.
package device

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"drover/backend"
	"drover/cpu"
	"drover/cuda"
	"drover/internal/quant"
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

// Described is a device that is known from its description alone: it is planned
// for, and does not run. Errors: backend.ErrUnsupported for what this drover has
// no kernels for.
func Described(i backend.Info, o Options) (backend.Device, error) {
	d := &described{info: i}
	refuse := func(known ...string) error {
		return fmt.Errorf("%w: %s has no kernels called %q; known are %s", backend.ErrUnsupported, i.Kind, i.ISA, strings.Join(known, ", "))
	}
	switch i.Kind {
	case "cuda":
		if known := []string{"sm_75", "sm_80", "sm_90", "sm_90a"}; !slices.Contains(known, i.ISA) {
			return nil, refuse(known...)
		}
		d.need = func(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
			return cuda.Need(i, m, runs, l)
		}
		d.converts = cuda.Converts
	case "metal":
		if family, err := strconv.Atoi(strings.TrimPrefix(i.ISA, "apple")); err != nil || family < 7 || !strings.HasPrefix(i.ISA, "apple") {
			return nil, refuse("apple7 and up")
		}
		d.need = func(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
			return metal.Need(i, m, runs, l)
		}
		d.converts = metal.Converts
	case "cpu":
		if !slices.Contains(cpu.Sets(), i.ISA) {
			return nil, refuse(cpu.Sets()...)
		}
		options := cpu.Options{ISA: i.ISA, Threads: cmp.Or(o.Threads, i.Cores), Raw: o.Raw}
		d.need = func(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
			return cpu.Need(options, m, runs, l)
		}
	default:
		return nil, fmt.Errorf("%w: this drover has no backend for %s", backend.ErrUnsupported, i.Kind)
	}
	return d, nil
}

// described has no memory, kernels or sensors.
type described struct {
	info     backend.Info
	need     func(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error)
	converts func(quant.Type) bool // nil: none
}

// Converts says for which weight formats a device has no kernels: it rewrites them
// as int8 with a scale per 16, exactly.
func Converts(d backend.Device) func(quant.Type) bool {
	switch c := d.(type) {
	case *described:
		return c.converts
	case interface{ Converts(t quant.Type) bool }:
		return c.Converts
	}
	return nil
}

func (d *described) Info() backend.Info       { return d.info }
func (d *described) Sensors() backend.Sensors { return backend.Sensors{} }

func (d *described) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	return d.need(m, runs, l)
}

func (d *described) Measure(context.Context) (backend.Rates, error) {
	return backend.Rates{}, fmt.Errorf("%s: %w: it is a description", d.info.ID, backend.ErrUnsupported)
}

func (d *described) Load(context.Context, *backend.Model, []backend.Range, backend.Limits, func(done, total uint64)) (backend.Stage, error) {
	return nil, fmt.Errorf("%s: %w: it is a description", d.info.ID, backend.ErrUnsupported)
}

// named finds the devices of one name of a list.
func named(name string, o Options) ([]backend.Device, error) {
	kind, which, err := splitName(name)
	if err != nil {
		return nil, err
	}
	devices, err := ofKind(kind, o)
	if kind == "cpu" && err != nil {
		return nil, err // names the kernel set, not the device
	}
	if len(devices) == 0 {
		return nil, refuse(ErrUnavailable, "%s is not available: %v", name, err)
	}
	found, ids := matching(devices, name, which)
	if len(found) > 0 {
		return found, nil
	}
	for _, c := range leftOut(err) {
		if name == c.ID {
			return nil, refuse(ErrUnavailable, "%s is not available: %s", name, c.Reason)
		}
	}
	return nil, refuse(ErrUnavailable, "%s is not available: here are %s", name, strings.Join(ids, ", "))
}

// splitName cuts a name of a list in two: cuda and 0 or a UUID, or a kind alone.
func splitName(name string) (kind, which string, err error) {
	kind, which, one := strings.Cut(name, ":")
	if !slices.Contains([]string{"cpu", "cuda", "metal"}, kind) || one && (kind != "cuda" || which == "") {
		return "", "", refuse(ErrSpec, "unknown device %q: auto, cpu, cuda, cuda:N, cuda:UUID, metal or a list of them with commas is possible", name)
	}
	return kind, which, nil
}

// matching are the devices of one kind that a name means, and the IDs of all.
func matching(devices []backend.Device, name, which string) (found []backend.Device, ids []string) {
	if which == "" {
		return devices, nil
	}
	for i, d := range devices {
		id, uuid := identity(d)
		if name == id || strings.EqualFold(which, uuid) {
			return devices[i : i+1], nil
		}
		ids = append(ids, id)
	}
	return nil, ids
}

// Choose gives those of some devices that spec names, in its order: as Find, but
// "auto" is all of them. Errors: ErrSpec, ErrUnavailable.
func Choose(devices []backend.Device, spec string) ([]backend.Device, error) {
	if spec == "auto" || spec == "all" {
		return devices, nil
	}
	var found []backend.Device
	for _, name := range strings.Split(spec, ",") {
		name = strings.TrimSpace(name)
		kind, which, err := splitName(name)
		if err != nil {
			return nil, err
		}
		var like []backend.Device
		var all []string
		for _, d := range devices {
			i := d.Info()
			if all = append(all, i.ID); i.Kind == kind {
				like = append(like, d)
			}
		}
		named, _ := matching(like, name, which)
		if len(named) == 0 {
			return nil, refuse(ErrUnavailable, "%s is not available: there are %s", name, strings.Join(all, ", "))
		}
		for _, d := range named {
			if slices.Contains(found, d) {
				return nil, refuse(ErrSpec, "device list %q names %s twice", spec, d.Info().ID)
			}
		}
		found = append(found, named...)
	}
	return found, nil
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
