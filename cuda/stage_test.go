//go:build linux && cgo

package cuda

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
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
	b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows, Pages: []int32{0, 1}}}, Out: []int32{int32(rows - 1)}, Logits: make([]float32, m.Config.Vocab)}
	for i := range rows {
		b.Tokens, b.Pos = append(b.Tokens, int32(i%7)), append(b.Pos, int32(pos+i))
	}
	return b
}

// Need is what the driver then says is gone, to the byte on the software device.
// On a card it may be more, by what modules and graphs may take.
func TestNeedIsTaken(t *testing.T) {
	d := cards(t, 0)[0]
	for _, experts := range []int{0, 4} {
		m := backendtest.Llama(quant.Q4_K, 2, 512, 8, 4, 768, 300, experts)
		if _, err := d.kernels(newLayout(m, whole(m), tinyLimits(), tierNumber(d.info.ISA), 0)); err != nil {
			t.Fatal(err)
		}
		need, err := d.Need(m, whole(m), tinyLimits())
		if err != nil {
			t.Fatal(err)
		}
		before := d.Info().Free
		s, err := d.Load(context.Background(), m, whole(m), tinyLimits(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range []int{20, 1, 3} {
			if err := s.Forward(context.Background(), 0, rowsBatch(m, 0, rows)); err != nil {
				t.Fatal(err)
			}
		}
		taken := before - d.Info().Free
		if !onCard() && taken != need.Total() || taken > need.Total() || need.Total() > taken+taken/100+64<<20 {
			t.Errorf("%d experts: need %d (%+v), the driver says %d", experts, need.Total(), need, taken)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if free := d.Info().Free; !onCard() && free != before {
			t.Errorf("%d bytes free after Close, %d before", free, before)
		}
	}
}

// Need of a card that is only described is a real card's: of whole granules, and
// with room for what is beside the stage.
func TestNeedOfDescription(t *testing.T) {
	m := backendtest.Llama(quant.Q4_0, 2, 512, 8, 4, 768, 300, 0)
	for _, isa := range []string{"sm_75", "sm_80", "sm_90", "sm_90a"} {
		real, err := Need(backend.Info{ISA: isa}, m, whole(m), tinyLimits())
		if err != nil {
			t.Fatal(err)
		}
		exact, err := need(isa, 1, m, whole(m), tinyLimits())
		if err != nil {
			t.Fatal(err)
		}
		if extra := real.Total() - exact.Total(); real.Weights != exact.Weights || real.Cache != exact.Cache || extra < overhead || extra >= overhead+realGranule || (real.Total()-overhead)%realGranule != 0 {
			t.Errorf("%s: %+v, of which %+v is the stage's", isa, real, exact)
		}
	}
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
		if _, err := Need(backend.Info{ISA: "sm_80"}, c.m, whole(c.m), l); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// A forward pass allocates nothing, of either class.
func TestForwardAllocates(t *testing.T) {
	d := cards(t, 0)[0]
	m := backendtest.Llama(quant.Q4_0, 2, 256, 4, 2, 512, 300, 0)
	s := loadStage(t, d, m, tinyLimits())
	for _, rows := range []int{1, 3, 12} {
		b := rowsBatch(m, 0, rows)
		n := testing.AllocsPerRun(5, func() {
			if err := s.Forward(context.Background(), 0, b); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%d rows: %v allocations", rows, n)
		}
	}
}

// What a caller asks for with every batch differently runs without a graph in the
// end, and gives the same.
func TestManyGraphs(t *testing.T) {
	d := cards(t, 0)[0]
	m := backendtest.Llama(quant.Q8_0, 1, 128, 2, 2, 128, 300, 0)
	s := loadStage(t, d, m, tinyLimits())
	var want []int32
	for top := mostGraphs + 5; top > 0; top-- {
		b := rowsBatch(m, 0, 2)
		b.Logits, b.Top = nil, top
		b.TopIDs, b.TopLogits, b.LogSum = make([]int32, top), make([]float32, top), make([]float32, 1)
		if err := s.Forward(context.Background(), 0, b); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = b.TopIDs
		}
		if !slices.Equal(b.TopIDs, want[:top]) {
			t.Fatalf("the largest %d: %v, want %v", top, b.TopIDs, want[:top])
		}
	}
	if len(s.graphs) != mostGraphs {
		t.Errorf("%d graphs, want %d", len(s.graphs), mostGraphs)
	}
}

// Batches of more rows than go through a block at once.
func TestTiles(t *testing.T) {
	d := cards(t, 0)[0]
	m := backendtest.Llama(quant.F16, 1, 64, 2, 1, 64, 100, 0)
	l := backend.Limits{Pages: 20, Rows: tileRows + 40, Seqs: 2, Context: 640, Outs: 100, K: quant.F16, V: quant.F16}
	s := loadStage(t, d, m, l)
	batch := func(first, second int) *backend.Batch {
		b := &backend.Batch{}
		for i, n := range []int{first, second} {
			pages := make([]int32, 10)
			for j := range pages {
				pages[j] = int32(10*i + j)
			}
			b.Seqs = append(b.Seqs, backend.Seq{Rows: n, Pages: pages})
			for p := range n {
				b.Tokens, b.Pos = append(b.Tokens, int32((p*7+i)%100)), append(b.Pos, int32(p))
			}
		}
		for row := first; row < first+second; row += 9 {
			b.Out = append(b.Out, int32(row))
		}
		b.Logits = make([]float32, len(b.Out)*m.Config.Vocab)
		return b
	}
	long, short := batch(tileRows-500, 520), batch(20, 520)
	for _, b := range []*backend.Batch{long, short} {
		if err := s.Forward(context.Background(), 0, b); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(long.Logits, short.Logits) {
		t.Error("a sequence's logits depend on where its rows lie among tiles")
	}
}

// Measure gives every rate, and the card's memory back.
func TestMeasure(t *testing.T) {
	d := cards(t, 0)[0]
	free := d.Info().Free
	r, err := d.Measure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{"read": r.Read, "copy": r.Copy, "matrix": r.Matrix, "launch": r.Launch, "link": r.Link, "Q4_0": r.Format[quant.Q4_0], "F16": r.Format[quant.F16]} {
		if !(v > 0) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if got := d.Info().Free; !onCard() && got != free {
		t.Errorf("%d bytes free, %d before", got, free)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
