package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// device is the reference with something wrong with it; what is nil is right.
type device struct {
	*ref.Device
	load    func() error
	forward func(b *backend.Batch) error
	after   func(b *backend.Batch)
	op      func(layer int, op backend.Op, x []float32)
}

type stage struct {
	backend.Stage
	d *device
}

func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	if d.load != nil {
		if err := d.load(); err != nil {
			return nil, err
		}
	}
	s, err := d.Device.Load(ctx, m, runs, l, progress)
	return &stage{s, d}, err
}

func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	if s.d.forward != nil {
		if err := s.d.forward(b); err != nil {
			return err
		}
	}
	c := *b
	if b.Trace != nil && s.d.op != nil {
		c.Trace = func(layer int, op backend.Op, x []float32) {
			x = append([]float32(nil), x...)
			s.d.op(layer, op, x)
			b.Trace(layer, op, x)
		}
	}
	err := s.Stage.Forward(ctx, run, &c)
	if err == nil && s.d.after != nil {
		s.d.after(b)
	}
	return err
}

func examine(t *testing.T, kind string, dev *device) []Check {
	t.Helper()
	dev.Device = ref.New()
	return shared(t).Examine(t.Context(), kind, kind, dev)
}

var made = sync.OnceValues(func() (*Doctor, error) { return New(context.Background()) })

