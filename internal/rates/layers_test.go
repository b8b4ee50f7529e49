package rates

import (
	"context"
	"errors"
	"slices"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// fakeDevice loads layers and takes no time over them.
type fakeDevice struct {
	t      *testing.T
	free   uint64
	fail   error // of every pass
	open   int
	shapes []backend.Config
	passes map[[2]int]int // by run and rows
	alike  bool           // a pass had two rows that begin in the same way
}

func (d *fakeDevice) Info() backend.Info {
	return backend.Info{ID: "fake", Total: 1 << 40, Free: d.free}
}
func (d *fakeDevice) Measure(context.Context) (r backend.Rates, err error) { return r, nil }
func (d *fakeDevice) Sensors() (s backend.Sensors)                         { return s }
func (d *fakeDevice) Need(*backend.Model, []backend.Range, backend.Limits) (n backend.Need, err error) {
	return n, nil
}

type fakeStage struct {
	*fakeDevice
	m    *backend.Model
	runs []backend.Range
	l    backend.Limits
}

func (d *fakeDevice) Load(_ context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, _ func(done, total uint64)) (backend.Stage, error) {
	for _, t := range m.Tensors(backend.Range{Lo: 1, Hi: m.Config.Blocks() - 1}) {
		b := make([]byte, 3*t.Type.RowBytes(t.Cols))
		if lo, hi := max(0, t.Rows-3), t.Rows; t.Read(b[:(hi-lo)*t.Type.RowBytes(t.Cols)], lo, hi) != nil {
			d.t.Errorf("%s (%d, %d) cannot be read", t.Name, t.Rows, t.Cols)
		}
	}
	d.open++
	d.shapes = append(d.shapes, m.Config)
	return &fakeStage{d, m, runs, l}, nil
}

func (s *fakeStage) Forward(_ context.Context, run int, b *backend.Batch) error {
	rows := len(b.Tokens)
	if rows > s.l.Rows || len(b.Pos) != rows || len(b.Hidden) != rows*s.m.Config.Dim || len(b.Seqs) != 1 || b.Seqs[0].Rows != rows || len(b.Seqs[0].Pages)*backend.PageRows < rows {
		s.t.Errorf("a batch of %d rows, %d values, %+v", rows, len(b.Hidden), b.Seqs)
	}
	for _, x := range b.Hidden {
		if x*x > 9 {
			s.t.Fatalf("a hidden value of %v", x)
		}
	}
	seen := map[[16]float32]bool{}
	for i := range rows {
		row := [16]float32(b.Hidden[i*s.m.Config.Dim:])
		s.alike = s.alike || seen[row]
		seen[row] = true
	}
	s.passes[[2]int{run, rows}]++
	return s.fail
}

func (s *fakeStage) Close() error {
	s.open--
	return nil
}

func fake(t *testing.T, free uint64) *fakeDevice {
	return &fakeDevice{t: t, free: free, passes: map[[2]int]int{}}
}

// Every size is timed with one row and with a prompt, in two runs of unequal length.
func TestLayers(t *testing.T) {
	d := fake(t, 1<<36)
	times, err := Layers(context.Background(), d, quant.Q4_K)
	if err != nil || len(times) != len(sizes) || d.open != 0 {
		t.Fatalf("%v, %v; %d stages left", times, err, d.open)
	}
	for i, l := range times {
		if l.Weights != sizes[i].weights() || l.Decode < 0 || l.Prompt < 0 || i > 0 && l.Weights <= times[i-1].Weights {
			t.Errorf("got %+v", times)
		}
	}
	for _, key := range [][2]int{{0, 1}, {1, 1}, {0, promptRows}, {1, promptRows}, {0, fewRows}} {
		if d.passes[key] < 2*len(sizes) {
			t.Errorf("run %d with %d rows passed %d times", key[0], key[1], d.passes[key])
		}
	}
	if c := d.shapes[0]; c.Layers < 3 || c.Dim != sizes[0].dim {
		t.Errorf("got %+v", c)
	}
}

// Sizes that do not fit are left out; an error of a pass is one of Layers, and the stage
// is closed.
func TestLayersFail(t *testing.T) {
	d := fake(t, 1<<29)
	if times, err := Layers(context.Background(), d, quant.F32); err != nil || len(times) != 0 || d.open != 0 {
		t.Errorf("with 512 MiB: %v, %v", times, err)
	}
	d = fake(t, 7<<29)
	if times, err := Layers(context.Background(), d, quant.Q8_0); err != nil || len(times) != 2 || d.open != 0 {
		t.Errorf("with 3.5 GiB: %v, %v", times, err)
	}
	d = fake(t, 1<<36)
	d.fail = errors.New("broken")
	if _, err := Layers(context.Background(), d, quant.Q8_0); !errors.Is(err, d.fail) || d.open != 0 {
		t.Errorf("got %v, %d stages left", err, d.open)
	}
}

// Layers of a model's experts are timed in its own shape, with rows that do not all
// want the same ones.
func TestMixture(t *testing.T) {
	d := fake(t, 1<<36)
	c := &backend.Config{Dim: 512, Heads: 8, KVHeads: 2, HeadDim: 32, FFN: 768, Experts: 6, ExpertsUsed: 2}
	got, err := Mixture(context.Background(), d, quant.Q4_0, c)
	want := backend.Mixture{Format: quant.Q4_0, Dim: 512, FFN: 768, Experts: 6, Used: 2}
	if err != nil || got.Mixture != want || got.Weights != 2*512*256+2*512*64+2*3*512*768 || d.open != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if s := d.shapes[0]; s.Dim != c.Dim || s.Heads != c.Heads || s.KVHeads != c.KVHeads || s.HeadDim != c.HeadDim || s.FFN != c.FFN || s.Experts != c.Experts || s.ExpertsUsed != c.ExpertsUsed {
		t.Errorf("timed %+v", s)
	}
	for _, key := range [][2]int{{0, 1}, {1, 1}, {0, promptRows}, {1, promptRows}} {
		if d.passes[key] < 2 {
			t.Errorf("run %d with %d rows passed %d times", key[0], key[1], d.passes[key])
		}
	}
	if d.alike {
		t.Error("rows of a prompt are alike")
	}
	d = fake(t, 1<<20)
	if _, err := Mixture(context.Background(), d, quant.Q4_0, c); !errors.Is(err, backend.ErrMemory) {
		t.Errorf("with 1 MiB: %v", err)
	}
}

// Formats of experts alone count, and only where a whole layer can be in them.
func TestExpertFormats(t *testing.T) {
	matrix := func(f quant.Type, rows, cols int) *backend.Tensor {
		return &backend.Tensor{Type: f, Rows: rows, Cols: cols}
	}
	layer := func(attention, up, down quant.Type) backend.Layer {
		one := matrix(quant.F32, 1, 256)
		return backend.Layer{AttnNorm: one, Q: matrix(attention, 256, 256), K: matrix(attention, 256, 256), V: matrix(attention, 256, 256), O: matrix(attention, 256, 256),
			FFNNorm: one, Router: matrix(quant.F32, 4, 256), Gate: matrix(up, 4*288, 256), Up: matrix(up, 4*288, 256), Down: matrix(down, 4*256, 288)}
	}
	m := &backend.Model{Config: backend.Config{Dim: 256, Layers: 2, Heads: 4, KVHeads: 4, HeadDim: 64, FFN: 288, Experts: 4, ExpertsUsed: 2},
		Norm: matrix(quant.F32, 1, 256), Embed: matrix(quant.Q8_0, 64, 256), Layers: []backend.Layer{layer(quant.Q8_0, quant.Q4_K, quant.Q5_0), layer(quant.Q8_0, quant.Q4_0, quant.Q5_0)}}
	m.Output = m.Embed
	if got := ExpertFormats(m); !slices.Equal(got, []quant.Type{quant.Q4_0, quant.Q5_0}) {
		t.Errorf("got %v", got) // not Q4_K: 288 is no multiple of 256
	}
	m.Config.Experts = 0
	if got := ExpertFormats(m); got != nil {
		t.Errorf("of a dense model: %v", got)
	}
}

// A layer so slow that nothing but its size counts is the last that is timed.
func TestEnough(t *testing.T) {
	for _, c := range []struct {
		prompts []float64 // seconds
		want    bool
	}{{[]float64{0.001}, false}, {[]float64{0.07}, false}, {[]float64{0.09}, true}, {[]float64{0.001, 0.01}, false}, {[]float64{0.001, 0.03}, true}} {
		var times []backend.LayerTime
		for _, s := range c.prompts {
			times = append(times, backend.LayerTime{Prompt: s})
		}
		if got := enough(times); got != c.want {
			t.Errorf("after %v: %v", c.prompts, got)
		}
	}
}
