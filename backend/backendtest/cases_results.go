package backendtest

import (
	"math"
	"slices"

	"drover/backend"
	"drover/internal/ref"
)

// partialOut: no results, or some rows', change nothing but what is returned.
func partialOut(x *env) {
	tokens := x.clear(10)
	p, next := part{[]int32{2}, 0, tokens[:9]}, part{[]int32{2}, 9, tokens[9:]}
	all := x.whole(x.dev)
	want := all.logits(p)
	wantNext := all.logits(next)

	l := x.whole(x.dev)
	b := x.batch(p)
	b.Out, b.Logits = nil, nil
	l.send(b)
	x.same("after a batch without results", l.logits(next), wantNext)
	for _, out := range [][]int32{{8}, {0, 3, 4}, {1, 2, 3, 4, 5, 6, 7}} {
		b := x.batch(p)
		b.Out, b.Logits = out, nans(len(out)*vocab)
		l.send(b)
		for i, row := range out {
			x.same("some rows", result{b.Logits[i*vocab : (i+1)*vocab], l.classes}, want.rows(int(row), int(row)+1))
		}
		x.same("after results of some rows", l.logits(next), wantNext)
	}
}

// topAgainstLogits: the largest logits, with ties, and the sum over all.
func topAgainstLogits(x *env) {
	m := *x.m
	defer func(old *backend.Model) { x.m = old }(x.m)
	x.m = &m
	// nine different rows: every logit ties with six or seven others
	m.Output = repeat(m.Output, 9)
	if x.sh.tied {
		m.Embed = m.Output
	}
	l, p := x.whole(x.dev), part{[]int32{2}, 0, x.random(23, 7)}
	want := l.logits(p)
	for _, n := range []int{1, 5, 20, vocab} {
		for _, both := range []bool{true, false} {
			b := x.batch(p)
			b.Out, b.Top = []int32{0, 2, 6}, n
			b.TopIDs, b.TopLogits, b.LogSum = make([]int32, 3*n), nans(3*n), nans(3)
			b.Logits = nil
			if both {
				b.Logits = nans(3 * vocab)
			}
			l.send(b)
			for i, row := range b.Out {
				logits := want.rows(int(row), int(row)+1)
				if both {
					x.same("logits beside the top", result{b.Logits[i*vocab : (i+1)*vocab], l.classes}, logits)
				}
				x.topOf(logits.logits, b.TopIDs[i*n:(i+1)*n], b.TopLogits[i*n:(i+1)*n], b.LogSum[i])
			}
		}
	}
}

// topOf wants ids and values to be the largest of logits, ties by lower id.
func (x *env) topOf(logits []float32, ids []int32, values []float32, logSum float32) {
	x.t.Helper()
	order := make([]int32, len(logits))
	var sum float64
	for i, v := range logits {
		order[i] = int32(i)
		sum += math.Exp(float64(v))
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	for i, id := range ids {
		if id != order[i] || values[i] != logits[order[i]] {
			x.t.Errorf("top %d: rank %d is %d with %v, want %d with %v", len(ids), i, id, values[i], order[i], logits[order[i]])
			return
		}
	}
	if want := math.Log(sum); !(math.Abs(float64(logSum)-want) <= 1e-5*math.Max(1, math.Abs(want))) {
		x.t.Errorf("LogSum %v, want %v", logSum, want)
	}
}

// normAgainstReference: rows after the final norm, with and without logits.
func normAgainstReference(x *env) {
	p := part{[]int32{3}, 0, x.clear(8)}
	dim := x.m.Config.Dim
	ask := func(l *line, logits bool) *backend.Batch {
		b := x.batch(p)
		b.Out, b.Logits, b.Norm = []int32{1, 6, 7}, nil, nans(3*dim)
		if logits {
			b.Logits = nans(3 * vocab)
		}
		l.send(b)
		return b
	}
	l, r := x.whole(x.dev), x.reference()
	want := ask(r, true)
	got := ask(l, true)
	x.near("norm", got.Norm, want.Norm)
	x.near("logits", got.Logits, want.Logits)
	x.equal("norm without logits", ask(l, false).Norm, got.Norm)
}

// traceAgainstReference: every point that the device reports, in order; the
// first that differs is named.
func traceAgainstReference(x *env) {
	p := part{[]int32{3}, 0, x.clear(10)}
	var got, want []ref.Point
	traced := func(l *line, points *[]ref.Point) []float32 {
		b := x.batch(p)
		b.Trace = ref.Record(points)
		l.send(b)
		return b.Logits
	}
	l := x.whole(x.dev)
	plain := l.logits(p)
	x.near("logits of a traced batch", traced(l, &got), plain.logits)
	traced(x.reference(), &want)

	diffs, err := ref.Compare(got, want)
	if err != nil {
		x.t.Errorf("trace: %v", err)
	}
	limit := x.limit()
	for _, d := range diffs {
		if d.Op == backend.OpEmbed && !(d.NMSE <= 1e-12) || !(d.NMSE <= limit) {
			x.t.Errorf("first difference at layer %d, %v: NMSE %.2e, at most %.0e for %v (caches %v, %v)", d.Layer, d.Op, d.NMSE, limit, x.typ, x.lim.K, x.lim.V)
			break
		}
	}
	reported := map[[2]int]bool{}
	for _, g := range got {
		reported[[2]int{g.Layer, int(g.Op)}] = true
	}
	for _, w := range want {
		switch w.Op {
		case backend.OpEmbed, backend.OpAttnOut, backend.OpFFNOut, backend.OpNorm, backend.OpLogits:
			if !reported[[2]int{w.Layer, int(w.Op)}] {
				x.t.Errorf("%v is not traced", w)
			}
		}
	}
}
