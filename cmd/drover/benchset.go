package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/bench"
	"drover/internal/device"
	"drover/internal/model"
	"drover/internal/sched"
)

// benchSet is devices that share a model, and how they compute.
type benchSet struct {
	name     string // as --device has it
	compute  compute
	machine  *machine
	oneOfAll bool // nobody named it: left out where the model does not fit
}

// benchSets are the sets to measure in turn. Threads make a difference only where
// the CPU is among the devices.
func benchSets(c *cli.Context, asked *benchAsked) ([]benchSet, error) {
	var sets []benchSet
	for _, spec := range asked.devices {
		specs, all := []string{spec}, spec == "all"
		if all {
			found, err := device.Find(spec, deviceOptions(asked.settings[0]))
			if err != nil {
				return nil, deviceError(spec, err)
			}
			specs = nil
			for _, d := range found {
				specs = append(specs, device.ID(d))
			}
			if len(specs) > 1 {
				specs = append(specs, "auto")
			}
		}
		for _, name := range specs {
			for i, o := range asked.settings {
				m, err := findMachine(c, name, o, c.App.ErrWriter, false)
				if err != nil {
					return nil, err
				}
				without := !slices.ContainsFunc(m.devices, func(d backend.Device) bool { return d.Info().Kind == "cpu" })
				if without && slices.ContainsFunc(asked.settings[:i], func(p compute) bool { return p.K == o.K && p.V == o.V }) {
					continue
				}
				sets = append(sets, benchSet{name, o, m, all})
			}
		}
	}
	return sets, nil
}

// benchRun is all tests of one model on one set.
type benchRun struct {
	c      *cli.Context
	asked  *benchAsked
	file   *model.File
	set    *benchSet
	bar    *progress
	placer *placer
	warned bool // that the device is software
}

func (b *benchRun) subject() bench.Subject {
	return bench.Subject{Model: b.file.Model, Filename: b.file.Path, TypeName: b.file.TypeName, Params: b.file.Params, Bytes: b.file.Bytes}
}

// leastSample: a pass of a few milliseconds says more of what else ran on its core just then.
const leastSample = 100 * time.Millisecond

func (b *benchRun) options() bench.Options {
	c, o := b.c, b.set.compute
	context, sequences, pages := bench.Demand(b.asked.tests)
	asked := planning{compute: o, context: context, sequences: sequences, pages: pages, request: b.request()}
	b.placer = &placer{machine: b.set.machine, model: b.file.Model, asked: asked, wishes: asked.wishes(c, b.file.Model), notes: b.bar}
	b.set.machine.speeds.notes = io.Discard // it is measured in any case
	return bench.Options{
		Set: b.set.name, Devices: b.set.machine.devices, Planner: b.placer.plan,
		Batch: o.Batch, Repeats: b.asked.repeats, Least: leastSample, Budget: b.asked.budget, Warmup: !c.Bool("no-warmup"), Profile: c.Bool("profile"), Threads: o.Threads,
		K: o.K, V: o.V, CPU: cpuName(), Version: version(),
		Measured: b.measured,
		Describe: b.describe,
		Progress: func(what string, done, total uint64) {
			if total > 0 {
				b.bar.step(done, total)
				return
			}
			b.bar.end()
			if isTerminal(c.App.ErrWriter) {
				fmt.Fprintf(c.App.ErrWriter, "%s: %s\n", b.set.name, what)
			}
		},
	}
}

// request is what the placement should be fast at: the longest of the tests.
func (b *benchRun) request() sched.Request {
	r := sched.Request{Generate: 1}
	for _, t := range b.asked.tests {
		r.Prompt, r.Generate, r.Depth = max(r.Prompt, t.Prompt), max(r.Generate, t.Gen), max(r.Depth, t.Depth)
	}
	return r
}

// measured keeps the rates of a device of which none were known. Where some were,
// with what runs have shown since, these predict better.
func (b *benchRun) measured(d backend.Device, r backend.Rates) {
	s, i := b.set.machine.speeds, d.Info()
	if known, err := s.of(b.c.Context, d, i, false); err == nil && known == nil && r.Read > 0 {
		s.measured(s.key(d, i), i.ID, r)
	}
}

// describe is the plan with what it predicts of a test; of several sequences at
// once plans predict nothing.
func (b *benchRun) describe(t bench.Test) (any, float64) {
	p := b.placer.current()
	if t.Sequences > 1 || p.Predicted == 0 {
		return p, 0
	}
	q, err := p.For(sched.Request{Depth: t.Depth, Prompt: t.Prompt, Generate: max(1, t.Gen)})
	switch {
	case err != nil || b.guessed(p):
		return p, 0
	case t.Prompt > 0:
		return q, float64(q.Prompt)
	}
	return q, float64(q.Predicted)
}

// guessed: the speed of a device that carries something was not measured.
func (b *benchRun) guessed(p *sched.Plan) bool {
	return slices.ContainsFunc(p.Stages, func(s sched.Stage) bool {
		known := b.set.machine.speeds.known[s.Device]
		return known == nil || known.guessed
	})
}

// cpuName is the processor's name; empty if not known.
func cpuName() string {
	if found, err := device.Find("cpu", device.Options{}); err == nil && len(found) == 1 {
		return found[0].Info().Name
	}
	return ""
}

func maxProcs() int { return runtime.GOMAXPROCS(0) }
