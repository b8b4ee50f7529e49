package cpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

func load(t testing.TB, o Options, m *backend.Model, l backend.Limits) backend.Stage {
	t.Helper()
	dev, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dev.Load(context.Background(), m, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func decodeBatch(m *backend.Model, rows int) *backend.Batch {
	b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows, Pages: []int32{0, 1}}}, Out: []int32{int32(rows - 1)}, Logits: make([]float32, m.Config.Vocab)}
	for i := range rows {
		b.Tokens, b.Pos = append(b.Tokens, int32(i%7)), append(b.Pos, int32(i))
	}
	return b
}

// TestForwardAllocates holds Forward to no allocation at all, in every kind of
// batch, cache and packed layout.
func TestForwardAllocates(t *testing.T) {
	for _, experts := range []int{0, 3} {
		for _, cache := range []quant.Type{quant.F32, quant.F16, quant.Q8_0} {
			for _, raw := range []bool{false, true} {
				m := backendtest.Llama(quant.Q4_0, 1, 64, 2, 1, 96, 100, experts)
				forwardAllocates(t, Options{Threads: 2, Raw: raw}, m, cache, fmt.Sprintf("experts %d, cache %v, raw %v", experts, cache, raw))
			}
		}
	}
	for _, typ := range typeOf {
		m := backendtest.Llama(typ, 1, 256, 4, 2, 256, 100, 0)
		forwardAllocates(t, Options{Threads: 2}, m, quant.F16, typ.String())
	}
}

func forwardAllocates(t *testing.T, o Options, m *backend.Model, cache quant.Type, what string) {
	t.Helper()
	s := load(t, o, m, backend.Limits{Pages: 2, Rows: 20, Seqs: 1, Context: 128, Outs: 1, K: cache, V: cache})
	for _, rows := range []int{1, 2, 8} {
		b := decodeBatch(m, rows)
		run := func() {
			if err := s.Forward(context.Background(), 0, b); err != nil {
				t.Fatal(err)
			}
		}
		// the least of some: a thread that the runtime starts meanwhile counts too
		n := testing.AllocsPerRun(5, run)
		for tries := 0; n != 0 && tries < 4; tries++ {
			n = testing.AllocsPerRun(5, run)
		}
		if n != 0 {
			t.Errorf("%s, %d rows: %v allocations", what, rows, n)
		}
	}
}

// TestBarriers counts how often the workers meet in a layer of decode: the runs of
// a model of three layers less those of one.
func TestBarriers(t *testing.T) {
	const most = 5
	for _, experts := range []int{0, 6} {
		for _, rows := range []int{1, 3} {
			runs := func(layers int) int {
				m := backendtest.Llama(quant.Q4_0, layers, 256, 4, 2, 512, 100, experts)
				s := load(t, Options{Threads: 2}, m, backend.Limits{Pages: 2, Rows: 4, Seqs: 1, Context: 128, Outs: 1, K: quant.F16, V: quant.F16}).(*stage)
				before := s.pool.runs()
				if err := s.Forward(context.Background(), 0, decodeBatch(m, rows)); err != nil {
					t.Fatal(err)
				}
				return s.pool.runs() - before
			}
			if got := float64(runs(3)-runs(1)) / 2; got > most || got < 3 {
				t.Errorf("%d experts, %d rows: %g barriers a layer, want 3 to %d", experts, rows, got, most)
			}
		}
	}
}

// TestWorkers holds any number of workers, and any that pace leaves of them, to the
// same bits; more workers than groups too.
func TestWorkers(t *testing.T) {
	for _, experts := range []int{0, 3} {
		m := backendtest.Llama(quant.Q4_K, 1, 256, 4, 2, 256, 1000, experts)
		var want [2][]float32
		for _, n := range []int{1, 2, 3, 40} {
			s := load(t, Options{Threads: n}, m, backend.Limits{Pages: 2, Rows: 8, Seqs: 1, Context: 128, Outs: 1, K: quant.F16, V: quant.F16}).(*stage)
			for active := n; active > 0; active -= (n + 2) / 3 {
				held := pace{most: n, active: active, drop: math.MaxInt64, raise: math.MaxInt64} // no trials
				s.pool.paces.decode, s.pool.paces.prompt = held, held
				for i, rows := range []int{2, 8} {
					b := decodeBatch(m, rows)
					if err := s.Forward(context.Background(), 0, b); err != nil {
						t.Fatal(err)
					}
					if want[i] == nil {
						want[i] = b.Logits
					}
					if !slices.Equal(b.Logits, want[i]) {
						t.Errorf("%d experts, %d rows, %d of %d workers: other logits than of one", experts, rows, active, n)
					}
				}
			}
		}
	}
}

// TestShare: shares follow one another, cover all groups and differ by two at most.
func TestShare(t *testing.T) {
	for _, n := range []int{1, 2, 3, 16, 17, 128, 1001} {
		for _, workers := range []int{1, 2, 3, 7, 64} {
			next := 0
			for id := range workers {
				lo, hi := share(n, id, workers)
				if lo != next || hi < lo || lo%2 != 0 || hi-lo > n/workers+3 {
					t.Errorf("%d groups, worker %d of %d: [%d, %d) after %d", n, id, workers, lo, hi, next)
				}
				next = hi
			}
			if next != n {
				t.Errorf("%d groups, %d workers: %d shared out", n, workers, next)
			}
		}
	}
}

