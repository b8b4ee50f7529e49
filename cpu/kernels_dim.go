//go:build (amd64 || arm64) && !noasm

package cpu

// accumulate is one of the kernels of that name.
type accumulate = func(acc, p *float32, v, next *byte, lines, n, dim int)

// byDim is fast for rows of whole vectors of values, and slow for others. The
// choice depends on the model alone, so a row's result does not change.
func byDim(values int, fast, slow accumulate) accumulate {
	return func(acc, p *float32, v, next *byte, lines, n, dim int) {
		if dim%values == 0 {
			fast(acc, p, v, next, lines, n, dim)
			return
		}
		slow(acc, p, v, next, lines, n, dim)
	}
}

// byPairs is fast for whole vectors of pairs, and slow for others: the same to the bit.
func byPairs(pairs int, fast, slow func(x, cos, sin *float32, n int)) func(x, cos, sin *float32, n int) {
	return func(x, cos, sin *float32, n int) {
		if n%pairs == 0 {
			fast(x, cos, sin, n)
			return
		}
		slow(x, cos, sin, n)
	}
}
