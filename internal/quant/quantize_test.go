package quant

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func encoders() []Type { return []Type{F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1} }

func TestQuantizeRefuses(t *testing.T) {
	for _, f := range Types() {
		n := f.BlockElems()
		err := Quantize(f, make([]byte, f.BlockBytes()), make([]float32, n))
		if got, want := err == nil, slices.Contains(encoders(), f); got != want {
			t.Errorf("%v: %v", f, err)
		}
	}
}

// The error of a weight is at most half a step (Q8_0, and formats with mins), or
// a whole one (Q4_0 and Q5_0 have no +8 and +16), plus the scale's rounding to f16.
func TestQuantizeError(t *testing.T) {
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, c := range []struct {
		f     Type
		steps float64 // in a block's range, or its largest magnitude
		off   float64 // steps of error
	}{{Q8_0, 127, 0.5}, {Q4_0, 8, 1}, {Q5_0, 16, 1}, {Q4_1, 15, 0.5}, {Q5_1, 31, 0.5}} {
		for range 200 {
			x, back := make([]float32, 32), make([]float32, 32)
			size := math.Exp(8 * r.NormFloat64() / 3)
			for i := range x {
				x[i] = float32(size * r.NormFloat64())
			}
			packed := make([]byte, c.f.BlockBytes())
			if err := Quantize(c.f, packed, x); err != nil {
				t.Fatal(err)
			}
			Dequantize(c.f, back, packed)
			lo, hi := float64(slices.Min(x)), float64(slices.Max(x))
			most := max(-lo, hi)
			span := most
			if HasMin(c.f) {
				span = hi - lo
			}
			bound := c.off*span/c.steps + (span+most)*0x1p-11 + 0x1p-23*c.steps
			for i := range x {
				if e := math.Abs(float64(x[i] - back[i])); e > bound {
					t.Fatalf("%v: %v became %v, off by %v of %v allowed", c.f, x[i], back[i], e, bound)
				}
			}
		}
	}
}

// Weights that a format holds exactly come back as they were.
func TestQuantizeExact(t *testing.T) {
	for f, first := range map[Type]int{Q4_0: -8, Q5_0: -16, Q4_1: 3, Q5_1: -7, Q8_0: 0} {
		x, back := make([]float32, 32), make([]float32, 32)
		n := map[Type]int{Q4_0: 16, Q4_1: 16}[f]
		if n == 0 {
			n = 32
		}
		for i := range x {
			x[i] = 0.25 * float32(first+i%n)
		}
		if f == Q8_0 {
			x[5] = 0.25 * -127
		}
		packed := make([]byte, f.BlockBytes())
		if err := Quantize(f, packed, x); err != nil {
			t.Fatal(err)
		}
		Dequantize(f, back, packed)
		sameBits(t, f.String(), back, x)
	}
}

// What every encoder does where ggml's C is undefined or depends on the order of
// comparisons.
func TestQuantizeEdges(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, f := range encoders()[3:] {
		for _, bad := range []float32{nan, -nan, inf, -inf} {
			x, back, packed := make([]float32, 32), make([]float32, 32), make([]byte, f.BlockBytes())
			for i := range x {
				x[i] = float32(i)
			}
			x[7] = bad
			if err := Quantize(f, packed, x); err != nil {
				t.Fatal(err)
			}
			Dequantize(f, back, packed)
			for i, y := range back {
				if y == y && !math.IsInf(float64(y), 0) {
					t.Errorf("%v with %v: weight %d is %v", f, bad, i, y)
				}
			}
		}
		zero, packed := make([]float32, 32), make([]byte, f.BlockBytes())
		if err := Quantize(f, packed, zero); err != nil {
			t.Fatal(err)
		}
		back := make([]float32, 32)
		Dequantize(f, back, packed)
		for i, y := range back {
			if y != 0 {
				t.Errorf("%v of zeros: weight %d is %v", f, i, y)
			}
		}
	}
	// the first of equals gives the sign of the scale; 0 before -0 is the min
	x, packed := make([]float32, 32), make([]byte, 18)
	x[3], x[4] = 8, -8
	if err := Quantize(Q4_0, packed, x); err != nil || packed[1] != 0xbc {
		t.Errorf("Q4_0 of 8, -8: scale % x, want 00 bc (%v)", packed[:2], err)
	}
	x, packed = make([]float32, 32), make([]byte, 20)
	x[3], x[4] = float32(math.Copysign(0, -1)), 15
	if err := Quantize(Q4_1, packed, x); err != nil || !bytes.Equal(packed[:4], []byte{0, 0x3c, 0, 0}) {
		t.Errorf("Q4_1 of 0, -0, 15: % x, want 00 3c 00 00 (%v)", packed[:4], err)
	}
}

