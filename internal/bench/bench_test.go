package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"drover/backend"
	"drover/internal/engine"
	"drover/internal/quant"
)

// device is a stand-in that does no arithmetic: it holds every batch to the
// contract and writes down what was asked.
type device struct {
	rates   backend.Rates
	limits  backend.Limits
	log     []string      // rows:outs of each Forward
	written map[int]int32 // page*PageRows+offset to the position written there
	failAt  int           // this Forward (from 1) fails
	fail    error         // nil: it is interrupted
	closed  bool
	sensors func() backend.Sensors // nil: 10 W and 2000 MHz
}

func (d *device) Info() backend.Info {
	return backend.Info{ID: "cpu", Kind: "cpu", Name: "stand-in", ISA: "none", Cores: 1, Total: 1 << 30, Free: 1 << 30}
}
func (d *device) Measure(context.Context) (backend.Rates, error) { return d.rates, nil }
func (d *device) Sensors() backend.Sensors {
	if d.sensors != nil {
		return d.sensors()
	}
	w, f := 10.0, 2000.0
	return backend.Sensors{Watts: &w, MHz: &f}
}
func (d *device) Need(*backend.Model, []backend.Range, backend.Limits) (backend.Need, error) {
	return backend.Need{}, nil
}
func (d *device) Load(_ context.Context, _ *backend.Model, _ []backend.Range, l backend.Limits, _ func(done, total uint64)) (backend.Stage, error) {
	d.limits, d.written = l, map[int]int32{}
	return d, nil
}
func (d *device) Close() error { d.closed = true; return nil }

// Forward refuses what the contract forbids: rows and results past the limits,
// a row in a page of another sequence, a position whose past was not written.
func (d *device) Forward(ctx context.Context, run int, b *backend.Batch) error {
	d.log = append(d.log, fmt.Sprintf("%d:%d", len(b.Tokens), len(b.Out)))
	if len(d.log) == d.failAt && d.fail != nil {
		return d.fail
	} else if len(d.log) == d.failAt {
		return context.Canceled
	}
	if run != 0 || len(b.Tokens) == 0 || len(b.Tokens) > d.limits.Rows || len(b.Pos) != len(b.Tokens) || len(b.Seqs) > d.limits.Seqs || len(b.Out) > d.limits.Outs {
		return fmt.Errorf("run %d, %d rows, %d positions, %d sequences, %d results with limits %+v", run, len(b.Tokens), len(b.Pos), len(b.Seqs), len(b.Out), d.limits)
	}
	if len(b.Logits) != len(b.Out)*model().Config.Vocab {
		return fmt.Errorf("%d logits for %d rows", len(b.Logits), len(b.Out))
	}
	used, row := map[int32]bool{}, 0
	for _, s := range b.Seqs {
		for _, p := range s.Pages {
			if used[p] || p < 0 || int(p) >= d.limits.Pages {
				return fmt.Errorf("page %d twice or out of %d", p, d.limits.Pages)
			}
			used[p] = true
		}
		for range s.Rows {
			pos := int(b.Pos[row])
			if pos >= d.limits.Context || pos/backend.PageRows >= len(s.Pages) {
				return fmt.Errorf("position %d of %d with %d pages", pos, d.limits.Context, len(s.Pages))
			}
			slot := func(p int) int { return int(s.Pages[p/backend.PageRows])*backend.PageRows + p%backend.PageRows }
			d.written[slot(pos)] = int32(pos)
			for p := range pos {
				if at, ok := d.written[slot(p)]; !ok || at != int32(p) {
					return fmt.Errorf("position %d is sent but %d was not", pos, p)
				}
			}
			row++
		}
	}
	if row != len(b.Tokens) {
		return fmt.Errorf("sequences have %d of %d rows", row, len(b.Tokens))
	}
	return nil
}

