package main

import (
	"context"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/verify"
)

// planted is the CPU with a mistake in it.
type planted struct {
	backend.Device
	model   func(m *backend.Model)                           // the device's copy
	pages   func(b *backend.Batch)                           // before
	results func(runs backend.Range, in, hidden []float32)   // after a block alone: (rows, dim) each
	trace   func(layer int, op backend.Op, values []float32) // after an op
}

type plantedStage struct {
	backend.Stage
	d    *planted
	runs []backend.Range
}

func (d *planted) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	c := *m
	c.Layers = append([]backend.Layer(nil), m.Layers...)
	if d.model != nil {
		d.model(&c)
	}
	s, err := d.Device.Load(ctx, &c, runs, l, progress)
	return &plantedStage{s, d, runs}, err
}

func (s *plantedStage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	c := *b
	in := append([]float32(nil), b.Hidden...)
	c.Seqs = append([]backend.Seq(nil), b.Seqs...)
	if s.d.pages != nil {
		s.d.pages(&c)
	}
	if b.Trace != nil && s.d.trace != nil {
		c.Trace = func(layer int, op backend.Op, x []float32) {
			x = append([]float32(nil), x...)
			s.d.trace(layer, op, x)
			b.Trace(layer, op, x)
		}
	}
	err := s.Stage.Forward(ctx, run, &c)
	if err == nil && s.d.results != nil {
		s.d.results(s.runs[run], in, b.Hidden)
	}
	return err
}

const (
	plantShape  = "synthetic:dim=256,layers=2,heads=4,kv=2,ffn=512,vocab=331"
	expertShape = "synthetic:dim=256,layers=2,heads=4,kv=2,ffn=256,vocab=331,experts=8"
)

func verifyOn(t *testing.T, spec string, dev backend.Device, k, v quant.Type) *verify.Report {
	t.Helper()
	f, err := model.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify.Run(t.Context(), f.Model, []verify.Place{{Device: dev, Runs: []backend.Range{{Lo: 0, Hi: f.Model.Config.Blocks()}}}},
		verify.Options{Seed: 3, Context: 2048, Batch: 512, K: k, V: v})
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return r
}

func oneThread(t *testing.T) backend.Device {
	t.Helper()
	found, err := device.Find("cpu", device.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	return found[0]
}

// expert swaps experts 1 and 2 of a tensor of eight.
func expert(t *backend.Tensor) *backend.Tensor {
	c := *t
	c.Source = swappedRows{t, t.Rows / 8}
	return &c
}

type swappedRows struct {
	t    *backend.Tensor
	rows int
}

func (s swappedRows) Rows(dst []byte, lo, hi int) error {
	size := s.t.Type.RowBytes(s.t.Cols)
	for i := lo; i < hi; i++ {
		from := i
		switch i / s.rows {
		case 1:
			from += s.rows
		case 2:
			from -= s.rows
		}
		if err := s.t.Source.Rows(dst[(i-lo)*size:(i-lo+1)*size], from, from+1); err != nil {
			return err
		}
	}
	return nil
}
func (s swappedRows) Mapped() []byte { return nil }
func (s swappedRows) Drop(_, _ int)  {}

// Each mistake is found in each format, and named; without it the device is right.
func TestVerifyPlanted(t *testing.T) {
	flipped := func(b backend.Range, in, hidden []float32) { // one output of layer 1's attention, in every row
		for at := 77; b.Lo == 3 && b.Hi == 4 && at < len(hidden); at += 256 {
			hidden[at] = 2*in[at] - hidden[at]
		}
	}
	stale := func(b *backend.Batch) { // two sequences decode: the first reads and writes the second's page
		if len(b.Seqs) == 2 && len(b.Tokens) == 2 {
			first := append([]int32(nil), b.Seqs[0].Pages...)
			first[0] = b.Seqs[1].Pages[0]
			b.Seqs[0].Pages = first
		}
	}
	for name, c := range map[string]struct {
		spec  string
		plant planted
		want  []string // of which one is said
	}{
		"flipped sign": {plantShape, planted{results: flipped}, []string{"layer 1 attention on cpu is wrong from attn_out on"}},
		"rope base": {plantShape, planted{model: func(m *backend.Model) { m.Config.Rope.Base *= 1.01 }},
			[]string{"layer 0 attention on cpu is wrong from q on", "layer 0 attention on cpu is wrong from k on"}},
		"stale page": {plantShape, planted{pages: stale}, []string{"layer 0 attention on cpu is wrong from attention on"}},
		"expert": {expertShape, planted{model: func(m *backend.Model) {
			l := m.Layers[1]
			l.Gate, l.Up, l.Down = expert(l.Gate), expert(l.Up), expert(l.Down)
			m.Layers[1] = l
		}}, []string{"layer 1 feed-forward on cpu is wrong from ffn_out on"}},
	} {
		for _, typ := range []string{"F32", "F16", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "IQ4_XS", "MXFP4"} {
			dev := c.plant
			dev.Device = oneThread(t)
			r := verifyOn(t, c.spec+":"+typ, &dev, quant.F16, quant.F16)
			said := false
			for _, want := range c.want {
				said = said || strings.HasPrefix(r.Wrong(), want)
			}
			if r.OK || !said {
				t.Errorf("%s in %s: %q, want %q", name, typ, r.Wrong(), c.want)
			}
		}
	}
	if r := verifyOn(t, expertShape+":Q4_0", &planted{Device: oneThread(t)}, quant.F16, quant.F16); !r.OK {
		t.Errorf("without a mistake: %q", r.Wrong())
	}
}

// One wrong value of a traced op is seen, whichever op it is.
func TestVerifyEveryOp(t *testing.T) {
	for _, op := range []backend.Op{backend.OpEmbed, backend.OpQ, backend.OpK, backend.OpV, backend.OpAttention, backend.OpAttnOut, backend.OpAct, backend.OpFFNOut, backend.OpNorm, backend.OpLogits} {
		dev := planted{Device: oneThread(t), trace: func(_ int, o backend.Op, x []float32) {
			if o == op {
				x[9] += 1
			}
		}}
		if r := verifyOn(t, plantShape+":Q4_0", &dev, quant.F16, quant.F16); r.OK || r.First.Op.Op != op {
			t.Errorf("%v: %q", op, r.Wrong())
		}
	}
}

// The CPU is right in every format, dense and as a mixture, with every cache.
func TestVerifyFormats(t *testing.T) {
	caches := []quant.Type{quant.F32, quant.F16, quant.Q8_0}
	for i, typ := range quant.Types() {
		for j, spec := range []string{"synthetic:dim=256,layers=2,heads=4,kv=2,ffn=512,vocab=331", expertShape} {
			if r := verifyOn(t, spec+":"+typ.String(), oneThread(t), caches[(i+j)%3], caches[(i/3+j)%3]); !r.OK {
				t.Errorf("%s in %v: %q, %+v", spec, typ, r.Wrong(), r.Logits)
			}
		}
	}
}
