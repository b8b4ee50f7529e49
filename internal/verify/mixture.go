package verify

import (
	"cmp"
	"context"
	"math"
	"slices"

	"drover/backend"
	"drover/internal/quant"
)

// A choice of experts that hangs by a hair is not a device's mistake. Where two
// devices have the same input it may differ by a sum's last bits; where errors have
// added up, by what rounding activations to int8 moves a router's logit.
// Both are in standard deviations of a router's logits.
const sameInputGap, clearGap = 1e-3, 0.2

// expertRows names the rows that are made for experts which no token chose.
const expertRows = "row for an expert"

// router is a layer's, in float64.
type router struct {
	norm, w   []float32
	eps       float64
	dim, used int
}

func newRouter(m *backend.Model, layer int) (*router, error) {
	l := &m.Layers[layer]
	r := &router{eps: float64(m.Config.NormEps), dim: m.Config.Dim, used: m.Config.ExpertsUsed}
	var err error
	if r.norm, err = floats(l.FFNNorm); err == nil {
		r.w, err = floats(l.Router)
	}
	return r, err
}

// floats are a small tensor's values.
func floats(t *backend.Tensor) ([]float32, error) {
	data, w := make([]byte, t.Bytes()), make([]float32, t.Rows*t.Cols)
	if err := t.Read(data, 0, t.Rows); err != nil {
		return nil, err
	}
	quant.Dequantize(t.Type, w, data)
	return w, nil
}

// route is the experts that hidden state h (dim) goes to, and by how much the last
// of them is ahead of the next, in standard deviations.
func (r *router) route(h []float32) (chosen []int, gap float64) {
	var sum float64
	for _, x := range h {
		sum += float64(x) * float64(x)
	}
	scale := 1 / math.Sqrt(sum/float64(r.dim)+r.eps)
	logits, mean := make([]float64, len(r.w)/r.dim), 0.0
	for e := range logits {
		for i, x := range h {
			logits[e] += float64(x) * scale * float64(r.norm[i]) * float64(r.w[e*r.dim+i])
		}
		mean += logits[e] / float64(len(logits))
	}
	order := make([]int, len(logits))
	variance := 0.0
	for e := range order {
		order[e] = e
		variance += (logits[e] - mean) * (logits[e] - mean) / float64(len(logits))
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	if gap = math.Inf(1); r.used < len(order) {
		gap = (logits[order[r.used-1]] - logits[order[r.used]]) / math.Sqrt(max(variance, math.SmallestNonzeroFloat64))
	}
	return order[:r.used], gap
}

// toward is a hidden state, of the length of h, that goes to expert e and clearly so,
// where there is one: its normed values point along the router's row of the expert,
// and a little along another's.
func (r *router) toward(e int, h []float32) []float32 {
	var out []float32
	experts := len(r.w) / r.dim
	for other := 1; other <= experts; other++ {
		out = r.along(e, (e+other)%experts, h)
		if chosen, gap := r.route(out); gap > 10*sameInputGap && slices.Contains(chosen, e) {
			break
		}
	}
	return out
}

func (r *router) along(e, other int, h []float32) []float32 {
	out := make([]float32, r.dim)
	var have, want float64
	for i := range out {
		if n := r.norm[i]; math.Abs(float64(n)) > 1e-3 {
			out[i] = (r.w[e*r.dim+i] + 0.3*r.w[other*r.dim+i]) / n
		}
		have += float64(out[i]) * float64(out[i])
		want += float64(h[i]) * float64(h[i])
	}
	scale := math.Sqrt(want / max(have, math.SmallestNonzeroFloat64))
	for i := range out {
		out[i] = float32(float64(out[i]) * scale)
	}
	return out
}

// experts looks where the rows of a mixture's feed-forward go, leaves out the
// comparison of those that hang by a hair, and adds rows to want for the experts
// that no row has chosen.
func (v *verifier) experts(ctx context.Context, against backend.Stage, b int, want *[]wanted) error {
	if v.m.Config.Experts == 0 || b == 0 || b%2 == 1 {
		return nil
	}
	layer, dim := (b-1)/2, v.m.Config.Dim
	r, err := newRouter(v.m, layer)
	if err != nil {
		return err
	}
	seen := make([]bool, v.m.Config.Experts)
	look := func(w *wanted) (gaps []float64) {
		for at := 0; at < len(w.in); at += dim {
			chosen, gap := r.route(w.in[at : at+dim])
			gaps = append(gaps, gap)
			for _, e := range chosen {
				seen[e] = seen[e] || gap >= sameInputGap
			}
		}
		w.skip = func(row int) bool { return gaps[row] < sameInputGap }
		return gaps
	}
	for i := range *want {
		gaps := look(&(*want)[i])
		if len(v.clear) <= i {
			v.clear = append(v.clear, gaps)
		}
		for row, gap := range gaps {
			v.clear[i][row] = min(v.clear[i][row], gap)
		}
	}
	var in []float32
	more := func() error {
		w, err := v.askOne(ctx, against, b, len(v.script.steps), in)
		if err == nil {
			look(&w)
			*want = append(*want, w)
		}
		in = nil
		return err
	}
	for e := range seen {
		if !seen[e] {
			in = append(in, r.toward(e, (*want)[0].in[:dim])...)
		}
		if n := len(in) / dim; n == v.script.steps[0].rows() || n > 0 && e == len(seen)-1 {
			if err := more(); err != nil {
				return err
			}
		}
	}
	if len(*want) > len(v.script.steps) {
		v.report.note("layer %d: experts that no token chose were given a row each", v.layers[layer])
	}
	if missing := count(seen, false); missing > 0 {
		v.report.note("layer %d: %d of its %d experts were chosen by no row, and are not verified", v.layers[layer], missing, len(seen))
	}
	return nil
}

func count(all []bool, wanted bool) (n int) {
	for _, b := range all {
		if b == wanted {
			n++
		}
	}
	return n
}

// unclear is how many rows of the script may go to other experts in some layer, once
// errors have added up.
func (v *verifier) unclear() (n int) {
	for _, gaps := range v.clear {
		for _, gap := range gaps {
			if gap < clearGap {
				n++
			}
		}
	}
	return n
}