// TestUnits: each group of several products is taken once, by its owner's loader
// and by its owner's units alike.
func TestUnits(t *testing.T) {
	for _, workers := range []int{1, 2, 5} {
		s := &stage{pool: &pool{n: workers}}
		groups := []int{16, 3, 1}
		seen := make([][]int, len(groups))
		for i, n := range groups {
			m := &matrix{groups: n, parts: i} // parts names it
			seen[i] = make([]int, n)
			s.products.list = append(s.products.list, product{m: m, step: 2 + i})
		}
		for owner := range workers {
			for u := 0; ; u++ {
				q, lo, hi := s.unit(owner, u)
				if q == nil {
					break
				}
				if from, to := share(q.m.groups, owner, workers); lo < from || hi > to {
					t.Errorf("%d workers: unit [%d, %d) is not in worker %d's share [%d, %d)", workers, lo, hi, owner, from, to)
				}
				for g := lo; g < hi; g++ {
					seen[q.m.parts][g]++
				}
			}
		}
		for i, counts := range seen {
			for g, n := range counts {
				if n != 1 {
					t.Errorf("%d workers: group %d of product %d taken %d times", workers, g, i, n)
				}
			}
		}
	}
}

// TestLoaderOwners: where memory is not equally near, no loader takes another's chunk.
func TestLoaderOwners(t *testing.T) {
	for _, others := range []bool{false, true} {
		l := &loader{ctx: context.Background(), chunks: [][]chunk{{{lo: 0}, {lo: 1}}, {{lo: 2}}, nil}}
		var got [][]int
		for _, id := range []int{2, 1, 0} {
			var list []int
			for c, ok := l.take(id, others, 0, nil); ok; c, ok = l.take(id, others, 0, nil) {
				list = append(list, c.lo)
			}
			got = append(got, list)
		}
		want := [][]int{nil, {2}, {0, 1}}
		if others {
			want = [][]int{{0, 1, 2}, nil, nil}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("others %v: %v, want %v", others, got, want)
		}
	}
}

// TestTiles holds a batch of several tiles to the same rows in small batches.
func TestTiles(t *testing.T) {
	const rows = passRows + 100
	m := backendtest.Llama(quant.Q4_0, 2, 64, 4, 2, 96, 50, 3)
	pages := make([]int32, (rows+backend.PageRows-1)/backend.PageRows)
	for i := range pages {
		pages[i] = int32(i)
	}
	s := load(t, Options{Threads: 2}, m, backend.Limits{Pages: len(pages), Rows: rows, Seqs: 1, Context: rows, Outs: rows, K: quant.F16, V: quant.F16})
	forward := func(lo, hi int) (logits []float32, traced int) {
		b := &backend.Batch{Seqs: []backend.Seq{{Rows: hi - lo, Pages: pages}}, Logits: make([]float32, (hi-lo)*50)}
		for i := lo; i < hi; i++ {
			b.Tokens, b.Pos, b.Out = append(b.Tokens, int32(i*7%50)), append(b.Pos, int32(i)), append(b.Out, int32(i-lo))
		}
		b.Trace = func(layer int, op backend.Op, x []float32) { traced += len(x) }
		if err := s.Forward(context.Background(), 0, b); err != nil {
			t.Fatal(err)
		}
		return b.Logits, traced
	}
	all, whole := forward(0, rows)
	parts := 0
	for lo := 0; lo < rows; lo += 77 {
		hi := min(lo+77, rows)
		some, n := forward(lo, hi)
		parts += n
		for i, v := range some {
			if v != all[lo*50+i] {
				t.Fatalf("row %d: %g alone, %g among %d rows", lo+i/50, v, all[lo*50+i], rows)
			}
		}
	}
	if whole != parts {
		t.Errorf("%d values traced at once, %d in parts", whole, parts)
	}
}

func TestNewErrors(t *testing.T) {
	if _, err := New(Options{ISA: "nonsense"}); !errors.Is(err, ErrISA) {
		t.Errorf("an unknown set: %v", err)
	}
	for _, isa := range Sets() {
		if _, err := New(Options{ISA: isa}); err != nil && !errors.Is(err, ErrNoISA) {
			t.Errorf("%s: %v", isa, err)
		}
	}
}

// BenchmarkDecode is one token of a small llama through every block.
func BenchmarkDecode(b *testing.B) {
	m := backendtest.Llama(quant.Q4_0, 4, 2048, 32, 4, 5632, 32000, 0)
	s := load(b, Options{}, m, backend.Limits{Pages: 2, Rows: 1, Seqs: 1, Context: 128, Outs: 1, K: quant.F16, V: quant.F16})
	batch := decodeBatch(m, 1)
	weights := s.(*stage).Used().Weights
	b.ReportAllocs()
	b.SetBytes(int64(weights))
	for b.Loop() {
		if err := s.Forward(context.Background(), 0, batch); err != nil {
			b.Fatal(err)
		}
	}
}