// shared is a doctor for every test, since its reference takes a while.
func shared(t *testing.T) *Doctor {
	t.Helper()
	d, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// failures are the checks that failed.
func failures(checks []Check) (failed []Check) {
	for _, c := range checks {
		if c.Status == Fail {
			failed = append(failed, c)
		}
	}
	return failed
}

// The reference agrees with itself, in every check that there is.
func TestRight(t *testing.T) {
	for _, kind := range []string{"cpu", "cuda"} {
		checks := examine(t, kind, &device{})
		var names []string
		for _, c := range checks {
			names = append(names, c.Name)
			if c.Status != Pass || c.Detail == "" || c.Hint != "" {
				t.Errorf("%+v", c)
			}
		}
		if got, want := strings.Join(names, ", "), "find, memory, prompt F16, decode F16, greedy F16, prompt Q8_0, decode Q8_0, greedy Q8_0, prompt Q4_0, decode Q4_0, greedy Q4_0, "+
			"prompt Q4_K, decode Q4_K, greedy Q4_K, prompt Q6_K, decode Q6_K, greedy Q6_K"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// A wrong result is told with where it begins, whatever it is.
func TestWrong(t *testing.T) {
	half := func(rows func(int) bool) func(*backend.Batch) {
		return func(b *backend.Batch) {
			if b.Logits != nil && rows(len(b.Tokens)) {
				for i := range b.Logits[:len(b.Logits)/2] {
					b.Logits[i] = 0
				}
			}
		}
	}
	worse := func(wanted backend.Op, at int) func(int, backend.Op, []float32) {
		return func(layer int, op backend.Op, x []float32) {
			if op == wanted && layer == at {
				x[0] += 100
			}
		}
	}
	prompt, decode := func(n int) bool { return n > 8 }, func(n int) bool { return n <= 8 }
	for name, c := range map[string]struct {
		dev    *device
		checks int      // that fail
		want   []string // in the first
	}{
		"prompt":    {&device{after: half(prompt), op: worse(backend.OpAct, 1)}, 5, []string{"prompt F16", "wrong from layer 1 act on", "at most 4e-05"}},
		"decode":    {&device{after: half(decode), op: worse(backend.OpK, 0)}, 5, []string{"decode F16", "wrong from layer 0 k on"}},
		"embedding": {&device{after: half(prompt), op: worse(backend.OpEmbed, -1)}, 5, []string{"wrong from embed on"}},
		"fused":     {&device{after: half(prompt)}, 5, []string{"wrong from logits (op by op it is right: it is a fused kernel)"}},
		"memory": {&device{after: func(b *backend.Batch) {
			if b.Logits == nil && b.Hidden != nil && b.Tokens[0] == 1024 {
				b.Hidden[3]++
			}
		}}, 1, []string{"memory", "1 of 131072 values", "byte 1048588 of the table"}},
		"top": {&device{after: func(b *backend.Batch) {
			if b.Top > 0 {
				b.TopIDs[2]++
			}
		}}, 5, []string{"greedy F16", "largest logit of row 2"}},
	} {
		failed := failures(examine(t, "cuda", c.dev))
		if len(failed) != c.checks {
			t.Errorf("%s: %d checks fail, want %d: %+v", name, len(failed), c.checks, failed)
			continue
		}
		said := failed[0].Name + ": " + failed[0].Detail
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q does not say %q", name, said, want)
			}
		}
		if !strings.Contains(failed[0].Hint, "faulty card") {
			t.Errorf("%s: hint %q", name, failed[0].Hint)
		}
	}
}

// A device is held to its kind's tolerance: activations in int8 are right on a CPU
// and wrong on a GPU.
func TestTolerance(t *testing.T) {
	rounds := &device{Device: &ref.Device{Round: ref.Int8Blocks}}
	failed := failures(shared(t).Examine(t.Context(), "metal", "metal", rounds))
	if len(failed) != 5 || failed[0].Name != "prompt F16" {
		t.Errorf("as a GPU: %+v", failed)
	}
	for _, c := range failures(shared(t).Examine(t.Context(), "cpu", "cpu", rounds)) {
		if !strings.Contains(c.Name, "F16") { // floats are not rounded on a CPU
			t.Errorf("as a CPU: %+v", c)
		}
	}
	for _, s := range []subject{{quant.Q4_0, quant.Q8_0}, {quant.F16, quant.F16}} {
		on := trial{subject: s}
		if on.limit("cuda") != ref.ToleranceHalf(s.typ, s.cache, s.cache).NMSE || on.limit("cpu") != ref.ToleranceInt8(s.typ, s.cache, s.cache).NMSE {
			t.Errorf("%v: limits %g and %g", s, on.limit("cuda"), on.limit("cpu"))
		}
	}
}

// What ends a check is told with the device's remedy, or else its kind's.
func TestErrors(t *testing.T) {
	calls := 0
	lost := fmt.Errorf("forward: %w", &backend.Unusable{Cause: "cuda: words", Remedy: "pull the plug", Err: backend.ErrLost})
	for name, c := range map[string]struct {
		dev        *device
		check      string
		want, hint string
	}{
		"load":   {&device{load: func() error { return errors.New("no kernel") }}, "memory", "no kernel", "nvidia-smi"},
		"memory": {&device{load: func() error { return &backend.MemoryError{Device: "cuda:0", Need: 2 << 20, Free: 1 << 20} }}, "memory", "needs 2.0 MiB and 1.0 MiB are free", "nvidia-smi lists it"},
		"lost":   {&device{forward: func(b *backend.Batch) error { return lost }}, "memory", "words", "pull the plug"},
		"later": {&device{load: func() error {
			if calls++; calls > 2 {
				return errors.New("no kernel")
			}
			return nil
		}}, "prompt Q8_0", "load Q8_0: no kernel", "nvidia-smi"},
		"panic": {&device{forward: func(*backend.Batch) error { panic("BUG: a mistake") }}, "find", "internal error: BUG: a mistake", "report"},
	} {
		checks := examine(t, "cuda", c.dev)
		last := checks[len(checks)-1]
		if len(failures(checks)) != 1 || last.Status != Fail || last.Name != c.check || !strings.Contains(last.Detail, c.want) || !strings.Contains(last.Hint, c.hint) {
			t.Errorf("%s: %+v; want %s to fail with %q and %q", name, last, c.check, c.want, c.hint)
		}
	}
}

// A device that does not come back fails, and does not keep the others from being
// checked.
func TestHangs(t *testing.T) {
	d := *shared(t)
	d.patience = 20 * time.Millisecond
	left := make(chan struct{})
	defer close(left)
	dev := &device{Device: ref.New(), load: func() error { <-left; return errors.New("too late") }}
	checks := d.Examine(t.Context(), "cuda:0", "cuda", dev)
	if len(checks) != 1 || checks[0].Status != Fail || !strings.Contains(checks[0].Detail, "no answer within 20ms") || checks[0].Hint == "" {
		t.Errorf("%+v", checks)
	}
}