// model is a shape small enough to count by hand: 2 layers, dim 64, Q4_0.
func model() *backend.Model {
	c := backend.Config{Arch: "llama", Dim: 64, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 32, FFN: 96, Vocab: 128, Context: 4096}
	tensor := func(rows, cols int) *backend.Tensor { return &backend.Tensor{Type: quant.Q4_0, Rows: rows, Cols: cols} }
	m := &backend.Model{Config: c, Embed: tensor(128, 64), Norm: tensor(1, 64), Output: tensor(128, 64)}
	for range c.Layers {
		m.Layers = append(m.Layers, backend.Layer{
			Q: tensor(64, 64), K: tensor(32, 64), V: tensor(32, 64), O: tensor(64, 64),
			Gate: tensor(96, 64), Up: tensor(96, 64), Down: tensor(64, 96),
		})
	}
	return m
}

var options = Options{Batch: 100, Repeats: 2, Warmup: true, Threads: 2, K: quant.F16, V: quant.Q8_0, CPU: "a processor", Version: "1.2"}

// place lets one device carry a whole model for some tests.
func place(m *backend.Model, d backend.Device, tests []Test, o *Options) {
	context, sequences, pages := Demand(tests)
	o.Devices = []backend.Device{d}
	o.Planner = engine.Fixed(m, engine.Whole(m, d), engine.Options{Context: context, Batch: o.Batch, Sequences: sequences, Pages: pages, K: o.K, V: o.V})
}

func collect(ctx context.Context, d *device, tests []Test, o Options) ([]Record, error) {
	var got []Record
	s := Subject{Model: model(), Filename: "x.gguf", TypeName: "Q4_0", Params: 6_738_415_616, Bytes: 1000}
	place(s.Model, d, tests, &o)
	err := Run(ctx, s, tests, o, func(r Record) error { got = append(got, r); return nil })
	return got, err
}

// The batches a device sees: what is asked, warmed up, repeated, in order. The
// engine begins with chunks of 64 rows and makes them as long as the device is fast.
// Each repeat of a generation begins with one row more, which is not timed.
func TestBatches(t *testing.T) {
	cases := []struct {
		test Test
		want []string
	}{
		{Test{Prompt: 250, Sequences: 1}, slices.Repeat([]string{"100:0", "100:0", "50:1"}, 3)},
		{Test{Prompt: 600, Sequences: 1}, slices.Concat([]string{"100:0", "100:0", "100:0", "100:0", "100:0", "12:1"}, // the warm-up is of 512
			slices.Repeat([]string{"100:0", "100:0", "100:0", "100:0", "100:0", "100:1"}, 2))},
		{Test{Gen: 3, Sequences: 1}, slices.Repeat([]string{"1:1"}, 3+4+4)},
		{Test{Gen: 1, Depth: 130, Sequences: 1}, slices.Concat([]string{"100:0", "28:0"}, slices.Repeat([]string{"3:1", "1:1"}, 3))},
		{Test{Prompt: 20, Depth: 70, Sequences: 1}, []string{"64:0", "26:1", "26:1", "26:1"}},
		{Test{Gen: 2, Depth: 66, Sequences: 3}, slices.Concat([]string{"64:0", "100:0", "28:0"}, slices.Repeat([]string{"3:3"}, 3*5))},
	}
	for _, c := range cases {
		d := &device{}
		got, err := collect(t.Context(), d, []Test{c.test}, options)
		if err != nil {
			t.Errorf("%s: %v", c.test.Name(), err)
			continue
		}
		if !slices.Equal(d.log, c.want) {
			t.Errorf("%s: batches %v, want %v", c.test.Name(), d.log, c.want)
		}
		if len(got) != 1 || len(got[0].SamplesNS) != options.Repeats || !d.closed {
			t.Errorf("%s: %d records, stage closed: %v", c.test.Name(), len(got), d.closed)
		}
	}
}

