//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
	"drover/internal/ref"
)

func tinyLimits() backend.Limits {
	return backend.Limits{Pages: 4, Rows: 64, Seqs: 4, Context: 256, Outs: 64, K: quant.F16, V: quant.F16}
}

func whole(m *backend.Model) []backend.Range { return []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}} }

func loadStage(t testing.TB, d *device, m *backend.Model, l backend.Limits) *stage {
	t.Helper()
	s, err := d.Load(context.Background(), m, whole(m), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*stage)
}

// rowsBatch is rows of one sequence from position pos on, with logits of the last.
func rowsBatch(m *backend.Model, pos, rows int) *backend.Batch {
	b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows}}, Out: []int32{int32(rows - 1)}, Logits: make([]float32, m.Config.Vocab)}
	for i := range (pos+rows)/backend.PageRows + 1 {
		b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
	}
	for i := range rows {
		b.Tokens, b.Pos = append(b.Tokens, int32(i%7)), append(b.Pos, int32(pos+i))
	}
	return b
}

func forward(t testing.TB, s backend.Stage, b *backend.Batch) {
	t.Helper()
	if err := s.Forward(context.Background(), 0, b); err != nil {
		t.Fatal(err)
	}
}

// Weights that lie in mapped memory are used there, and what is not as kernels want
// it is copied.
func TestInPlace(t *testing.T) {
	d := devices(t, 1)[0]
	for _, c := range []struct {
		typ    quant.Type
		copied bool
	}{{quant.Q8_0, false}, {quant.Q4_K, false}, {quant.F32, false}, {quant.IQ3_S, true}} {
		m := backendtest.Llama(c.typ, 1, 256, 4, 2, 256, 300, 0)
		s := loadStage(t, d, m, tinyLimits())
		for i, g := range s.segments {
			if (g.pages == 0) != c.copied {
				t.Errorf("%v: segment %d of %d bytes: in place %v", c.typ, i, g.bytes, g.pages != 0)
			}
		}
	}
}

// The pages of weights in Go's own memory reach into what lies beside them. The garbage
// collector ends the process where it finds a pointer to what it has freed.
func TestInPlaceNeighbours(t *testing.T) {
	d := devices(t, 1)[0]
	beside := make([][]byte, 4096) // as long as the matrices
	for i := range beside {
		beside[i] = make([]byte, quant.Q8_0.RowBytes(64)*64)
	}
	for i := 0; i < len(beside); i += 2 {
		beside[i] = nil
	}
	runtime.GC()
	m := backendtest.Llama(quant.Q8_0, 8, 64, 2, 2, 64, 64, 0) // into the gaps
	clear(beside)
	runtime.GC()
	s := loadStage(t, d, m, tinyLimits())
	for range 2 {
		runtime.GC()
	}
	forward(t, s, rowsBatch(m, 0, 2))
}

