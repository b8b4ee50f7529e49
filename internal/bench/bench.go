// Package bench measures how fast a device reads prompts and decodes, and says
// what share of the device's own limit that is. It drives a stage directly, so
// it knows models and devices only through the contract: no files, no text, no
// sampling.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/backend"
	"drover/internal/quant"
)

// Test is one measurement: either Prompt or Gen is zero, as in llama-bench.
type Test struct {
	Prompt    int // tokens of a prompt, read in batches
	Gen       int // tokens generated one at a time
	Depth     int // tokens already in the cache of each sequence
	Sequences int // sequences at once
}

// Name is the test's short name: "pp512", "tg128 @ d4096 x 4".
func (t Test) Name() string {
	s := fmt.Sprintf("tg%d", t.Gen)
	if t.Prompt > 0 {
		s = fmt.Sprintf("pp%d", t.Prompt)
	}
	if t.Depth > 0 {
		s += fmt.Sprintf(" @ d%d", t.Depth)
	}
	if t.Sequences > 1 {
		s += fmt.Sprintf(" x %d", t.Sequences)
	}
	return s
}

// length is the number of tokens that a test adds to each sequence.
func (t Test) length() int { return t.Prompt + t.Gen }

// tokens is how many tokens one repeat is credited with.
func (t Test) tokens() int { return t.Sequences * t.length() }

// Check says whether a test can be run at all.
func (t Test) Check() error {
	switch {
	case t.Prompt < 0 || t.Gen < 0 || t.Depth < 0 || (t.Prompt > 0) == (t.Gen > 0):
		return fmt.Errorf("a prompt of %d and %d generated tokens at depth %d: one of the two is measured, from depth 0 on", t.Prompt, t.Gen, t.Depth)
	case t.Sequences < 1 || t.Sequences > maxSequences:
		return fmt.Errorf("%d sequences at once: 1 to %d can be measured", t.Sequences, maxSequences)
	case max(t.Prompt, t.Gen, t.Depth) > maxContext || t.Depth+t.length() > maxContext:
		return fmt.Errorf("%s: at most %d positions can be measured", t.Name(), maxContext)
	}
	return nil
}

// Placed is a placement as records show it, and what to expect of it.
type Placed struct {
	Plan    any
	Rates   backend.Rates        // of what carries the model: the limits follow from them
	Predict func(t Test) float64 // tokens/s, 0 if not known; nil: by the rates
}

// Bounds that keep counts within int32 positions and pages.
const (
	maxContext   = 1 << 22
	maxSequences = 1 << 10
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
	Batch   int        // most rows in one Forward
	Repeats int        // samples of each test
	Warmup  bool       // one unmeasured pass before each test
	Profile bool       // one pass after the repeats of each test, taken apart by op
	Threads int        // as given to the device; 0: not known
	K, V    quant.Type // cache formats
	CPU     string     // name of the processor, also where a GPU runs the model
	// Plan, if not nil, says what lies where, by the limits and what Measure has
	// found. Nothing is loaded where it gives an error.
	Plan func(l backend.Limits, r backend.Rates) (Placed, error)
	// Progress, if not nil, is told what happens next, and while loading the
	// bytes done and in total (total 0: not loading). Never while time is taken.
	Progress func(what string, done, total uint64)
}

func (o *Options) progress(what string, done, total uint64) {
	if o.Progress != nil {
		o.Progress(what, done, total)
	}
}