// Between any two neighbouring f16 values the midpoint goes to the even one and
// what is next to it to the nearer; so, being monotonic, the rounding is right
// everywhere.
func TestF16(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		x := F16ToF32(h)
		if m := h & 0x7fff; m > 0x7c00 {
			if got, want := F32ToF16(x), h|0x0200; x == x || got != want {
				t.Fatalf("NaN %#x became %v and %#x, want %#x", h, x, got, want)
			}
			continue
		} else if got := F32ToF16(x); got != h {
			t.Fatalf("%#x became %v and %#x", h, x, got)
		} else if m == 0x7c00 {
			continue
		}
		e, m := int(h>>10&31), float64(h&0x3ff)
		want := math.Ldexp(1+m/1024, e-15)
		if e == 0 {
			want = math.Ldexp(m, -24)
		}
		if math.Abs(float64(x)) != want || math.Signbit(float64(x)) != (h>>15 == 1) {
			t.Fatalf("%#x is %v, want %v", h, x, want)
		}
		step := math.Ldexp(1, max(e, 1)-25) // to the next larger magnitude: 2^16 after the last
		mid := float32(math.Copysign(want+step/2, float64(x)))
		even := h + h&1
		for _, c := range []struct {
			x    float32
			want uint16
		}{{mid, even}, {toward(mid, 0), h}, {toward(mid, 2*mid), h + 1}} {
			if got := F32ToF16(c.x); got != c.want {
				t.Fatalf("%v (%08x) became %#x, want %#x", c.x, math.Float32bits(c.x), got, c.want)
			}
		}
	}
	for x, want := range map[float32]uint16{1e38: 0x7c00, -65536: 0xfc00, 65520: 0x7c00, 65519: 0x7bff,
		0x1p-149: 0, -0x1p-149: 0x8000, 0x1p-25: 0, 0x1.8p-25: 1} {
		if got := F32ToF16(x); got != want {
			t.Errorf("%v became %#x, want %#x", x, got, want)
		}
	}
}

func toward(x, y float32) float32 { return math.Nextafter32(x, y) }

func TestBF16(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		x := BF16ToF32(h)
		if h&0x7fff > 0x7f80 {
			if got := F32ToBF16(x); x == x || got != h|0x40 {
				t.Fatalf("NaN %#x became %v and %#x", h, x, got)
			}
			continue
		}
		var b [4]byte
		binary.LittleEndian.PutUint16(b[2:], h)
		if math.Float32bits(x) != binary.LittleEndian.Uint32(b[:]) {
			t.Fatalf("%#x is %v", h, x)
		}
		if h&0x7fff == 0x7f80 {
			continue
		}
		mid := math.Float32frombits(uint32(h)<<16 + 0x8000)
		for _, c := range []struct {
			x    float32
			want uint16
		}{{x, h}, {mid, h + h&1}, {toward(mid, 0), h}, {toward(mid, 2*mid), h + 1}} {
			if got := F32ToBF16(c.x); got != c.want {
				t.Fatalf("%v became %#x, want %#x", c.x, got, c.want)
			}
		}
	}
	if got := F32ToBF16(math.MaxFloat32); got != 0x7f80 {
		t.Errorf("the largest float32 became %#x, want infinity", got)
	}
}
