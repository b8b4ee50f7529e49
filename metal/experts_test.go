//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"math"
	"slices"
	"testing"

	"drover/internal/quant"
)

// expertList is the work list that route makes: which slots, row*used + rank, go to
// which expert.
func expertList(chosen [][]int32, experts int) (words []int32, active int) {
	used := len(chosen[0])
	var ids, order []int32
	first := []int32{0}
	for e := range int32(experts) {
		n := len(order)
		for row, ranks := range chosen {
			if rank := slices.Index(ranks, e); rank >= 0 {
				order = append(order, int32(row*used+rank))
			}
		}
		if len(order) > n {
			ids, first = append(ids, e), append(first, int32(len(order)))
		}
	}
	words = []int32{int32(len(ids)), int32(used), 0, 0}
	words = append(append(words, ids...), make([]int32, experts-len(ids))...)
	words = append(append(words, first...), make([]int32, experts+1-len(first))...)
	return append(words, order...), len(ids)
}

// choose makes every row choose two of five experts: all of them the second, none the last.
func choose(n int) (chosen [][]int32) {
	for i := range n {
		chosen = append(chosen, [][]int32{{3, 1}, {1, 0}, {1, 2}}[i%3])
	}
	return chosen
}

const experts, expertsUsed = 5, 2

// mixture is what a product with experts reads.
type mixture struct {
	in     inputs
	chosen [][]int32
	list   uint64
	share  int
}

func (b *bench) mixture(n, cols, share int) mixture {
	x := mixture{chosen: choose(n), share: share}
	words, _ := expertList(x.chosen, experts)
	x.list = put(b, words)
	x.in = b.inputs(n*expertsUsed, cols, 7)
	return x
}

func (x mixture) product(m *weights, ldy int) Product {
	p := x.in.product(m.cols, len(x.chosen))
	p.Experts, p.Share, p.Total = x.list, int32(x.share), experts
	for i := range p.M[:2] {
		p.M[i] = Matrix{Rows: int32(m.rows), LdY: int32(ldy)}
	}
	return p
}

// times is the products of every slot's expert.
func (x mixture) times(m *weights) (want []float64) {
	for row, ranks := range x.chosen {
		for rank, e := range ranks {
			at := row*len(ranks) + rank
			if x.share == 1 {
				at = row
			}
			for r := range m.rows {
				want = append(want, m.times(int(e)*m.rows+r, x.in.x[at]))
			}
		}
	}
	return want
}

// TestExperts: the slots of each active expert get its product, from the row's
// input or the slot's own, in both classes.
func TestExperts(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		rows, cols := shapes(typ)[0][0], shapes(typ)[0][1]
		m := b.random(typ, rows, cols, experts, 5)
		for i, n := range []int{1, 2, 8, 40} {
			b.clear()
			x := b.mixture(n, cols, i%2)
			y := b.room(n*expertsUsed, rows, nan)
			p := x.product(m, y.ld)
			p.M[0].Y, p.M[0].Stride = y.at, b.f.matrixBytes(rows, cols)
			name, l, want := b.f.matvecName(n), matvecLaunch([]int{rows}, min(experts, n*expertsUsed)), x.times(m)
			if n > decodeRows {
				var columns int
				columns, l = matmulLaunch([]int{rows}, n, experts, n*expertsUsed/experts)
				name, want = b.f.matmulName(columns), x.times(m.asTiles(b.f))
			}
			got := b.run(name, l, bytesOf(&p), []buffer{m.in}, y)
			b.near(name, got[0], want, tolerance)
		}
	})
}

// TestGate: the gated activation is right, with and without experts, and a row's
// has the same bits whatever else is in the batch.
func TestGate(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		rows, cols := shapes(typ)[0][0], shapes(typ)[0][1]
		gate, up := b.random(typ, rows, cols, 1, 3), b.random(typ, rows, cols, 1, 4)
		l := gateLaunch(rows, 1)
		b.clear()
		in := b.inputs(decodeRows, cols, 6)
		var whole []float32
		for _, n := range []int{8, 3, 2, 1} {
			act := b.room(n, rows, nan)
			g := Gate{Product: in.product(cols, n), Act: act.at, LdAct: int32(act.ld)}
			g.Matrices, g.M[0].Rows, g.M[1].Rows = 2, int32(rows), int32(rows)
			got := b.run(b.f.gateName(n), l, bytesOf(&g), []buffer{gate.in, up.in}, act)[0]
			if n == 8 {
				whole = got
			}
			if !slices.Equal(got, whole[:len(got)]) {
				b.t.Fatalf("the first %d rows differ from those among 8", n)
			}
			var want []float64
			for j := range n {
				for r := range rows {
					want = append(want, silu(gate.times(r, in.x[j]))*up.times(r, in.x[j]))
				}
			}
			b.near(b.f.gateName(n), got, want, tolerance)
		}
		gate, up = b.random(typ, rows, cols, experts, 3), b.random(typ, rows, cols, experts, 4)
		for _, n := range []int{1, 7} {
			b.clear()
			x := b.mixture(n, cols, 1)
			act := b.room(n*expertsUsed, rows, nan)
			g := Gate{Product: x.product(gate, 0), Act: act.at, LdAct: int32(act.ld)}
			g.Matrices, g.M[0].Stride, g.M[1].Stride = 2, b.f.matrixBytes(rows, cols), b.f.matrixBytes(rows, cols)
			got := b.run(b.f.gateName(n), gateLaunch(rows, min(experts, n*expertsUsed)), bytesOf(&g), []buffer{gate.in, up.in}, act)
			want, ups := x.times(gate), x.times(up)
			for i := range want {
				want[i] = silu(want[i]) * ups[i]
			}
			b.near(b.f.gateName(n)+" of experts", got[0], want, tolerance)
		}
	})
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }
