package verify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/ref"
)

// device is the reference as a device of some kind, with something wrong with it;
// what is nil is right.
type device struct {
	*ref.Device
	kind  string
	model func(m *backend.Model)
	after func(runs []backend.Range, b *backend.Batch) error
	op    func(op backend.Op, x []float32)
}

type stage struct {
	backend.Stage
	d    *device
	runs []backend.Range
}

// newDevice rounds as devices of its kind do.
func newDevice(kind string) *device {
	d := &device{Device: ref.New(), kind: kind}
	if kind == "cpu" {
		d.Round = ref.Int8Blocks
	}
	return d
}

func (d *device) Info() backend.Info {
	i := d.Device.Info()
	i.ID, i.Kind = d.kind, d.kind
	return i
}

func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	if d.model != nil {
		c := *m
		c.Layers = append([]backend.Layer(nil), m.Layers...)
		d.model(&c)
		m = &c
	}
	s, err := d.Device.Load(ctx, m, runs, l, progress)
	return &stage{s, d, runs}, err
}

func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	c := *b
	if b.Trace != nil && s.d.op != nil {
		c.Trace = func(layer int, op backend.Op, x []float32) {
			s.d.op(op, x)
			b.Trace(layer, op, x)
		}
	}
	err := s.Stage.Forward(ctx, run, &c)
	if err == nil && s.d.after != nil {
		err = s.d.after(s.runs[run:run+1], b)
	}
	return err
}

const shape = "synthetic:dim=256,layers=2,heads=4,kv=2,ffn=256,vocab=331"

func open(t *testing.T, spec string) *backend.Model {
	t.Helper()
	f, err := model.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	return f.Model
}

func options() Options {
	return Options{Seed: 1, Context: 512, Batch: 512, K: quant.F16, V: quant.F16}
}

// on runs a verification of a model that lies on one device.
func on(t *testing.T, m *backend.Model, dev backend.Device, o Options) *Report {
	t.Helper()
	r, err := Run(t.Context(), m, []Place{{dev, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A device that rounds as its kind does is right, on one device or cut over two.
func TestRight(t *testing.T) {
	for _, kind := range []string{"cpu", "cuda"} {
		for _, spec := range []string{shape + ":Q4_0", shape + ":Q6_K", shape + ",experts=8:Q4_0"} {
			m, dev := open(t, spec), newDevice(kind)
			blocks := m.Config.Blocks()
			r, err := Run(t.Context(), m, []Place{{dev, []backend.Range{{Lo: 3, Hi: blocks}, {Lo: 0, Hi: 2}}}, {newDevice("cpu"), []backend.Range{{Lo: 2, Hi: 3}}}}, options())
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK || r.Wrong() != "" || len(r.Blocks) != blocks || r.Blocks[2].Device != "cpu" || r.Logits.Together != 0 || r.Logits.Rows < 25 || r.Worst == nil {
				t.Errorf("%s on %s: %q, %+v", spec, kind, r.Wrong(), r.Logits)
			}
			if kind == "cpu" && r.Blocks[1].Arithmetic != "int8 in blocks of 32" {
				t.Errorf("%s", r.Blocks[1].Arithmetic)
			}
		}
	}
}

// What rounding costs is not a mistake of the kind that rounds, and is one of others.
func TestRounding(t *testing.T) {
	m, dev := open(t, shape+":Q4_0"), newDevice("cuda")
	dev.Round = ref.Int8Blocks
	r := on(t, m, dev, options())
	if r.OK || r.First.Block.Name != "layer 0 attention" {
		t.Errorf("activations in int8 on a GPU: %q", r.Wrong())
	}
	o := options()
	o.Against = newDevice("cpu")
	if r := on(t, m, newDevice("cuda"), o); !r.OK || r.Rows < 200 {
		t.Errorf("against a CPU: %q, %d rows", r.Wrong(), r.Rows)
	}
}

// What is wrong in one place is named, wherever that is.
func TestNamed(t *testing.T) {
	flip := func(x []float32, at int) { x[at] = -x[at] }
	for name, c := range map[string]struct {
		plant func(*device)
		want  string
	}{
		"op": {func(d *device) {
			d.op = func(op backend.Op, x []float32) {
				if op == backend.OpAct {
					x[5] = 10
				}
			}
		}, "layer 0 feed-forward on cuda is wrong from act on"},
		"fused": {func(d *device) {
			d.after = func(runs []backend.Range, b *backend.Batch) error {
				if b.Trace == nil && runs[0].Lo == 3 {
					flip(b.Hidden, 7)
				}
				return nil
			}
		}, "layer 1 attention on cuda is wrong from attn_out on (op by op it is right: a fused kernel)"},
		"no number": {func(d *device) {
			d.after = func(runs []backend.Range, b *backend.Batch) error {
				if runs[0].Lo == 4 {
					b.Hidden[30] = float32(math.NaN())
				}
				return nil
			}
		}, "layer 1 feed-forward on cuda is wrong from ffn_out on (op by op it is right: a fused kernel): NMSE NaN"},
		"embedding": {func(d *device) {
			d.model = func(m *backend.Model) { m.Embed = m.Output }
		}, "embedding on cuda is wrong from embed on"},
		"head": {func(d *device) {
			d.model = func(m *backend.Model) { m.Output = m.Embed }
		}, "head on cuda is wrong from logits on"},
		"layer": {func(d *device) {
			d.model = func(m *backend.Model) { m.Layers[1].V = m.Layers[1].K }
		}, "layer 1 attention on cuda is wrong from v on"},
		"together": {func(d *device) {
			d.after = func(runs []backend.Range, b *backend.Batch) error {
				if b.Logits != nil && runs[0].Lo == 0 {
					b.Logits[3]++
				}
				return nil
			}
		}, "every block alone is right, and together they are not"},
		"greedy": {func(d *device) {
			d.after = func(_ []backend.Range, b *backend.Batch) error {
				if b.Top > 0 && len(b.TopIDs) == 1 {
					b.TopIDs[0]++
				}
				return nil
			}
		}, "decode: the largest logit is token"},
	} {
		dev := newDevice("cuda")
		c.plant(dev)
		if r := on(t, open(t, shape+":Q8_0"), dev, options()); r.OK || !strings.HasPrefix(r.Wrong(), c.want) {
			t.Errorf("%s: %q, want %q", name, r.Wrong(), c.want)
		}
	}
}

// Of many layers some are verified, on the devices that carry them, and what is wrong
// in one of these has its number in the whole model.
func TestSome(t *testing.T) {
	m := open(t, "synthetic:dim=256,layers=9,heads=4,kv=2,ffn=256,vocab=331:Q8_0")
	first, second := newDevice("cpu"), newDevice("cuda")
	places := []Place{{first, []backend.Range{{Lo: 0, Hi: 8}}}, {second, []backend.Range{{Lo: 8, Hi: 20}}}}
	o := options()
	o.Budget = 1
	r, err := Run(t.Context(), m, places, o)
	if err != nil || !r.OK || !slices.Equal(r.Layers, []int{0, 3, 4}) || r.Of != 9 { // layer 3 is cut between the two
		t.Fatalf("%v, %+v", err, r)
	}
	for i, want := range []string{"0 embedding cpu", "1 layer 0 attention cpu", "2 layer 0 feed-forward cpu", "7 layer 3 attention cpu", "8 layer 3 feed-forward cuda", "9 layer 4 attention cuda", "10 layer 4 feed-forward cuda", "19 head cuda"} {
		if k := r.Blocks[i]; fmt.Sprint(k.Block, " ", k.Name, " ", k.Device) != want {
			t.Errorf("%d %s %s, want %s", k.Block, k.Name, k.Device, want)
		}
	}
	second.model = func(c *backend.Model) {
		for i := range c.Layers {
			if c.Layers[i].K == m.Layers[8].K {
				c.Layers[i].K = m.Layers[7].K
			}
		}
	}
	if r, err = Run(t.Context(), m, places, o); err != nil || !r.OK {
		t.Errorf("%v, %q: layer 8 is not looked at", err, r.Wrong())
	}
	o.Full = true
	if r, err = Run(t.Context(), m, places, o); err != nil || r.OK || !strings.HasPrefix(r.Wrong(), "layer 8 attention on cuda is wrong from k on") || len(r.Blocks) != 20 {
		t.Errorf("%v, %q", err, r.Wrong())
	}
}

// A device that gives up, and a reference without the memory, are errors.
func TestErrors(t *testing.T) {
	m, dev := open(t, shape+":Q8_0"), newDevice("cuda")
	dev.after = func(runs []backend.Range, b *backend.Batch) error {
		if runs[0].Lo == 2 {
			return backend.ErrLost
		}
		return nil
	}
	place := []Place{{dev, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}}}
	if _, err := Run(t.Context(), m, place, options()); !errors.Is(err, backend.ErrLost) || !strings.Contains(err.Error(), "layer 0 feed-forward on cuda") {
		t.Errorf("%v", err)
	}
	o := options()
	o.Memory = 1 << 20
	var memory *backend.MemoryError
	if _, err := Run(t.Context(), m, place, o); !errors.As(err, &memory) || memory.Device != "ref" {
		t.Errorf("%v", err)
	}
	for _, runs := range [][]backend.Range{{{Lo: 0, Hi: 3}}, {{Lo: 0, Hi: 4}, {Lo: 3, Hi: 6}}} {
		if _, err := Run(t.Context(), m, []Place{{dev, runs}}, options()); err == nil || !strings.Contains(err.Error(), "placement") {
			t.Errorf("%v: %v", runs, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, m, place, options()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Every expert has a row, also where tokens choose few.
func TestEveryExpert(t *testing.T) {
	m := open(t, shape+",experts=64:Q4_0")
	for e := range 64 {
		dev := newDevice("cuda")
		dev.model = func(m *backend.Model) {
			l := m.Layers[0]
			l.Down = swapped(l.Down, 64, e, (e+1)%64)
			m.Layers[0] = l
		}
		if e%16 != 0 {
			continue
		}
		if r := on(t, m, dev, options()); r.OK || r.First.Block.Name != "layer 0 feed-forward" {
			t.Errorf("experts %d and %d swapped: %q", e, e+1, r.Wrong())
		}
	}
	r := on(t, m, newDevice("cuda"), options())
	if !r.OK || !strings.Contains(strings.Join(r.Notes, "; "), "experts that no token chose were given a row each") || strings.Contains(strings.Join(r.Notes, "; "), "not verified") {
		t.Errorf("%q, notes %q", r.Wrong(), r.Notes)
	}
}

// swapped is a tensor of n experts of which two have changed places.
func swapped(t *backend.Tensor, n, a, b int) *backend.Tensor {
	c := *t
	c.Source = &swap{t, t.Rows / n, a, b}
	return &c
}

type swap struct {
	t          *backend.Tensor
	rows, a, b int
}

func (s *swap) Rows(dst []byte, lo, hi int) error {
	size := s.t.Type.RowBytes(s.t.Cols)
	for i := lo; i < hi; i++ {
		from := i
		if i/s.rows == s.a {
			from = i + (s.b-s.a)*s.rows
		} else if i/s.rows == s.b {
			from = i + (s.a-s.b)*s.rows
		}
		if err := s.t.Source.Rows(dst[(i-lo)*size:(i-lo+1)*size], from, from+1); err != nil {
			return err
		}
	}
	return nil
}
func (s *swap) Mapped() []byte  { return nil }
func (s *swap) Drop(lo, hi int) {}
