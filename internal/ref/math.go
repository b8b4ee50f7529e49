package ref

import (
	"math"
	"runtime"
	"sort"
	"sync"
)

// matrix is (rows, cols) in float32; a vector has one row.
type matrix struct {
	rows, cols int
	w          []float32
}

func (m matrix) row(i int) []float32 { return m.w[i*m.cols : (i+1)*m.cols] }

// expert is expert e's part of a matrix of all experts, rows rows each.
func (m matrix) expert(e, rows int) matrix {
	return matrix{rows: rows, cols: m.cols, w: m.w[e*rows*m.cols : (e+1)*rows*m.cols]}
}

// product multiplies rows: dst (n, m.rows) = x (n, m.cols) times m transposed.
// Large ones are shared by the cores: each output is the same sum wherever it is
// made.
func product(dst []float64, m matrix, x []float64) {
	const small = 1 << 20 // products, a millisecond
	cores := min(runtime.GOMAXPROCS(0), len(x)/m.cols*len(m.w)/small)
	if cores < 2 {
		productRows(dst, m, x, 0, m.rows)
		return
	}
	var running sync.WaitGroup
	for i := range cores {
		lo, hi := m.rows/4*i/cores*4, m.rows/4*(i+1)/cores*4
		if i == cores-1 {
			hi = m.rows
		}
		running.Go(func() { productRows(dst, m, x, lo, hi) })
	}
	running.Wait()
}

// productRows is product for the outputs [lo, hi). Four are summed beside each
// other, only because one sum waits for itself.
func productRows(dst []float64, m matrix, x []float64, lo, hi int) {
	n, o := len(x)/m.cols, lo
	for ; o+4 <= hi; o += 4 {
		w0, w1, w2, w3 := m.row(o), m.row(o + 1)[:m.cols], m.row(o + 2)[:m.cols], m.row(o + 3)[:m.cols]
		for i := range n {
			var a, b, c, d float64
			row := x[i*m.cols : (i+1)*m.cols][:len(w0)]
			for j, w := range w0 {
				v := row[j]
				a += float64(w) * v
				b += float64(w1[j]) * v
				c += float64(w2[j]) * v
				d += float64(w3[j]) * v
			}
			y := dst[i*m.rows+o:][:4]
			y[0], y[1], y[2], y[3] = a, b, c, d
		}
	}
	for ; o < hi; o++ {
		for i := range n {
			dst[i*m.rows+o] = dot(m.row(o), x[i*m.cols:(i+1)*m.cols])
		}
	}
}

// dot is the sum of w[i]*x[i]. Four sums, only because one would be slower.
func dot(w []float32, x []float64) float64 {
	var a, b, c, d float64
	for len(w) >= 4 && len(x) >= 4 {
		a += float64(w[0]) * x[0]
		b += float64(w[1]) * x[1]
		c += float64(w[2]) * x[2]
		d += float64(w[3]) * x[3]
		w, x = w[4:], x[4:]
	}
	for i := range w {
		a += float64(w[i]) * x[i]
	}
	return a + b + c + d
}

// norm divides each row of x (n, len(w)) by its root mean square (Zhang and
// Sennrich 2019, arXiv 1910.07467) and multiplies it with w.
func norm(dst []float64, x []float32, w []float32, eps float32) {
	for ; len(x) > 0; dst, x = dst[len(w):], x[len(w):] {
		var sum float64
		for _, v := range x[:len(w)] {
			sum += float64(v) * float64(v)
		}
		scale := 1 / math.Sqrt(sum/float64(len(w))+float64(eps))
		for i := range w {
			dst[i] = float64(x[i]) * scale * float64(w[i])
		}
	}
}

// swiglu makes gate silu(gate)*up (Shazeer 2020, arXiv 2002.05202).
func swiglu(gate, up []float64) {
	for i, g := range gate {
		gate[i] = g / (1 + math.Exp(-g)) * up[i]
	}
}

// softmax makes x weights that sum to 1.
func softmax(x []float64) {
	largest, sum := math.Inf(-1), 0.0
	for _, v := range x {
		largest = math.Max(largest, v)
	}
	for i, v := range x {
		x[i] = math.Exp(v - largest)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
}

// logSum is the log of the sum of exponentials.
func logSum(x []float32) float64 {
	largest, sum := math.Inf(-1), 0.0
	for _, v := range x {
		largest = math.Max(largest, float64(v))
	}
	for _, v := range x {
		sum += math.Exp(float64(v) - largest)
	}
	return largest + math.Log(sum)
}

// top is the indices of the n largest values, largest first, ties by lower
// index.
func top[F float32 | float64](x []F, n int) []int {
	index := make([]int, len(x))
	for i := range index {
		index[i] = i
	}
	sort.SliceStable(index, func(i, j int) bool { return x[index[i]] > x[index[j]] })
	return index[:n]
}

// addBias adds bias to each row of x, where there is one.
func addBias(x []float64, bias []float32) {
	if bias == nil {
		return
	}
	for ; len(x) > 0; x = x[len(bias):] {
		for i, v := range bias {
			x[i] += float64(v)
		}
	}
}

// addResidual adds what a block made to the hidden state, rounded to float32.
func addResidual(x []float32, out []float64) {
	for i, v := range out {
		x[i] = float32(float64(x[i]) + v)
	}
}

func narrow[F float32 | float64](dst []float32, x []F) {
	for i, v := range x {
		dst[i] = float32(v)
	}
}
