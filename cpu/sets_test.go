package cpu

import (
	"math/rand/v2"
	"testing"

	"drover/internal/quant"
)

// typeOf gives one weight format of each packed layout.
var typeOf = [kinds]quant.Type{kindF32: quant.F32, kindF16: quant.F16, kindBF16: quant.BF16, kindQ8_0: quant.Q8_0,
	kindQ4_0: quant.Q4_0, kindQ4_1: quant.Q4_1, kindQ5_0: quant.Q5_0, kindQ5_1: quant.Q5_1, kindQ4_K: quant.Q4_K,
	kindQ5_K: quant.Q5_K, kindQ6_K: quant.Q6_K, kindIQ4_NL: quant.IQ4_NL, kindIQ4_XS: quant.IQ4_XS, kindMXFP4: quant.MXFP4,
	kindQ2_K: quant.Q2_K, kindQ3_K: quant.Q3_K, kindI8: quant.IQ3_S}

// TestSets holds every kernel set's products of one row and of six to each
// other, bit for bit, and to the generic set.
func TestSets(t *testing.T) {
	const cols, groups = 768, 3
	r := rand.New(rand.NewPCG(1, 2))
	x := make([]float32, panelRows*cols)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	g := generic()
	for _, k := range sets() {
		for kd := range kinds {
			typ := typeOf[kd]
			raw := make([]byte, groups*groupRows*typ.RowBytes(cols))
			quant.Random(typ, raw, 3, 0.1)
			stride := kd.groupBytes(cols)
			w := make([]byte, groups*stride)
			for i := range groups {
				newPacker(generic(), typ, cols).group(w[i*stride:(i+1)*stride], raw[i*groupRows*typ.RowBytes(cols):], groupRows)
			}
			want := oneByOne(g, kd, w, x, cols, groups)
			one := oneByOne(k, kd, w, x, cols, groups)
			six := allSix(k, kd, w, x, cols)
			if k.widen[kd] != nil {
				wide := make([]byte, 2*kindF32.groupBytes(cols))
				for i := range 2 {
					k.widen[kd](&at[float32](&wide[0], i*kindF32.groupBytes(cols), 1)[0], &w[i*stride], groupRows*cols)
				}
				for i, v := range allSix(k, kindF32, wide, x, cols) {
					if v != six[i] {
						t.Fatalf("%s kind %d: element %d of six rows is %g, of widened weights %g", k.isa, kd, i, six[i], v)
					}
				}
			}
			var num, den float64
			for i, v := range one {
				d := float64(v - want[i])
				num, den = num+d*d, den+float64(want[i])*float64(want[i])
				if col := i % (groups * groupRows); col < 2*groupRows {
					if got := six[i/(groups*groupRows)*2*groupRows+col]; got != v {
						t.Fatalf("%s kind %d row %d: six rows give %g, one gives %g", k.isa, kd, i, got, v)
					}
				}
			}
			if num/den > 1e-12 {
				t.Errorf("%s kind %d (%v): NMSE %g to generic", k.isa, kd, typ, num/den)
			}
		}
	}
}

func oneByOne(k *kernels, kd kind, w []byte, x []float32, cols, groups int) []float32 {
	out := make([]float32, panelRows*groups*groupRows)
	act := make([]byte, cols*4)
	for row := range panelRows {
		dst, v := &out[row*groups*groupRows], &x[row*cols]
		if kd.float() {
			k.gemv[kd](dst, &w[0], bytesOf(v), cols, groups, kd.groupBytes(cols))
			continue
		}
		k.quantize(&act[0], v, cols/blockCols, 1, 0, 64)
		k.gemv[kd](dst, &w[0], &act[0], cols/blockCols, groups, kd.groupBytes(cols))
	}
	return out
}

func allSix(k *kernels, kd kind, w []byte, x []float32, cols int) []float32 {
	out := make([]float32, panelRows*2*groupRows)
	stride, n := kd.groupBytes(cols), cols/blockCols
	if kd.float() {
		act := make([]float32, panelRows*cols)
		for row := range panelRows {
			for c := range cols {
				act[c*panelRows+row] = x[row*cols+c]
			}
		}
		k.gemmFloat[kd](&out[0], 2*groupRows, &w[0], &w[stride], bytesOf(&act[0]), cols)
		return out
	}
	act := make([]byte, n*max(64*panelRows, tileRecord))
	for row := range panelRows {
		if k.tiled() {
			k.quantizeTiles(&act[0], &x[row*cols], n, row)
		} else {
			k.quantize(&act[0], &x[row*cols], n, panelRows, row, 64*panelRows)
		}
	}
	out = append(out, make([]float32, (tileRows-panelRows)*2*groupRows)...)
	a, b := &w[0], &w[stride]
	if k.unpack[kd] != nil {
		size := n * k.panelBytes(kd.panel())
		pa, pb := make([]byte, size), make([]byte, size)
		k.unpack[kd](&pa[0], a, n)
		k.unpack[kd](&pb[0], b, n)
		a, b = &pa[0], &pb[0]
	}
	k.multiplyRows(kd.panel(), &out[0], 2*groupRows, a, b, &act[0], n, panelRows, &make([]byte, tileRing)[0])
	return out
}
