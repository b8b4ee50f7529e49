package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/sched"
)

// machine is the devices of this one that a command may use.
type machine struct {
	devices []backend.Device
	named   []backend.Device // those of them that --device names one by one
	absent  []sched.LeftOut
	speeds  *speeds
}

// findMachine gives the devices that spec names, checked against the placement
// flags; where none are named, all, unless layers are to be split over GPUs.
func findMachine(c *cli.Context, spec string, o compute, notes io.Writer, verbose bool) (*machine, error) {
	m := &machine{speeds: newSpeeds(o, notes, verbose)}
	var err error
	if spec == "auto" && c.String("split") == "" {
		var absent []device.Absent
		m.devices, absent, err = device.All(deviceOptions(o))
		for _, n := range absent {
			id := n.ID
			if id == "" {
				id = n.Kind
			}
			m.absent = append(m.absent, sched.LeftOut{Device: id, Reason: n.Reason.Error()})
		}
	} else {
		m.devices, err = device.Find(spec, deviceOptions(o))
	}
	if err != nil {
		return nil, deviceError(spec, err)
	}
	if err := checkPlacement(c, m.devices, noGPU); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(spec, ",") {
		if name = strings.TrimSpace(name); name != "auto" && name != "cuda" {
			one, err := device.Choose(m.devices, name)
			if err != nil {
				return nil, deviceError(spec, err)
			}
			m.named = append(m.named, one...)
		}
	}
	if c.Bool("strict") && c.String("split") == "" { // a split has a share for the CPU too, and is refused
		m.devices = slices.DeleteFunc(m.devices, func(d backend.Device) bool { return d.Info().Kind == "cpu" })
	}
	return m, nil
}

// deviceError is an error of finding the devices that spec names.
func deviceError(spec string, err error) error {
	f := *classify(err)
	f.device = spec
	return &f
}

// now is the machine at this moment, as a plan for the model sees it. Where must is
// false and there is one device, its speed need not be known; where it is true, it is
// known of layers in the model's formats.
func (m *machine) now(ctx context.Context, must bool, model *backend.Model) (*workstation, error) {
	w := &workstation{absent: m.absent}
	for _, d := range m.devices {
		s, err := m.speeds.of(ctx, d, d.Info(), must || len(m.devices) > 1)
		if err != nil {
			return nil, err
		}
		if must {
			if err := m.speeds.time(ctx, d, s, model); err != nil {
				return nil, err
			}
		}
		one := sched.Device{Info: d.Info(), Need: d.Need, Converts: device.Converts(d)}
		if s != nil {
			one.Rates, one.Speed = s.Rates, s.Speed
		}
		w.devices = append(w.devices, one)
	}
	if !w.has("cpu") {
		if cpu, err := device.Find("cpu", device.Options{}); err == nil {
			w.host = cpu[0].Info().Free
		}
	}
	return w, nil
}

// lost takes out the devices that are gone, which have no memory any more. Errors:
// why where no device is, or one that was named, or no other is left.
func (m *machine) lost(why error) (gone []string, err error) {
	left := slices.DeleteFunc(slices.Clone(m.devices), func(d backend.Device) bool {
		i := d.Info()
		if i.Kind == "cpu" || i.Free > 0 {
			return false
		}
		gone = append(gone, i.ID)
		return true
	})
	for _, d := range m.named {
		if !slices.Contains(left, d) && slices.Contains(m.devices, d) {
			return nil, &failure{exit: exitDevice, code: "device", device: d.Info().ID, hint: "drover devices shows what is here; without --device the others are used",
				err: fmt.Errorf("%s is gone, which --device names: %w", d.Info().ID, why)}
		}
	}
	if len(gone) == 0 || len(left) == 0 {
		return nil, why
	}
	m.devices = left
	for _, id := range gone {
		m.absent = append(m.absent, sched.LeftOut{Device: id, Reason: why.Error()})
	}
	return gone, nil
}

// placer plans for a command that computes.
type placer struct {
	machine *machine
	model   *backend.Model
	asked   planning
	wishes  sched.Wishes
	notes   io.Writer
	verbose bool // plans are shown, and devices measured that were not
	auto    bool // it is said what was chosen
	title   string

	took time.Duration // planning, with what was measured for it

	mu   sync.Mutex
	last *sched.Plan
}

