// Package bench measures how fast devices read prompts and decode, and says what
// share of the devices' own limit that is. It runs requests through the engine, as
// drover run does, so it knows models and devices only through the contract: no
// files, no text, no sampling.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/backend"
	"drover/internal/engine"
	"drover/internal/quant"
)

// Subject is the model under test and how its file describes it.
type Subject struct {
	Model    *backend.Model
	Filename string // path or synthetic specification
	TypeName string // as files are named: "Q4_K_M"
	Params   uint64
	Bytes    uint64 // of all tensors
}

// Options are what all tests of a run share.
type Options struct {
	Set     string           // what the devices are called together: as asked for
	Devices []backend.Device // that may carry the model
	Planner engine.Planner   // places it on them, for what Demand says

	Batch   int           // most rows in one Forward
	Repeats int           // most samples of each test
	Least   time.Duration // a sample is the mean of as many passes as take so long together
	Budget  time.Duration // a test that has taken so long begins no further repeat; 0: no bound
	Warmup  bool          // an unmeasured pass of each test before the first sample
	Profile bool          // one pass after the repeats of each test, taken apart by op
	Threads int           // as given to the CPU; 0: not known
	K, V    quant.Type    // cache formats
	CPU     string        // name of the processor, also where a GPU runs the model
	Version string        // of the program

	// Measured, if not nil, is told what was found of a device, before Planner is asked.
	Measured func(d backend.Device, r backend.Rates)
	// Describe, if not nil, says how a record shows the placement, and the tokens/s
	// that were predicted; 0: none were.
	Describe func(t Test) (plan any, predicted float64)
	// Progress, if not nil, is told what happens next, and while loading the
	// bytes done and in total (total 0: not loading). Never while time is taken.
	Progress func(what string, done, total uint64)
}

func (o *Options) progress(what string, done, total uint64) {
	if o.Progress != nil {
		o.Progress(what, done, total)
	}
}