// Tests of different lengths share one stage, made for the largest.
func TestSharedStage(t *testing.T) {
	d := &device{}
	tests := Tests([]int{100, 0}, []int{5}, []int{0, 200}, []int{1, 2})
	if len(tests) != 8 || tests[1] != (Test{Gen: 5, Sequences: 1}) || tests[6] != (Test{Prompt: 100, Depth: 200, Sequences: 2}) {
		t.Fatalf("tests: %v", tests)
	}
	got, err := collect(t.Context(), d, tests, options)
	if err != nil || len(got) != len(tests) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	// 5 pages for 300 positions, and one to spare
	want := backend.Limits{Pages: 12, Rows: 100, Seqs: 2, Context: 300, Outs: 100, K: quant.F16, V: quant.Q8_0}
	if d.limits != want {
		t.Errorf("limits %+v, want %+v", d.limits, want)
	}
}

// Tests that share what is in the cache take turns; the depth is filled once for them.
func TestTurns(t *testing.T) {
	d := &device{}
	tests := Tests([]int{70}, []int{2}, []int{0, 128}, []int{1})
	got, err := collect(t.Context(), d, tests, options)
	if err != nil {
		t.Fatal(err)
	}
	prompt, gen := []string{"70:1"}, []string{"1:1", "1:1", "1:1"}
	want := slices.Concat(prompt, gen, prompt, gen, prompt, gen,
		[]string{"100:0", "28:0"}, prompt, gen, prompt, gen, prompt, gen)
	if !slices.Equal(d.log, want) {
		t.Errorf("batches %v, want %v", d.log, want)
	}
	for i, r := range got {
		if r.Prompt != tests[i].Prompt || r.Gen != tests[i].Gen || r.Depth != tests[i].Depth {
			t.Errorf("record %d is of pp%d, tg%d at depth %d, want %s", i, r.Prompt, r.Gen, r.Depth, tests[i].Name())
		}
	}
}

// A sample of passes that take no time is of as many as there may be.
func TestShortPasses(t *testing.T) {
	d, o := &device{}, options
	o.Least, o.Warmup = time.Hour, false
	got, err := collect(t.Context(), d, []Test{{Prompt: 10, Sequences: 1}}, o)
	if err != nil || len(got) != 1 || len(got[0].SamplesNS) != o.Repeats || len(d.log) != o.Repeats*1000 {
		t.Errorf("%d records, %d batches, %v", len(got), len(d.log), err)
	}
	d, o.Least = &device{}, 1
	if _, err := collect(t.Context(), d, []Test{{Prompt: 10, Sequences: 1}}, o); err != nil || len(d.log) != o.Repeats {
		t.Errorf("%d batches of passes that take long enough, %v", len(d.log), err)
	}
}

func TestInterruptedKeepsSamples(t *testing.T) {
	// warm-ups: Forward 1 to 4; the turns of generation 5 to 8 and 10 to 13, of the prompt 9; the twelfth is cut
	d := &device{failAt: 12}
	got, err := collect(t.Context(), d, []Test{{Gen: 3, Sequences: 1}, {Prompt: 10, Sequences: 1}}, options)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	if len(got) != 2 {
		t.Fatalf("%d records, want two", len(got))
	}
	for _, r := range got {
		if len(r.SamplesNS) != 1 || r.AvgTS <= 0 || r.Interval != nil {
			t.Errorf("record %+v, want one sample", r)
		}
	}
	if !d.closed {
		t.Error("the stage was not closed")
	}
	// nothing measured: no record
	d = &device{failAt: 1}
	if got, err = collect(t.Context(), d, []Test{{Gen: 3, Sequences: 1}}, options); err == nil || len(got) != 0 {
		t.Errorf("%d records and error %v, want none and an error", len(got), err)
	}
}

