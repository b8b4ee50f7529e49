package ref

import "math"

// Int8Blocks is the usual rounding of activations: 32 values share a float32
// scale, their largest magnitude over 127, and each is the nearest multiple of
// it, ties to even.
func Int8Blocks(row []float64) {
	for len(row) > 0 {
		n := min(32, len(row))
		var most float32
		for _, v := range row[:n] {
			most = max(most, float32(math.Abs(v)))
		}
		if most > 0 {
			inv, scale := 127/most, float64(most/127)
			for i, v := range row[:n] {
				row[i] = math.RoundToEven(float64(float32(v)*inv)) * scale
			}
		}
		row = row[n:]
	}
}