// Run measures the devices, loads the model and runs the tests: those of one depth
// and number of sequences in turns, one sample of each, so that what moves on the
// machine meanwhile moves all of them and shows in their intervals. emit gets a record
// of each when its turns are over; when ctx ends or a device errs before that, also the
// records of the tests that have samples, and then Run returns the error.
func Run(ctx context.Context, s Subject, tests []Test, o Options, emit func(Record) error) error {
	if len(tests) == 0 || o.Batch < 1 || o.Repeats < 1 {
		return fmt.Errorf("bench: %d tests of %d repeats in batches of %d: nothing to measure", len(tests), o.Repeats, o.Batch)
	}
	for _, t := range tests {
		if err := t.Check(); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	r := &runner{subject: s, options: o, rates: map[string]backend.Rates{}}
	if err := r.measure(ctx); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	var err error
	for len(tests) > 0 && err == nil {
		n := inTurns(tests)
		err = r.turns(ctx, tests[:n], emit)
		tests = tests[n:]
	}
	return errors.Join(err, r.engine.Close())
}

// inTurns is how many of the first tests take turns: those that share what is in the cache.
func inTurns(tests []Test) int {
	for i, t := range tests {
		if t.Depth != tests[0].Depth || t.Sequences != tests[0].Sequences {
			return i
		}
	}
	return len(tests)
}

// runner is a loaded model and what is known of its devices.
type runner struct {
	subject Subject
	options Options
	rates   map[string]backend.Rates // by ID
	free    map[string]uint64        // before loading, bytes
	peak    bool                     // the process's peak memory counts from before loading on

	engine *engine.Engine
	taps   []*tap // by stage
	parts  []part
	infos  []backend.Info
	driver driver
}

// measure times the devices. Of a software device nothing would be learnt.
func (r *runner) measure(ctx context.Context) error {
	for _, d := range r.options.Devices {
		info := d.Info()
		if info.Simulated {
			continue
		}
		r.options.progress("measure "+info.ID, 0, 0)
		rates, err := d.Measure(ctx)
		switch {
		case err == nil && r.options.Measured != nil:
			r.options.Measured(d, rates)
		case err != nil && !errors.Is(err, backend.ErrUnsupported):
			return fmt.Errorf("measure %s: %w", info.ID, err)
		}
		r.rates[info.ID] = rates
	}
	return nil
}

// load lets the engine load the model. A device that is lost afterwards ends the
// run: on others it would be another measurement.
func (r *runner) load(ctx context.Context) error {
	r.peak, r.free = resetPeak(), map[string]uint64{}
	for _, d := range r.options.Devices {
		i := d.Info()
		r.free[i.ID] = i.Free
	}
	loaded := false
	planner := func(ctx context.Context, why error) (*engine.Plan, error) {
		if loaded {
			return nil, why
		}
		p, err := r.options.Planner(ctx, why)
		if err != nil {
			return nil, err
		}
		q := *p
		q.Places, r.taps = slices.Clone(p.Places), nil
		for i := range q.Places {
			t := &tap{Device: q.Places[i].Device}
			q.Places[i].Device, r.taps = t, append(r.taps, t)
		}
		return &q, nil
	}
	var err error
	r.engine, err = engine.Load(ctx, r.subject.Model, planner, func(done, total uint64) { r.options.progress("load", done, total) })
	if err != nil {
		return err
	}
	loaded = true
	for _, p := range r.engine.Plan().Places {
		i := p.Device.Info()
		r.infos, r.parts = append(r.infos, i), append(r.parts, part{i.Kind, p.Runs, r.rates[i.ID]})
	}
	r.driver = driver{engine: r.engine, vocab: int32(r.subject.Model.Config.Vocab), random: 1}
	return nil
}

// turn is a test among those that take turns.
type turn struct {
	test   Test
	meter  *meter
	record Record
	spent  time.Duration
}

// turns runs tests that share what is in the cache, and emits the records of those
// that have samples, with an error too.
func (r *runner) turns(ctx context.Context, tests []Test, emit func(Record) error) error {
	all := make([]*turn, len(tests))
	for i, t := range tests {
		all[i] = &turn{test: t}
	}
	err := r.sample(ctx, all)
	for _, t := range all {
		if t.meter == nil || len(t.record.SamplesNS) == 0 {
			continue
		}
		t.record.finish(t.meter)
		t.record.PeakBytes = r.taken()
		if err == nil && r.options.Profile {
			r.options.progress(t.test.Name(), 0, 0)
			var failed error
			if t.record.Profile, failed = r.profile(ctx, t.test); failed != nil {
				err = fmt.Errorf("bench %s: %w", t.test.Name(), failed)
			}
		}
		if failed := emit(t.record); failed != nil {
			return errors.Join(err, failed)
		}
	}
	return err
}

// sample fills the cache, warms up and takes samples until no test needs more.
func (r *runner) sample(ctx context.Context, all []*turn) error {
	if err := r.driver.begin(ctx, all[0].test); err != nil {
		return fmt.Errorf("bench %s: %w", all[0].test.Name(), err)
	}
	for _, t := range all {
		if err := r.timed(t, func() error { return r.warmUp(ctx, t) }); err != nil {
			return err
		}
	}
	for more := true; more; {
		more = false
		for _, t := range all {
			if r.options.enough(t.record.SamplesTS, t.spent) {
				continue
			}
			more = true
			if err := r.timed(t, func() error { return r.repeat(ctx, t) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// timed counts the time of f as spent on a test.
func (r *runner) timed(t *turn, f func() error) error {
	r.options.progress(t.test.Name(), 0, 0)
	began := time.Now()
	err := f()
	t.spent += time.Since(began)
	if err != nil {
		err = fmt.Errorf("bench %s: %w", t.test.Name(), err)
	}
	return err
}

// devices in use, the one with most of the weights first.
func (r *runner) devices() []backend.Device {
	plan, heaviest := r.engine.Plan(), 0
	var all []backend.Device
	for i := range plan.Places {
		all = append(all, plan.Places[i].Device)
		if plan.Stages[i].Weights > plan.Stages[heaviest].Weights {
			heaviest = i
		}
	}
	all[0], all[heaviest] = all[heaviest], all[0]
	return all
}

// Warm-ups are short: enough for the engine to find the size of a prompt's chunks,
// and for every kernel to have run.
const warmPrompt, warmGen = 512, 2

// warmUp begins a test's record and runs a short pass that does not count.
func (r *runner) warmUp(ctx context.Context, t *turn) error {
	o := &r.options
	t.record = newRecord(r.infos, r.subject, r.parts, t.test, o)
	t.meter = newMeter(r.devices())
	t.record.sense(t.meter.gauges[0].before)
	if !o.Warmup {
		return nil
	}
	short := t.test
	short.Prompt, short.Gen = min(short.Prompt, warmPrompt), min(short.Gen, warmGen)
	if _, err := r.driver.run(ctx, short); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return nil
}

// repeat takes a sample.
func (r *runner) repeat(ctx context.Context, t *turn) error {
	stop := t.meter.watch()
	passes, err := r.passes(ctx, t.test)
	now := stop()
	if err != nil {
		return err
	}
	t.record.add(passes, t.meter)
	t.record.sense(now)
	return nil
}

// passes runs a test until its timed parts took Options.Least together, or ten times as long with what is not
// timed.
func (r *runner) passes(ctx context.Context, t Test) (all []pass, err error) {
	const most = 1000
	least, began := r.options.Least, time.Now()
	for took := time.Duration(0); len(all) == 0 || took < least && time.Since(began) < 10*least && len(all) < most; {
		p, err := r.driver.run(ctx, t)
		if err != nil {
			return nil, err
		}
		all, took = append(all, p), took+p.took
	}
	return all, nil
}

// A mean is known well enough when half its confidence interval is within Narrow of
// it, of at least LeastRepeats samples.
const Narrow, LeastRepeats = 0.02, 3

// enough says whether a test needs no more samples.
func (o *Options) enough(samples []float64, spent time.Duration) bool {
	n := len(samples)
	if n == 0 {
		return false
	}
	if n >= o.Repeats || o.Budget > 0 && spent >= o.Budget {
		return true
	}
	mean, _ := meanDeviation(samples)
	half, ok := interval(samples)
	return n >= LeastRepeats && ok && half <= Narrow*mean
}

// taken is the memory that was in use at most, in bytes: of the CPU this process's,
// of GPUs what is free no more since before loading. nil: not known.
func (r *runner) taken() *uint64 {
	var sum uint64
	for _, p := range r.engine.Plan().Places {
		i := p.Device.Info()
		n, ok := r.free[i.ID]-min(r.free[i.ID], i.Free), true
		if i.Kind == "cpu" {
			n, ok = readPeak()
			ok = ok && r.peak
		}
		if !ok || n == 0 {
			return nil
		}
		sum += n
	}
	return &sum
}
