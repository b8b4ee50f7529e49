package backendtest

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// fault is something that a device may get wrong. What is nil it gets right.
type fault struct {
	name      string
	shape, by string // where it must be noticed, perhaps among others
	typ       quant.Type
	says      string // what one of the messages must contain
	model     func(m *backend.Model)
	limits    func(l *backend.Limits)
	need      func(n *backend.Need)
	round     func(row []float64)
	load      func(d *device, load func(m *backend.Model) (backend.Stage, error), m *backend.Model) (backend.Stage, error)
	progress  func(done, total uint64) (uint64, uint64)
	forward   func(s *stage, ctx context.Context, run int, b *backend.Batch) error
	other     func(s *stage, ctx context.Context, run int, b *backend.Batch) error // of the other instance
	close     func(s *stage) error
}

// device is the reference with a fault.
type device struct {
	*ref.Device
	*fault
}

type stage struct {
	backend.Stage
	f       *fault
	forward func(s *stage, ctx context.Context, run int, b *backend.Batch) error
	runs    []backend.Range
	blocks  int
	seen    map[int32]int32 // of "goes on after a rewind"
}

func (f *fault) device(memory uint64) *device {
	return &device{&ref.Device{Memory: memory, Round: f.round}, f}
}

func (d *device) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	n, err := d.Device.Need(m, runs, l)
	if d.need != nil && err == nil {
		d.need(&n)
	}
	return n, err
}

func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	if d.limits != nil {
		d.limits(&l)
	}
	if d.fault.progress != nil && progress != nil {
		report := progress
		progress = func(done, total uint64) { report(d.fault.progress(done, total)) }
	}
	load := func(m *backend.Model) (backend.Stage, error) { return d.Device.Load(ctx, m, runs, l, progress) }
	c := *m
	c.Layers = append([]backend.Layer(nil), m.Layers...)
	if d.model != nil {
		d.model(&c)
	}
	if d.fault.load != nil {
		return d.fault.load(d, load, &c)
	}
	s, err := load(&c)
	if err != nil {
		return nil, err
	}
	return &stage{Stage: s, f: d.fault, forward: d.forward, runs: runs, blocks: m.Config.Blocks(), seen: map[int32]int32{}}, nil
}

func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	if s.forward == nil {
		return s.Stage.Forward(ctx, run, b)
	}
	return s.forward(s, ctx, run, b)
}

func (s *stage) Used() backend.Need { return s.Stage.(interface{ Used() backend.Need }).Used() }

func (s *stage) Close() error {
	if s.f.close != nil {
		return s.f.close(s)
	}
	return s.Stage.Close()
}

// head reports whether a run ends with the head.
func (s *stage) head(run int) bool { return s.runs[run].Hi == s.blocks }

// options are those under which a fault is looked for.
func (f *fault) options() Options {
	other := f.device(0)
	if f.other != nil {
		changed := *f
		changed.forward = f.other
		other = changed.device(0)
	}
	return Options{Types: []quant.Type{f.typ}, onlyShape: f.shape, onlyCase: f.by, Round: ref.Int8Blocks, Same: []backend.Device{other},
		Small: func(memory uint64) backend.Device { return f.device(memory) }}
}

// Every fault is noticed, and by the case that is there for it.
func TestFaultsAreNoticed(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			none := &fault{shape: f.shape, by: f.by, typ: f.typ}
			if f.typ.BlockElems() > 1 {
				none.round = ref.Int8Blocks
			}
			var failures []string
			if run(&recorder{failures: &failures}, none.device(0), none.options()); len(failures) > 0 {
				t.Fatalf("without a fault: %s", strings.Join(failures, "\n"))
			}
			tab := run(&recorder{failures: &failures}, f.device(0), f.options())
			said := strings.Join(failures, "\n")
			if len(failures) == 0 || !strings.Contains(said, f.says) {
				t.Fatalf("case %q on %s does not say %q:\n%s", f.by, f.shape, f.says, said)
			}
			if !strings.Contains(tab.String(), " 0 of 1") {
				t.Errorf("the table shows no failure:\n%s", tab)
			}
			t.Log(failures[0])
		})
	}
}

// after makes a fault that changes a batch's results.
func after(change func(s *stage, b *backend.Batch)) func(*stage, context.Context, int, *backend.Batch) error {
	return func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		err := s.Stage.Forward(ctx, run, b)
		if err == nil && s.head(run) {
			change(s, b)
		}
		return err
	}
}

// before makes a fault that changes what a batch asks.
func before(change func(s *stage, b *backend.Batch)) func(*stage, context.Context, int, *backend.Batch) error {
	return func(s *stage, ctx context.Context, run int, b *backend.Batch) error {
		c := *b
		c.Pos = append([]int32(nil), b.Pos...)
		c.Seqs = nil
		for _, q := range b.Seqs {
			c.Seqs = append(c.Seqs, backend.Seq{Rows: q.Rows, Pages: append([]int32(nil), q.Pages...)})
		}
		change(s, &c)
		return s.Stage.Forward(ctx, run, &c)
	}
}

// nudge moves a value by the least there is.
func nudge(x []float32) {
	if len(x) > 0 {
		x[len(x)-1] = math.Nextafter32(x[len(x)-1], 2e9)
	}
}

var errOther = errors.New("something else")