func TestBytesAndOperations(t *testing.T) {
	m := model()
	// weights: 128x64 head + 2 layers of (64+32+32+64+96+96)x64 + 64x96, 18 bytes for 32
	weights := uint64(128*64+2*(384*64+64*96)) / 32 * 18
	// a position: 2 layers, one head of 32: f16 64 bytes, q8_0 34
	position := uint64(2 * (64 + 34))
	if got, want := DecodeBytes(m, 9, quant.F16, quant.Q8_0), weights+10*position; got != want {
		t.Errorf("DecodeBytes %d, want %d", got, want)
	}
	m.Config.Window = 4
	if got, want := DecodeBytes(m, 9, quant.F16, quant.Q8_0), weights+4*position; got != want {
		t.Errorf("with a window of 4: %d, want %d", got, want)
	}
	m.Config.Window = 0
	// positions 11 to 13 see 12 to 14
	step := stepBytes(m, whole(m), Test{Gen: 3, Depth: 10, Sequences: 2}, quant.F16, quant.Q8_0)
	if want := float64(weights + 2*13*position); step != want {
		t.Errorf("stepBytes %v, want %v", step, want)
	}
	// 2 operations a weight, the head once; attention over 1+2+3 positions
	ops := promptOps(m, whole(m), Test{Prompt: 3, Sequences: 1})
	if want := (backend.Work{Quantised: 2 * (3*2*(384*64+64*96) + 128*64), Attention: 4 * 6 * 2 * 64}); ops != want {
		t.Errorf("promptOps %v, want %v", ops, want)
	}
	// a step of 2 sequences, the head for each, at positions 11 to 13
	ops = stepOps(m, whole(m), Test{Gen: 3, Depth: 10, Sequences: 2})
	if want := (backend.Work{Quantised: 2 * 2 * (2*(384*64+64*96) + 128*64), Attention: 2 * 4 * 13 * 2 * 64}); ops != want {
		t.Errorf("stepOps %v, want %v", ops, want)
	}
	// the head in F16
	m.Output = &backend.Tensor{Type: quant.F16, Rows: 128, Cols: 64}
	ops = promptOps(m, whole(m), Test{Prompt: 3, Sequences: 1})
	if want := (backend.Work{Quantised: 2 * 3 * 2 * (384*64 + 64*96), Float: 2 * 128 * 64, Attention: 4 * 6 * 2 * 64}); ops != want {
		t.Errorf("promptOps with a float head %v, want %v", ops, want)
	}
	tied := model()
	tied.Output = tied.Embed
	if got := DecodeBytes(tied, 9, quant.F16, quant.Q8_0); got != weights+10*position {
		t.Errorf("tied embedding: %d, want %d", got, weights+10*position)
	}
}

// A mixture reads its router and the experts used, no others.
func TestMixtureBytes(t *testing.T) {
	m := model()
	m.Config.Experts, m.Config.ExpertsUsed = 4, 2
	before := matrixBytes(model(), whole(model()))
	for i := range m.Layers {
		l := &m.Layers[i]
		l.Router = &backend.Tensor{Type: quant.F32, Rows: 4, Cols: 64}
		l.Gate.Rows, l.Up.Rows, l.Down.Rows = 4*96, 4*96, 4*64
	}
	experts := uint64(2 * (96*64*2 + 64*96) / 32 * 18)
	if got, want := matrixBytes(m, whole(m)), before+experts+2*4*64*4; got != want {
		t.Errorf("matrixBytes %d, want %d", got, want)
	}
}

