package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"drover/backend"
	"drover/internal/bench"
	"drover/internal/engine"
	"drover/internal/sched"
)

// several is devices that carry a model together, by a plan, as one device: bench
// drives it. It is described by those that carry something.
type several struct {
	backend.Device // the first, which nothing is asked of
	machine        *machine

	rates map[string]backend.Rates // by ID: what Measure found
	plan  *sched.Plan              // after place
}

// used are the devices of the plan's stages, GPUs first; before there is a plan all.
func (s *several) used() []backend.Device {
	all := s.machine.devices
	if s.plan != nil {
		all = nil
		for i := range s.plan.Stages {
			all = append(all, s.machine.devices[s.plan.Stages[i].Index])
		}
	}
	gpus := slices.DeleteFunc(slices.Clone(all), func(d backend.Device) bool { return d.Info().Kind == "cpu" })
	return append(gpus, slices.DeleteFunc(slices.Clone(all), func(d backend.Device) bool { return d.Info().Kind != "cpu" })...)
}

// Info joins what the devices are with commas, each word once but for the IDs.
func (s *several) Info() backend.Info {
	var words [7][]string
	all := backend.Info{}
	for _, d := range s.used() {
		i := d.Info()
		for k, word := range []string{i.ID, i.Kind, i.Name, i.UUID, i.ISA, i.Driver, i.Link} {
			if word != "" && !slices.Contains(words[k], word) {
				words[k] = append(words[k], word)
			}
		}
		all.Cores, all.Total, all.Free = all.Cores+i.Cores, all.Total+i.Total, all.Free+i.Free
		all.Simulated = all.Simulated || i.Simulated
	}
	for k, field := range []*string{&all.ID, &all.Kind, &all.Name, &all.UUID, &all.ISA, &all.Driver, &all.Link} {
		*field = strings.Join(words[k], ",")
	}
	return all
}

// Sensors are those of a device that carries all.
func (s *several) Sensors() backend.Sensors {
	if used := s.used(); len(used) == 1 {
		return used[0].Sensors()
	}
	return backend.Sensors{}
}

// Measure measures every device anew, for the limits; place says what they are
// together.
func (s *several) Measure(ctx context.Context) (backend.Rates, error) {
	s.rates = map[string]backend.Rates{}
	for _, d := range s.machine.devices {
		i := d.Info()
		r, err := d.Measure(ctx)
		if err != nil {
			return backend.Rates{}, fmt.Errorf("measure %s: %w", i.ID, err)
		}
		if s.rates[i.ID] = r; !i.Simulated {
			s.machine.speeds.remeasured(s.machine.speeds.key(d, i), i.ID, r)
		}
	}
	return backend.Rates{}, nil
}

// place plans for a model.
func (s *several) place(ctx context.Context, m *backend.Model, l backend.Limits, wishes sched.Wishes) (bench.Placed, error) {
	w, err := s.machine.now(ctx, true, m)
	if err != nil {
		return bench.Placed{}, err
	}
	s.plan, err = sched.Place(w.devices, m, benchLimits(l, w.host), wishes)
	if text, wish := sched.IsWish(err); wish {
		return bench.Placed{}, usageError("see --device, --gpu-layers, --split and --n-cpu-moe", "%s", text)
	} else if err != nil {
		return bench.Placed{}, err
	}
	if len(s.plan.Stages) == 1 {
		return bench.Placed{Plan: s.plan, Rates: s.rates[s.plan.Stages[0].Device]}, nil
	}
	return bench.Placed{Plan: s.plan, Rates: s.together(m), Predict: s.predict}, nil
}

// together is the rates of the stages one after the other: bytes and operations of
// all over the time that they take.
func (s *several) together(m *backend.Model) backend.Rates {
	var bytes, reading, operations, computing float64
	for i := range s.plan.Stages {
		st := &s.plan.Stages[i]
		r := s.rates[st.Device]
		_, weights := decodeReads(m, st.Runs)
		ops := 0.0
		for _, run := range st.Runs {
			for _, t := range m.Tensors(backend.Range{Lo: max(run.Lo, 1), Hi: min(run.Hi, m.Config.Blocks()-1)}) {
				ops += float64(t.Rows) * float64(t.Cols)
			}
		}
		bytes, reading = bytes+float64(weights+st.Cache), reading+float64(weights+st.Cache)/r.Read
		operations, computing = operations+ops, computing+ops/r.Matrix
	}
	all := backend.Rates{Read: bytes / reading}
	if computing > 0 {
		all.Matrix = operations / computing
	}
	return all
}

// predict is what the plan says of a test of one sequence.
func (s *several) predict(t bench.Test) float64 {
	p, err := s.plan.For(sched.Request{Depth: t.Depth, Prompt: t.Prompt, Generate: max(t.Gen, 1)})
	switch {
	case err != nil || t.Sequences > 1:
		return 0
	case t.Prompt > 0:
		return float64(p.Prompt)
	}
	return float64(p.Predicted)
}

// Load loads the plan's stages, whatever the runs.
func (s *several) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	if used := s.used(); len(used) == 1 {
		return used[0].Load(ctx, m, runs, l, progress)
	}
	return engine.Together(ctx, m, enginePlan(s.plan, s.machine.devices), progress)
}
