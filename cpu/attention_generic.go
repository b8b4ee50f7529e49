package cpu

import (
	"math"

	"drover/backend"
)

// This file is the definition of attention's kernels (see kernels_generic.go).

// scores adds dimension d of a page of keys, x, to the scores of lines.
func scores(dst, q *float32, x *[backend.PageRows]float32, lines, dim, d int) {
	for l := range lines {
		out := at[float32](bytesOf(dst), l*cutRows*4, backend.PageRows)
		w := floats(q, lines*dim)[l*dim+d]
		if d == 0 {
			clear(out)
		}
		for i, k := range x {
			out[i] += float32(w * k)
		}
	}
}

func scoreF32Generic(dst, q *float32, k, _ *byte, lines, dim int) {
	for d := range dim {
		scores(dst, q, (*[backend.PageRows]float32)(at[float32](k, d*4*backend.PageRows, backend.PageRows)), lines, dim, d)
	}
}

func scoreF16Generic(dst, q *float32, k, _ *byte, lines, dim int) {
	var x [backend.PageRows]float32
	for d := range dim {
		widenF16Generic(&x[0], &at[byte](k, d*2*backend.PageRows, 1)[0], backend.PageRows)
		scores(dst, q, &x, lines, dim, d)
	}
}

// scoreQ8Generic: a key's bytes of dimensions d and d+1 lie side by side.
func scoreQ8Generic(dst, q *float32, k, _ *byte, lines, dim int) {
	for l := range lines {
		fixed, out := at[int16](bytesOf(q), l*dim*4, dim), at[float32](bytesOf(dst), l*cutRows*4, backend.PageRows)
		scale := at[float32](bytesOf(q), l*dim*4+2*dim, 1)[0]
		for i := range out {
			sum := float32(0)
			for b := range dim / blockCols {
				block, isum := at[byte](k, b*34*backend.PageRows, 34*backend.PageRows), int32(0)
				for d, w := range fixed[b*blockCols:][:blockCols] {
					isum += int32(w) * int32(int8(block[2*backend.PageRows+(d/2*backend.PageRows+i)*2+d%2]))
				}
				sum += float32(float32(isum) * halves(block, i))
			}
			out[i] = sum * scale
		}
	}
}

// fixedScale is what values are multiplied by so that the largest becomes the greatest int16, and its inverse.
func fixedScale(most float32) (factor, scale float32) {
	if most < tiny {
		return 0, 0
	}
	return math.MaxInt16 / most, most / math.MaxInt16
}

func fixGeneric(x *float32, lines, n int) {
	for l := range lines {
		v, most := at[float32](bytesOf(x), l*n*4, n), float32(0)
		for _, f := range v {
			most = max(most, float32(math.Abs(float64(f))))
		}
		factor, scale := fixedScale(most)
		for i, f := range v { // an int16 ends before the float32 that comes next
			at[int16](bytesOf(x), l*n*4, n)[i] = int16(math.RoundToEven(float64(f * factor)))
		}
		v[n/2] = scale
	}
}

// weightsSize is the float32 of lines' weights of a page: PageRows int16 and a scale each.
func weightsSize(lines int) int { return lines * (backend.PageRows/2 + 1) }

// pairedPosition is where a position's values lie in a block of a page of values, or weights: those of positions
// 16 apart are side by side.
func pairedPosition(i int) (pair, which int) { return i/32*16 + i%16, i / 16 % 2 }

// weightScale is the scale of weights of which this is the largest: the power of two from which it takes 15 bits. Added to
// a product, a number whose last place is the scale leaves, in its lower word, the product rounded to so many of it.
func weightScale(most float32) (scale, added float32) {
	const least, nearlyNext = 15 << 23, 0x80 // what would be rounded to 2^15 has the next scale
	e := max(math.Float32bits(most)+nearlyNext, least) &^ (1<<23 - 1)
	return math.Float32frombits(e - 14<<23), math.Float32frombits(e + 9<<23 + 1<<22)
}

func weighGeneric(w, p *float32, v *byte, lines, n int) {
	block := at[byte](v, 0, 34*backend.PageRows)
	for l := range lines {
		line := at[float32](bytesOf(p), l*cutRows*4, backend.PageRows)
		most := float32(0)
		for i, f := range line[:n] {
			most = max(most, f*halves(block, i))
		}
		scale, added := weightScale(most)
		row := at[int16](bytesOf(w), l*2*backend.PageRows, backend.PageRows)
		clear(row)
		for i, f := range line[:n] { // the product is exact in float64
			pair, which := pairedPosition(i)
			row[2*pair+which] = int16(math.Float32bits(float32(float64(f)*float64(halves(block, i)) + float64(added))))
		}
		at[float32](bytesOf(w), lines*2*backend.PageRows, lines)[l] = scale
	}
}

func accumQ8Generic(acc, w *float32, v, _ *byte, lines, dim int) {
	block := at[byte](v, 2*backend.PageRows, 32*backend.PageRows)
	for l := range lines {
		row := at[int16](bytesOf(w), l*2*backend.PageRows, backend.PageRows)
		scale := at[float32](bytesOf(w), lines*2*backend.PageRows, lines)[l]
		out := at[float32](bytesOf(acc), l*dim*4, blockCols)
		for d := range out {
			isum := int32(0)
			for i, f := range row {
				isum += int32(f) * int32(int8(block[(i/2*blockCols+d)*2+i%2]))
			}
			out[d] += float32(float32(isum) * scale)
		}
	}
}

// sums adds columns d and after of row i of values, x, to the sums of lines.
func sums(acc, p *float32, x []float32, lines, dim, i, d int) {
	for l := range lines {
		a, w := at[float32](bytesOf(acc), (l*dim+d)*4, len(x)), at[float32](bytesOf(p), (l*cutRows+i)*4, 1)[0]
		for j, v := range x {
			a[j] += float32(w * v)
		}
	}
}

func accumF32Generic(acc, p *float32, v, _ *byte, lines, n, dim int) {
	for i := range n {
		sums(acc, p, at[float32](v, i*dim*4, dim), lines, dim, i, 0)
	}
}

func accumF16Generic(acc, p *float32, v, _ *byte, lines, n, dim int) {
	var x [blockCols]float32
	for i := range n {
		for d := 0; d < dim; d += blockCols {
			some := x[:min(blockCols, dim-d)]
			widenF16Generic(&some[0], &at[byte](v, (i*dim+d)*2, 1)[0], len(some))
			sums(acc, p, some, lines, dim, i, d)
		}
	}
}