// Two devices share the work: a sequence alone goes from one to the other, several
// and prompts keep both at work.
func TestSharedLimit(t *testing.T) {
	m, o := model(), options
	parts := []part{{"cpu", []backend.Range{{Lo: 0, Hi: 3}}, backend.Rates{Read: 1e9, Matrix: 1e9}}, {"cpu", []backend.Range{{Lo: 3, Hi: 6}}, backend.Rates{Read: 2e9, Matrix: 4e9}}}
	total := func(w backend.Work) float64 { return w.Quantised + w.Float + w.Attention }
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 1e-9*want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	one, two, prompt := Test{Gen: 4, Sequences: 1}, Test{Gen: 4, Sequences: 2}, Test{Prompt: 8, Sequences: 1}
	near("one", limit(m, parts, one, &o), 1/(stepBytes(m, parts[0].runs, one, o.K, o.V)/1e9+stepBytes(m, parts[1].runs, one, o.K, o.V)/2e9))
	parts[0].rates.Matrix, parts[1].rates.Matrix = 1e12, 1e12
	slowest := max(stepBytes(m, parts[0].runs, two, o.K, o.V)/1e9, stepBytes(m, parts[1].runs, two, o.K, o.V)/2e9)
	near("two", limit(m, parts, two, &o), 2/slowest)
	parts[0].rates.Matrix, parts[1].rates.Matrix = 1e9, 4e9
	near("prompt", limit(m, parts, prompt, &o), 8/max(total(promptOps(m, parts[0].runs, prompt))/1e9, total(promptOps(m, parts[1].runs, prompt))/4e9))
	near("bytes of the parts", stepBytes(m, parts[0].runs, two, o.K, o.V)+stepBytes(m, parts[1].runs, two, o.K, o.V), stepBytes(m, whole(m), two, o.K, o.V))
	near("operations of the parts", total(promptOps(m, parts[0].runs, prompt).Plus(promptOps(m, parts[1].runs, prompt))), total(promptOps(m, whole(m), prompt)))
	crowd := Test{Gen: 4, Sequences: 64}
	near("a crowd, which computes", limit(m, parts, crowd, &o), 64/(total(stepOps(m, parts[0].runs, crowd))/1e9))
	parts = parts[:1]
	parts[0].rates.Float = 5e8 // attention's is half as fast
	w := promptOps(m, parts[0].runs, prompt)
	near("prompt with a float rate", limit(m, parts, prompt, &o), 8/(w.Quantised/1e9+w.Attention/5e8))
	for _, l := range m.Layers {
		for _, x := range []*backend.Tensor{l.Q, l.K, l.V, l.O, l.Gate, l.Up, l.Down} {
			x.Type = quant.F16
		}
	}
	w = promptOps(m, parts[0].runs, prompt)
	near("prompt of float weights", limit(m, parts, prompt, &o), 8/((w.Quantised+w.Float+w.Attention)/5e8))
	parts[0].kind = "cuda" // in whose matrix units float weights are multiplied
	near("prompt of float weights, a GPU", limit(m, parts, prompt, &o), 8/((w.Quantised+w.Float)/1e9+w.Attention/5e8))
	parts[0].rates.Float, parts[0].rates.Matrix = 1e9, 0
	near("prompt with no matrix rate", limit(m, parts, prompt, &o)+1, 1)
	parts = append(parts, part{"cpu", []backend.Range{{Lo: 3, Hi: 6}}, backend.Rates{}})
	if got := limit(m, parts, one, &o); got != 0 {
		t.Errorf("a limit of %v, where a rate is not known", got)
	}
}

// The fingerprint is a hash of its parts: another card, driver or program is another.
func TestFingerprint(t *testing.T) {
	o := Options{CPU: "a processor", Version: "1"}
	card := backend.Info{Kind: "cuda", Name: "A", UUID: "GPU-1", Driver: "1", Cores: 8, Total: 1 << 30, Free: 5}
	base := newMachine([]backend.Info{card}, &o)
	if again := newMachine([]backend.Info{card}, &o); again.fingerprint() != base.fingerprint() {
		t.Error("the same machine has two fingerprints")
	}
	seen := map[string]bool{base.fingerprint(): true}
	for i, change := range []func(*Machine){
		func(m *Machine) { m.OS = "plan9" }, func(m *Machine) { m.CPUs++ }, func(m *Machine) { m.CPU = "another" },
		func(m *Machine) { m.Devices[0].Name = "B" }, func(m *Machine) { m.Devices[0].UUID = "GPU-2" }, func(m *Machine) { m.Devices[0].Driver = "2" },
		func(m *Machine) { m.Devices[0].Memory++ }, func(m *Machine) { m.Devices = nil }, func(m *Machine) { m.Program = "12345678" },
	} {
		m := newMachine([]backend.Info{card}, &o)
		if change(&m); seen[m.fingerprint()] {
			t.Errorf("change %d makes no other fingerprint", i)
		}
		seen[m.fingerprint()] = true
	}
	card.Free = 7
	if m := newMachine([]backend.Info{card}, &o); m.fingerprint() != base.fingerprint() {
		t.Error("free memory is part of the fingerprint")
	}
}

