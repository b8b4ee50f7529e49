package ref

import (
	"context"
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// NMSE is the normalised mean squared error of got against want: the sum of
// squared differences over the sum of squares of want, in float64. It is NaN
// if a value of got is, and +Inf if only want is all zero.
func NMSE[G, W float32 | float64](got []G, want []W) float64 {
	if len(got) != len(want) {
		panic(fmt.Sprintf("BUG: %d values against %d", len(got), len(want)))
	}
	var diff, norm float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		norm += float64(w) * float64(w)
	}
	if diff == 0 {
		return 0
	}
	return diff / norm
}

// Point is one point of a traced forward pass.
type Point struct {
	Layer int
	Op    backend.Op
	X     []float32
}

func (p Point) String() string { return fmt.Sprintf("layer %d %v", p.Layer, p.Op) }

// Record is a Batch.Trace that appends to points.
func Record(points *[]Point) func(layer int, op backend.Op, x []float32) {
	return func(layer int, op backend.Op, x []float32) {
		*points = append(*points, Point{layer, op, append([]float32(nil), x...)})
	}
}

// Difference is how far a traced point is from the reference's.
type Difference struct {
	Layer int
	Op    backend.Op
	NMSE  float64
}

// Compare gives the difference of every point of got, in got's order. want may
// have more points than got. Errors: a point of got that want lacks, or of
// another length, or out of order.
func Compare(got, want []Point) ([]Difference, error) {
	var all []Difference
	w := 0
	for _, g := range got {
		for w < len(want) && (want[w].Layer != g.Layer || want[w].Op != g.Op) {
			w++
		}
		if w == len(want) {
			return all, fmt.Errorf("%v is traced twice, out of order, or unknown to the reference", g)
		}
		if len(g.X) != len(want[w].X) {
			return all, fmt.Errorf("%v has %d values, the reference %d", g, len(g.X), len(want[w].X))
		}
		all = append(all, Difference{g.Layer, g.Op, NMSE(g.X, want[w].X)})
		w++
	}
	return all, nil
}

// Trace runs tokens from position 0 through the whole model on the reference,
// with caches in k and v, and gives the logits of every row (tokens, vocab) and
// every point passed.
func Trace(ctx context.Context, m *backend.Model, tokens []int32, k, v quant.Type) (logits []float32, points []Point, err error) {
	n := len(tokens)
	pages := (n + backend.PageRows - 1) / backend.PageRows
	lim := backend.Limits{Pages: pages, Rows: n, Seqs: 1, Context: n, Outs: n, K: k, V: v}
	s, err := New().Load(ctx, m, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}, lim, nil)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	b := &backend.Batch{Tokens: tokens, Seqs: []backend.Seq{{Rows: n}}, Logits: make([]float32, n*m.Config.Vocab), Trace: Record(&points)}
	for i := range n {
		b.Pos, b.Out = append(b.Pos, int32(i)), append(b.Out, int32(i))
	}
	for i := range pages {
		b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
	}
	if err := s.Forward(ctx, 0, b); err != nil {
		return nil, nil, err
	}
	return b.Logits, points, nil
}

// KL is the Kullback-Leibler divergence, in nats, of the distribution that the
// logits got give from the one that want give.
func KL(got, want []float32) float64 {
	lg, lw := logSum(got), logSum(want)
	var kl float64
	for i, w := range want {
		p := float64(w) - lw
		kl += math.Exp(p) * (p - (float64(got[i]) - lg))
	}
	return kl
}