// What the kernels cannot do is refused with what to do instead.
func TestUnsupported(t *testing.T) {
	wide := backendtest.Llama(quant.F16, 1, 1024, 2, 2, 64, 64, 0)
	odd := backendtest.Llama(quant.F16, 1, 80, 2, 2, 64, 64, 0)
	for _, c := range []struct {
		m    *backend.Model
		k    quant.Type
		want string
	}{{wide, quant.F16, "heads of 512"}, {odd, quant.Q8_0, "use f16"}, {odd, quant.Q4_0, "use f32, f16 or q8_0"}} {
		l := tinyLimits()
		l.K = c.k
		if _, err := Need(backend.Info{ISA: "apple7"}, c.m, whole(c.m), l); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// sharpened makes a model's attention choose: as it is its scores are all nearly 0, so
// that no mistake in them would show. Weights of norms, Q and K are then about 1.
func sharpened(m *backend.Model) *backend.Model {
	times := func(x *backend.Tensor, by float64) *backend.Tensor {
		raw, w := make([]byte, x.Bytes()), make([]float32, x.Rows*x.Cols)
		if err := x.Read(raw, 0, x.Rows); err != nil {
			panic("BUG: " + err.Error())
		}
		quant.Dequantize(x.Type, w, raw)
		for i := range w {
			w[i] *= float32(by)
		}
		y := *x
		y.Type = quant.F32
		data := make(memory, y.Bytes())
		copy(floats(data), w)
		y.Source = data
		return &y
	}
	for i := range m.Layers {
		l := &m.Layers[i]
		l.AttnNorm = times(l.AttnNorm, 50)
		by := 75 / math.Sqrt(float64(m.Config.Dim))
		l.Q, l.K = times(l.Q, by), times(l.K, by)
	}
	return m
}

// memory is a tensor's bytes, row after row.
type memory []byte

func (m memory) Rows(dst []byte, lo, hi int) error {
	size := len(dst) / max(1, hi-lo)
	copy(dst, m[lo*size:hi*size])
	return nil
}
func (m memory) Mapped() []byte { return m }
func (m memory) Drop(int, int)  {}

// Heads and groups of every kind, far enough that decoding sums several cuts, after
// a prompt and beside the reference.
func TestAttention(t *testing.T) {
	d := devices(t, 1)[0]
	for _, c := range []struct {
		heads, kv, headDim, window int
		k, v                       quant.Type
	}{
		{heads: 4, kv: 4, headDim: 32, k: quant.F16, v: quant.F16},
		{heads: 5, kv: 1, headDim: 40, k: quant.F16, v: quant.F32},
		{heads: 12, kv: 1, headDim: 96, window: 110, k: quant.Q8_0, v: quant.F16},
		{heads: 3, kv: 1, headDim: 128, k: quant.F32, v: quant.F32},
		{heads: 5, kv: 1, headDim: 192, window: 33, k: quant.F16, v: quant.Q8_0},
		{heads: 2, kv: 2, headDim: 256, k: quant.F32, v: quant.F16},
		{heads: 2, kv: 1, headDim: 20, k: quant.F16, v: quant.F16},
		{heads: 4, kv: 2, headDim: 50, window: 100, k: quant.F32, v: quant.F16},
	} {
		m := sharpened(backendtest.Llama(quant.F32, 1, c.heads*c.headDim, c.heads, c.kv, 32, 40, 0))
		m.Config.Window = c.window
		l := backend.Limits{Pages: 3, Rows: 160, Seqs: 1, Context: 192, Outs: 4, K: c.k, V: c.v}
		got, want := loadStage(t, d, m, l), ref.New()
		wanted, err := want.Load(context.Background(), m, whole(m), l, nil)
		if err != nil {
			t.Fatal(err)
		}
		limit := 4e-5
		if c.k == quant.F32 && c.v == quant.F32 {
			limit = 1e-11
		}
		for _, part := range [][2]int{{0, 140}, {140, 3}, {143, 1}, {144, 9}} {
			a, b := rowsBatch(m, part[0], part[1]), rowsBatch(m, part[0], part[1])
			forward(t, got, a)
			forward(t, wanted, b)
			if e := ref.NMSE(a.Logits, b.Logits); !(e <= limit) {
				t.Errorf("%+v: rows %d on, %d of them: NMSE %.1e", c, part[0], part[1], e)
			}
		}
		if err := wanted.Close(); err != nil {
			t.Error(err)
		}
	}
}

// How a prompt is cut into tiles and command buffers, and how often arguments begin
// anew, changes no bit.
func TestCuts(t *testing.T) {
	d := devices(t, 1)[0]
	m := backendtest.Llama(quant.Q8_0, 2, 64, 2, 1, 64, 100, 3)
	var want []float32
	for _, c := range []struct {
		tile, slots int
		unitSeconds float64
	}{{64, 96, 1e-12}, {64, 96, 1}, {64, 96, 0}, {64, 3, 1e-12}, {20, 96, 1e-12}, {20, 1, 1}} {
		s := loadStage(t, d, m, tinyLimits())
		s.tile, s.argSlots, s.unitSeconds = c.tile, c.slots, c.unitSeconds
		s.tiles = make([]tileList, ceil(s.lim.Rows, s.tile))
		b := rowsBatch(m, 0, 50)
		b.Seqs = []backend.Seq{{Rows: 17, Pages: []int32{2}}, {Rows: 33, Pages: []int32{1}}}
		for i := range b.Pos[17:] {
			b.Pos[17+i] = int32(i)
		}
		b.Out, b.Logits = []int32{16, 30, 49}, make([]float32, 3*m.Config.Vocab)
		forward(t, s, b)
		if want == nil {
			want = b.Logits
		}
		if !slices.Equal(b.Logits, want) {
			t.Errorf("%+v: other bits", c)
		}
	}
}

// Measure gives every rate, and the memory back.
func TestMeasure(t *testing.T) {
	d := devices(t, 1)[0]
	free := d.Info().Free
	r, err := d.Measure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{"read": r.Read, "copy": r.Copy, "matrix": r.Matrix, "launch": r.Launch, "Q4_0": r.Format[quant.Q4_0], "F16": r.Format[quant.F16]} {
		if !(v > 0) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if got := d.Info().Free; got != free {
		t.Errorf("%d bytes free, %d before", got, free)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