func TestRecord(t *testing.T) {
	d := &device{rates: backend.Rates{Read: 1e9, Format: map[quant.Type]float64{quant.Q4_0: 5e8}, Launch: 1e-3}}
	o := options
	o.Describe = func(t Test) (any, float64) { return nil, float64(100*t.Prompt) + 123*float64(t.Sequences-1) }
	got, err := collect(t.Context(), d, []Test{{Gen: 4, Sequences: 2}, {Prompt: 8, Sequences: 1}}, o)
	if err != nil {
		t.Fatal(err)
	}
	gen, prompt := got[0], got[1]
	near := func(what string, got *float64, want float64) {
		if got == nil || math.Abs(*got-want) > 1e-9*want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	step := stepBytes(model(), whole(model()), Test{Gen: 4, Sequences: 2}, quant.F16, quant.Q8_0)
	near("bytes_per_token", gen.BytesPerToken, step/2)
	near("limit_ts", gen.LimitTS, 2e9/step)
	near("predicted_ts", gen.PredictedTS, 123)
	near("limit_share", gen.LimitShare, gen.AvgTS/(2e9/step))
	if prompt.LimitTS != nil || prompt.LimitShare != nil || prompt.BytesPerToken != nil {
		t.Error("a prompt has no bytes per token, and no limit where the matrix rate was not measured")
	}
	if gen.ModelType != "llama 6.7B Q4_0" || gen.Fingerprint != prompt.Fingerprint || len(gen.Fingerprint) != 17 || gen.Fingerprint[9:] == "00000000" {
		t.Errorf("model_type %q, fingerprints %q and %q", gen.ModelType, gen.Fingerprint, prompt.Fingerprint)
	}
	data, err := json.Marshal(gen)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"schema", "fingerprint", "backends", "cpu_info", "gpu_info", "driver", "isa", "model_filename", "model_type",
		"model_size", "model_n_params", "n_batch", "n_threads", "type_k", "type_v", "n_prompt", "n_gen", "n_depth", "sequences", "plan", "test_time",
		"avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns", "samples_ts", "predicted_ts", // the contract's, and these:
		"fingerprint_parts", "device_set", "devices", "interval_ts", "outliers", "first_token_ms", "celsius", "throttled_by",
		"bytes_per_token", "limit_ts", "limit_share",
		"joules_per_token", "peak_bytes", "clocks", "throttled", "simulated", "profile"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no field %q", name)
		}
		delete(fields, name)
	}
	if len(fields) > 0 {
		t.Errorf("fields that the contract does not list: %v", fields)
	}
	for _, name := range []string{"gpu_info", "driver", "plan", "first_token_ms", "celsius", "profile"} {
		var all map[string]any
		if json.Unmarshal(data, &all) == nil && all[name] != nil {
			t.Errorf("%s is %v, and nothing told it", name, all[name])
		}
	}
}

func TestRefusesNonsense(t *testing.T) {
	cases := [][]Test{nil, {{Sequences: 1}}, {{Prompt: 1, Gen: 1, Sequences: 1}}, {{Gen: 1}}, {{Gen: -1, Sequences: 1}},
		{{Prompt: 1, Depth: maxContext, Sequences: 1}}, {{Gen: 1, Depth: maxContext - 1, Sequences: 1}}, {{Prompt: 1, Sequences: maxSequences + 1}}}
	for _, tests := range cases {
		d := &device{}
		if _, err := collect(t.Context(), d, tests, options); err == nil || len(d.log) > 0 {
			t.Errorf("%+v: error %v after %d batches, want an error at once", tests, err, len(d.log))
		}
	}
}