// current is the plan that was made last.
func (p *placer) current() *sched.Plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// plan is an engine.Planner: free memory is read at this moment. After an error it
// says on stderr that it plans again, and why.
func (p *placer) plan(ctx context.Context, why error) (*engine.Plan, error) {
	began := time.Now()
	defer func() { p.took += time.Since(began) }()
	return p.next(ctx, why)
}

func (p *placer) next(ctx context.Context, why error) (*engine.Plan, error) {
	var short *backend.MemoryError
	switch {
	case errors.As(why, &short):
		fmt.Fprintf(p.notes, "planned again: %v\n", why)
	case why != nil:
		before := p.machine.devices
		gone, err := p.machine.lost(why)
		if err != nil {
			return nil, err
		}
		p.wishes.Split = sharesLeft(p.wishes.Split, before, p.machine.devices)
		fmt.Fprintf(p.notes, "planned again without %s: %v\n", strings.Join(gone, ", "), why)
	}
	w, err := p.machine.now(ctx, p.verbose, p.model)
	if errors.Is(err, backend.ErrLost) && why == nil {
		return p.next(ctx, err)
	} else if err != nil {
		return nil, err
	}
	if short != nil {
		p.bound(w, short)
	}
	next, err := place(w, p.model, &p.asked, p.wishes)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.last = next
	p.mu.Unlock()
	if err := p.tell(next); err != nil {
		return nil, err
	}
	return enginePlan(next, p.machine.devices), nil
}

// enginePlan is what an engine loads, of the devices that the plan was made for.
func enginePlan(p *sched.Plan, devices []backend.Device) *engine.Plan {
	e := &engine.Plan{Limits: p.Limits}
	for i := range p.Stages {
		s := &p.Stages[i]
		e.Places = append(e.Places, engine.Placement{Device: devices[s.Index], Runs: s.Runs})
		e.Stages = append(e.Stages, engine.StagePlan{Device: s.Device, Weights: s.Weights})
	}
	return e
}

// sharesLeft is the shares of the devices that are left; nil where none has one.
func sharesLeft(shares []float64, before, left []backend.Device) []float64 {
	var kept []float64
	for i, share := range shares {
		if slices.Contains(left, before[i]) {
			kept = append(kept, share)
		}
	}
	if !slices.ContainsFunc(kept, func(share float64) bool { return share > 0 }) {
		return nil
	}
	return kept
}

// bound lets a plan use no more of a device than an error has shown to be free. A
// stage that failed in spite of it met what the device keeps for itself: a
// sixteenth is left to that.
func (p *placer) bound(w *workstation, short *backend.MemoryError) {
	for i := range w.devices {
		info := &w.devices[i].Info
		if info.ID != short.Device {
			continue
		}
		if short.Free > 0 {
			info.Free = min(info.Free, short.Free)
		}
		for _, s := range p.current().Stages {
			if s.Device == info.ID && s.Weights+s.Cache+s.Scratch <= info.Free {
				info.Free -= info.Free / 16
			}
		}
	}
}

// tell shows the plan to who wants to know, and what was chosen where nothing was.
func (p *placer) tell(next *sched.Plan) error {
	if p.verbose {
		fmt.Fprintln(p.notes, p.title)
		next.Explain()
		return next.Write(p.notes)
	}
	if p.auto && len(p.machine.devices) > 1 {
		var parts []string
		for i := range next.Stages {
			parts = append(parts, next.Stages[i].Device+" carries "+next.Stages[i].What)
		}
		fmt.Fprintln(p.notes, strings.Join(parts, "; "))
	}
	return nil
}

// place is sched.Place for what was asked, with the context's limits of a machine.
func place(w *workstation, m *backend.Model, asked *planning, wishes sched.Wishes) (*sched.Plan, error) {
	p, err := sched.Place(w.devices, m, asked.limits(m, w.host), wishes)
	if text, wish := sched.IsWish(err); wish {
		return nil, usageError("see --device, --gpu-layers, --split and --n-cpu-moe", "%s", text)
	} else if err != nil {
		return nil, err
	}
	p.LeftOut = append(p.LeftOut, w.absent...)
	return p, nil
}