// Run loads the model whole onto the device, measures the device and runs the
// tests in order. emit gets a record after each test; when ctx ends or a device
// errs in the middle of one, also that test's record with the samples taken so
// far, if any, and then Run returns the error.
func Run(ctx context.Context, dev backend.Device, s Subject, tests []Test, o Options, emit func(Record) error) error {
	if len(tests) == 0 || o.Batch < 1 || o.Repeats < 1 {
		return fmt.Errorf("bench: %d tests of %d repeats in batches of %d: nothing to measure", len(tests), o.Repeats, o.Batch)
	}
	for _, t := range tests {
		if err := t.Check(); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	o.progress("measure "+dev.Info().ID, 0, 0)
	rates, err := dev.Measure(ctx)
	if err != nil && !errors.Is(err, backend.ErrUnsupported) {
		return fmt.Errorf("measure %s: %w", dev.Info().ID, err)
	}
	peak := resetPeak()
	limits := limitsFor(tests, o)
	placed := Placed{Rates: rates}
	if o.Plan != nil {
		if placed, err = o.Plan(limits, rates); err != nil {
			return fmt.Errorf("plan on %s: %w", dev.Info().ID, err)
		}
	}
	run := []backend.Range{{Lo: 0, Hi: s.Model.Config.Blocks()}}
	stage, err := dev.Load(ctx, s.Model, run, limits, func(done, total uint64) { o.progress("load", done, total) })
	if err != nil {
		return fmt.Errorf("load on %s: %w", dev.Info().ID, err)
	}
	l := newLoop(stage, &s.Model.Config, limits)
	for _, t := range tests {
		o.progress(t.Name(), 0, 0)
		r := newRecord(dev, s, t, o, placed)
		err = measure(ctx, l, dev, t, o, &r)
		if err == nil && o.Profile {
			r.Profile, err = l.profile(ctx, t, placed.Rates)
		}
		if r.finish(t, peak); len(r.SamplesNS) > 0 {
			err = errors.Join(err, emit(r))
		}
		if err != nil {
			err = fmt.Errorf("bench %s: %w", t.Name(), err)
			break
		}
	}
	return errors.Join(err, stage.Close())
}

// limitsFor is what all tests together ask of the stage.
func limitsFor(tests []Test, o Options) backend.Limits {
	l := backend.Limits{Rows: 1, K: o.K, V: o.V}
	for _, t := range tests {
		positions := t.Depth + t.length()
		pages := (positions + backend.PageRows - 1) / backend.PageRows
		l.Context = max(l.Context, positions)
		l.Pages = max(l.Pages, pages*t.Sequences)
		l.Seqs = max(l.Seqs, t.Sequences)
		prompt := max(t.Prompt, t.Depth) * t.Sequences
		l.Rows = max(l.Rows, t.Sequences, min(o.Batch, prompt))
	}
	l.Outs = l.Seqs
	return l
}

// measure runs one test: depth, warm-up, repeats. Rewinding between repeats is
// sending the same positions again.
func measure(ctx context.Context, l *loop, dev backend.Device, t Test, o Options, r *Record) error {
	l.begin(t)
	if t.Depth > 0 {
		if err := l.prompt(ctx, 0, t.Depth); err != nil {
			return fmt.Errorf("fill the cache to depth %d: %w", t.Depth, err)
		}
	}
	if o.Warmup {
		if err := l.pass(ctx, t, min(t.Gen, 1)); err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
	}
	for range o.Repeats {
		start := time.Now()
		if err := l.pass(ctx, t, t.Gen); err != nil {
			return err
		}
		// a clock too coarse to see the pass still took some time
		r.SamplesNS = append(r.SamplesNS, max(1, time.Since(start).Nanoseconds()))
		r.sense(dev.Sensors())
	}
	return nil
}

// loop drives a stage with random tokens. Its buffers are made once, so that
// nothing but Forward is timed.
type loop struct {
	stage  backend.Stage
	vocab  int32
	rows   int // most rows in a batch
	seqs   int
	pages  [][]int32 // of each sequence, disjoint
	random uint64
	batch  backend.Batch
	logits []float32
}

func newLoop(stage backend.Stage, c *backend.Config, l backend.Limits) *loop {
	return &loop{
		stage: stage, vocab: int32(c.Vocab), rows: l.Rows, random: 1,
		logits: make([]float32, l.Outs*c.Vocab),
		batch: backend.Batch{
			Tokens: make([]int32, 0, l.Rows), Pos: make([]int32, 0, l.Rows),
			Seqs: make([]backend.Seq, 0, l.Seqs), Out: make([]int32, 0, l.Outs),
		},
	}
}

// begin gives each of the test's sequences the pages for all its positions.
func (l *loop) begin(t Test) {
	each := (t.Depth + t.length() + backend.PageRows - 1) / backend.PageRows
	l.seqs, l.pages = t.Sequences, make([][]int32, t.Sequences)
	for s := range l.pages {
		for p := range each {
			l.pages[s] = append(l.pages[s], int32(s*each+p))
		}
	}
}

// pass is one repeat of a test, with gen tokens generated.
func (l *loop) pass(ctx context.Context, t Test, gen int) error {
	if t.Prompt > 0 {
		return l.prompt(ctx, t.Depth, t.Prompt)
	}
	for i := range gen {
		l.clear()
		for s := range l.seqs {
			l.add(s, t.Depth+i, 1, true)
		}
		if err := l.forward(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prompt sends positions [lo, lo+n) of every sequence, batches filled with
// sequence after sequence; only a sequence's last row wants logits.
func (l *loop) prompt(ctx context.Context, lo, n int) error {
	l.clear()
	for s := range l.seqs {
		for done := 0; done < n; {
			k := min(n-done, l.rows-len(l.batch.Tokens))
			l.add(s, lo+done, k, done+k == n)
			done += k
			if len(l.batch.Tokens) < l.rows && !(done == n && s == l.seqs-1) {
				continue
			}
			if err := l.forward(ctx); err != nil {
				return err
			}
			l.clear()
		}
	}
	return nil
}

func (l *loop) clear() {
	b := &l.batch
	b.Tokens, b.Pos, b.Seqs, b.Out = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Out[:0]
}

// add puts k rows of sequence s from position pos on into the batch; last says
// that the last of them wants logits.
func (l *loop) add(s, pos, k int, last bool) {
	b := &l.batch
	for i := range k {
		b.Tokens, b.Pos = append(b.Tokens, l.token()), append(b.Pos, int32(pos+i))
	}
	pages := (pos + k + backend.PageRows - 1) / backend.PageRows
	b.Seqs = append(b.Seqs, backend.Seq{Rows: k, Pages: l.pages[s][:pages]})
	if last {
		b.Out = append(b.Out, int32(len(b.Tokens)-1))
	}
}

func (l *loop) forward(ctx context.Context) error {
	l.batch.Logits = l.logits[:len(l.batch.Out)*int(l.vocab)]
	return l.stage.Forward(ctx, 0, &l.batch)
}

// token is the next pseudo-random token (Marsaglia's xorshift64).
func (l *loop) token() int32 {
	l.random ^= l.random << 13
	l.random ^= l.random >> 7
	l.random ^= l.random << 17
	return int32(l.random % uint64(l.vocab))
}

// Tests makes the list of llama-bench: for each depth, each prompt length and
// then each generation length; zeros are left out.
func Tests(prompts, gens, depths []int, sequences int) []Test {
	var tests []Test
	for _, d := range depths {
		for _, p := range prompts {
			tests = append(tests, Test{Prompt: p, Depth: d, Sequences: sequences})
		}
		for _, g := range gens {
			tests = append(tests, Test{Gen: g, Depth: d, Sequences: sequences})
		}
	}
	return slices.DeleteFunc(tests, func(t Test) bool { return t.length() == 0 })
}
