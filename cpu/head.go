package cpu

import (
	"math"

	"drover/backend"
)

// head makes the results of the rows of Out, headRows at a time.
func (s *stage) head() {
	b, c := s.b, s.config
	for lo := 0; lo < len(b.Out); lo += headRows {
		hi := min(lo+headRows, len(b.Out))
		n := hi - lo
		// norm, quantise
		s.input(input{x: s.x, ld: c.Dim, cols: c.Dim, rows: n, norm: s.norm, rowIDs: b.Out[lo:hi]}, s.output)
		s.mark(opHeadNorm, n)
		if b.Norm != nil {
			copy(b.Norm[lo*c.Dim:hi*c.Dim], s.normed)
		}
		if b.Logits == nil && b.Top == 0 && b.Trace == nil {
			continue
		}
		// logits
		s.multiply(s.firstOf(0), product{m: s.output, dst: s.logits, ld: s.ld.vocab})
		s.mark(opLogits, n)
		s.outLo = lo
		s.each(s.tasks.results, n, 1)
		s.mark(opResults, n)
		s.trace(backend.OpNorm, s.normed, c.Dim, c.Dim, n)
		s.trace(backend.OpLogits, s.logits, s.ld.vocab, c.Vocab, n)
	}
	s.flush(c.Layers)
}

// resultRows writes the results of rows [lo, hi) of the head's chunk.
func (s *stage) resultRows(_, lo, hi int) {
	b, v := s.b, s.config.Vocab
	for i := lo; i < hi; i++ {
		x, out := s.logits[i*s.ld.vocab:][:v], s.outLo+i
		if b.Logits != nil {
			copy(b.Logits[out*v:(out+1)*v], x)
		}
		if b.Top > 0 {
			largest(b.TopIDs[out*b.Top:(out+1)*b.Top], b.TopLogits[out*b.Top:(out+1)*b.Top], x)
			b.LogSum[out] = logSum(x)
		}
	}
}

// largest finds the len(ids) largest of x, largest first, ties by lower id.
// Beyond len(x) ids are -1 and values -Inf.
func largest(ids []int32, values, x []float32) {
	n := 0
	for id, v := range x {
		if n == len(ids) && v <= values[n-1] {
			continue
		}
		if n < len(ids) {
			n++
		}
		i := n - 1
		for ; i > 0 && v > values[i-1]; i-- {
			ids[i], values[i] = ids[i-1], values[i-1]
		}
		ids[i], values[i] = int32(id), v
	}
	for ; n < len(ids); n++ {
		ids[n], values[n] = -1, float32(math.Inf(-1))
	}
}

// logSum is the log of the sum of exponentials.
func logSum(x []float32) float32 {
	most := x[0]
	for _, v := range x {
		most = max(most, v)
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v - most))
	}
	return float32(float64(most) + math.Log(sum))
}
