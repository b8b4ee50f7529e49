package backendtest

import (
	"cmp"
	"math"
	"slices"

	"drover/backend"
	"drover/internal/quant"
)

// clearGap is how far the last chosen expert's logit must lie above the first
// not chosen, in standard deviations of a router's logits, for a device's
// rounding not to choose another. Rounding activations to int8 moves a logit by
// about 0.02.
const clearGap = 0.2

// clear is n tokens from position 0 for a comparison with the reference. In a
// mixture of experts the routers are clear about every row: a choice that hangs
// by a hair is not a device's mistake.
func (x *env) clear(n int) []int32 {
	x.t.Helper()
	if x.m.Config.Experts == 0 {
		return x.random(26, n)
	}
	l := x.reference()
	pages := []int32{0, 1, 2}
	tokens := make([]int32, 0, n)
	for _, id := range x.random(27, 20*n) {
		if len(tokens) == n {
			break
		}
		b := x.batch(part{pages, len(tokens), []int32{id}})
		gap := math.Inf(1)
		b.Trace = func(layer int, op backend.Op, h []float32) {
			if op == backend.OpAttnOut {
				gap = min(gap, x.gap(&x.m.Layers[layer], h))
			}
		}
		l.send(b)
		if gap >= clearGap {
			tokens = append(tokens, id)
		}
	}
	if len(tokens) < n {
		x.t.Fatalf("BUG: only %d of %d tokens are clear to the router", len(tokens), n)
	}
	return tokens
}

// gap is by how much the router's choice for hidden state h (dim) is clear, in
// standard deviations. Experts whose logits tie to the bit are one: the order
// of equals is part of the contract.
func (x *env) gap(l *backend.Layer, h []float32) float64 {
	c := &x.m.Config
	weight, router := floats(l.FFNNorm), floats(l.Router)
	var sum float64
	for _, v := range h {
		sum += float64(v) * float64(v)
	}
	scale := 1 / math.Sqrt(sum/float64(c.Dim)+float64(c.NormEps))
	logits := make([]float64, c.Experts)
	for e := range logits {
		for i, v := range h {
			logits[e] += float64(v) * scale * float64(weight[i]) * float64(router[e*c.Dim+i])
		}
	}
	slices.SortFunc(logits, func(a, b float64) int { return cmp.Compare(b, a) })
	last := logits[c.ExpertsUsed-1]
	gap := math.Inf(1)
	for _, v := range logits[c.ExpertsUsed:] {
		if v != last {
			gap = min(gap, last-v)
		}
	}
	if logits[c.ExpertsUsed] == last { // the tie itself must be clear of those above it
		for _, v := range logits[:c.ExpertsUsed] {
			if v != last {
				gap = min(gap, v-last)
			}
		}
	}
	return gap
}

// routerTies: experts whose logits tie are taken by lower index.
func routerTies(x *env) {
	m := *x.m
	m.Layers = append([]backend.Layer(nil), x.m.Layers...)
	for i := range m.Layers {
		// all experts but the last have the same router row
		router := *m.Layers[i].Router
		data := make(memory, router.Bytes())
		if err := router.Source.Rows(data, 0, router.Rows); err != nil {
			panic("BUG: " + err.Error())
		}
		row := quant.F32.RowBytes(router.Cols)
		for e := 1; e < router.Rows-1; e++ {
			copy(data[e*row:(e+1)*row], data[:row])
		}
		router.Source = data
		m.Layers[i].Router = &router
	}
	defer func(old *backend.Model) { x.m = old }(x.m)
	x.m = &m
	p := part{[]int32{4}, 0, x.clear(12)}
	x.near("logits", x.whole(x.dev).feed(p, 7, 1).logits, x.reference().feed(p, 12).logits)
}
