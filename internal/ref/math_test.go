package ref

import (
	"runtime"
	"testing"
)

// A product is the same to the bit on one core and on several, whatever the
// number of outputs.
func TestProductOnCores(t *testing.T) {
	const n, cols = 3, 1021
	for _, rows := range []int{1, 3, 997, 1000, 2051} {
		w := matrix{rows: rows, cols: cols, w: make([]float32, rows*cols)}
		for i := range w.w {
			w.w[i] = float32(i*7919%1013)/506 - 1
		}
		x := make([]float64, n*cols)
		for i := range x {
			x[i] = float64(i*104729%2003)/1001 - 1
		}
		want, got := make([]float64, n*rows), make([]float64, n*rows)
		productRows(want, w, x, 0, rows)
		for _, cores := range []int{1, 2, 3, 7} {
			before := runtime.GOMAXPROCS(cores)
			clear(got)
			product(got, w, x)
			runtime.GOMAXPROCS(before)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%d outputs on %d cores: output %d of row %d is %v, want %v", rows, cores, i%rows, i/rows, got[i], want[i])
				}
			}
		}
	}
}
