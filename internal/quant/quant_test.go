package quant

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const seed = 20 // of all random data of these tests

// randomBlocks is n blocks of random bits, scales included.
func randomBlocks(f Type, n int) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(f)))
	b := make([]byte, n*f.BlockBytes())
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// same is equality of bits, but for NaNs.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// checkInts holds Ints to the plain definition, and Dequantize to Ints in
// float64, where scale*q + min is exact, so that one rounding to float32 must
// give Dequantize's bits. Exact: the product has at most 24+8 bits; where there is
// a min, both terms are multiples of 2^-24 (f16 times integers) below 2^27
// (2^16 * 63 * 31), so that the sum has at most 52.
func checkInts(t *testing.T, f Type, src []byte) {
	t.Helper()
	n := len(src) / f.BlockBytes() * f.BlockElems()
	q, scale, w := make([]int8, n), make([]float32, n/16), make([]float32, n)
	var least []float32
	if HasMin(f) {
		least = make([]float32, n/16)
	}
	Ints(f, q, scale, least, src)
	Dequantize(f, w, src)
	for i := range w {
		s, k, m := plain(f, src[i/f.BlockElems()*f.BlockBytes():], i%f.BlockElems())
		if int(q[i]) != k || !same(scale[i/16], s) || least != nil && !same(least[i/16], m) {
			t.Fatalf("%v: weight %d is %v*%d, want %v*%d + %v", f, i, scale[i/16], q[i], s, k, m)
		}
		want := float64(scale[i/16]) * float64(q[i])
		if least != nil {
			want += float64(least[i/16])
		}
		if !same(w[i], float32(want)) {
			t.Fatalf("%v: weight %d is %v, and in integers %v*%d + %v = %v", f, i, w[i], s, k, m, want)
		}
		if q[i] == -128 && f != Q8_0 {
			t.Fatalf("%v: weight %d has integer -128", f, i)
		}
	}
}

func TestInts(t *testing.T) {
	t.Logf("seed %d", seed)
	for _, f := range blockTypes() {
		checkInts(t, f, randomBlocks(f, 300))
		checkInts(t, f, randomBlocks(f, 1))
		checkInts(t, f, nil)
	}
}

// Blocks that can be read by eye.
func TestByHand(t *testing.T) {
	one, half := "\x00\x3c", "\x00\x38" // f16
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	for _, c := range []struct {
		f     Type
		block string
		want  map[int]float32 // by weight; -1: all others
	}{
		{F32, "\x00\x00\x20\xc1", map[int]float32{0: -10}},
		{F16, "\x00\xc0", map[int]float32{0: -2}},
		{BF16, "\x20\x41", map[int]float32{0: 10}},
		{Q4_0, half + "\x9f" + zeros(15), map[int]float32{0: 3.5, 16: 0.5, -1: -4}},
		{Q4_1, half + one + "\x21" + zeros(15), map[int]float32{0: 1.5, 16: 2, -1: 1}},
		{Q5_0, one + "\x01\x00\x00\x80" + "\x02" + zeros(14) + "\xf0", map[int]float32{0: 2, 31: 15, -1: -16}},
		{Q5_1, one + half + "\x01\x00\x00\x80" + "\x02" + zeros(14) + "\xf0", map[int]float32{0: 18.5, 31: 31.5, -1: 0.5}},
		{Q8_0, half + "\x80\x7f" + zeros(30), map[int]float32{0: -64, 1: 63.5, -1: 0}},
		{Q1_0, half + "\x80" + zeros(15), map[int]float32{7: 0.5, -1: -0.5}},
		{Q2_0, half + "\xe4" + zeros(15), map[int]float32{1: 0, 2: 0.5, 3: 1, -1: -0.5}},
		{TQ1_0, "\xff" + zeros(51) + one, map[int]float32{0: 1, 32: 1, 64: 1, 96: 1, 128: 1, -1: -1}},
		{TQ2_0, zeros(63) + "\x80" + one, map[int]float32{255: 1, -1: -1}},
		{Q2_K, "\x12" + zeros(15) + "\x03" + zeros(63) + one + half, map[int]float32{0: 5.5, -1: 0,
			1: -.5, 2: -.5, 3: -.5, 4: -.5, 5: -.5, 6: -.5, 7: -.5, 8: -.5, 9: -.5, 10: -.5, 11: -.5, 12: -.5, 13: -.5, 14: -.5, 15: -.5}},
		{Q3_K, "\x01" + zeros(31) + "\x03" + zeros(63) + zeros(12) + one, map[int]float32{0: -96, -1: 128}},
		{Q4_K, one + half + "\x02" + zeros(11) + "\x05" + zeros(127), map[int]float32{0: 10, -1: 0}},
		{Q5_K, one + half + "\x02" + zeros(11) + "\x01" + zeros(31) + "\x05" + zeros(127), map[int]float32{0: 42, -1: 0}},
		{Q6_K, "\x01" + zeros(127) + "\x02" + zeros(63) + "\x03" + zeros(15) + one, map[int]float32{0: 3, -1: 0,
			1: -96, 2: -96, 3: -96, 4: -96, 5: -96, 6: -96, 7: -96, 8: -96, 9: -96, 10: -96, 11: -96, 12: -96, 13: -96, 14: -96, 15: -96}},
		{IQ4_NL, half + "\xf7" + zeros(15), map[int]float32{0: -5, 16: 56.5, -1: -63.5}},
		{MXFP4, "\x80\xa7" + zeros(15), map[int]float32{0: 12, 16: -2, -1: 0}},
		{NVFP4, "\x38\x00\x00\x00\xa7" + zeros(31), map[int]float32{0: 6, 8: -1, -1: 0}},
		{IQ2_XXS, one + zeros(64), map[int]float32{-1: 1}},
		{IQ3_XXS, one + zeros(96), map[int]float32{-1: 1}},
		{IQ3_S, one + zeros(108), map[int]float32{-1: 1}},
		{IQ1_S, one + zeros(48), map[int]float32{-1: -0.875}},
	} {
		if len(c.block) != c.f.BlockBytes() {
			t.Fatalf("%v: the test's block has %d bytes", c.f, len(c.block))
		}
		w := make([]float32, c.f.BlockElems())
		Dequantize(c.f, w, []byte(c.block))
		for i, x := range w {
			want, ok := c.want[i]
			if !ok {
				want = c.want[-1]
			}
			if x != want {
				t.Errorf("%v: weight %d is %v, want %v", c.f, i, x, want)
			}
		}
	}
}

// The grids, expanded to a byte a value, have the checksums of the arrays that
// Python's gguf package 0.19 makes of its own tables.
func TestGrids(t *testing.T) {
	for _, c := range []struct {
		f      Type
		n      int
		sha256 string
	}{
		{IQ2_XXS, 256, "05826b5d3e472a3a78f196be62ac78acf81df0f909626e12ab9fa2a5d490dd54"},
		{IQ2_XS, 512, "06e47aaca60b4dc1d9b5a3f34540437058a6b142b4d7a59d5ded769b4d1bf1de"},
		{IQ2_S, 1024, "e1aa1473412b0552c2174c30ef22ab4073f6a181b85a17056e8249bd2932fd88"},
		{IQ3_XXS, 256, "46e35f5a997efdee6c99ce57854c8a0d4f0ff8ca57e5e8a60c0793ea580acf5d"},
		{IQ3_S, 512, "bd1af4945a1717c65610b0284e4628b9a1ba3b306fae3a06f6e5f597356e349f"},
		{IQ1_S, 2048, "07540ffc1aeaf6ad4d97e96b0fcc765aae39671d4ae4a27bbd0e796fde167c6a"},
	} {
		var all []byte
		for i := range c.n {
			for _, x := range pattern(c.f, i) {
				all = append(all, byte(x))
			}
		}
		table, _ := grid(c.f)
		if len(table)/c.n*c.n != len(table) || len(table)/c.n > 3 {
			t.Errorf("%v: %d characters for %d patterns", c.f, len(table), c.n)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(all)); got != c.sha256 {
			t.Errorf("%v: the grid's checksum is %s, want %s", c.f, got, c.sha256)
		}
	}
}

func TestHasMin(t *testing.T) {
	var got []Type
	for _, f := range Types() {
		if HasMin(f) {
			got = append(got, f)
		}
	}
	if want := []Type{Q4_1, Q5_1, Q2_K, Q4_K, Q5_K}; !slices.Equal(got, want) {
		t.Errorf("formats with mins: %v, want %v", got, want)
	}
}

// Our own mistakes are caught, not read past.
func TestBugs(t *testing.T) {
	for name, f := range map[string]func(){
		"half a block":  func() { Dequantize(Q4_0, make([]float32, 16), make([]byte, 9)) },
		"small dst":     func() { Dequantize(Q4_0, make([]float32, 16), make([]byte, 18)) },
		"no min":        func() { Ints(Q4_1, make([]int8, 32), make([]float32, 2), nil, make([]byte, 20)) },
		"few scales":    func() { Ints(Q4_0, make([]int8, 32), make([]float32, 1), nil, make([]byte, 18)) },
		"floats":        func() { Ints(F16, make([]int8, 16), make([]float32, 1), nil, make([]byte, 32)) },
		"unknown":       func() { Dequantize(Type(99), nil, nil) },
		"wrong dst":     func() { _ = Quantize(Q8_0, make([]byte, 33), make([]float32, 32)) },
		"random":        func() { Random(Q8_0, make([]byte, 33), 1, 1) },
		"a row in part": func() { Q4_K.RowBytes(128) },
	} {
		func() {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "BUG: ") {
					t.Errorf("%s: recovered %q", name, s)
				}
			}()
			f()
			t.Errorf("%s: accepted", name)
		}()
	}
}

func TestParse(t *testing.T) {
	for _, f := range Types() {
		if got, err := Parse(strings.ToLower(f.String())); got != f || err != nil {
			t.Errorf("%v: %v, %v", f, got, err)
		}
		if !f.Known() || f.RowBytes(1024*f.BlockElems()) != 1024*f.BlockBytes() {
			t.Errorf("%v: %d weights, %d bytes", f, f.BlockElems(), f.BlockBytes())
		}
	}
	if _, err := Parse("Q9_9"); err == nil {
		t.Error("Q9_9 accepted")
	}
	if got := Type(99); got.Known() || got.String() != "type 99" {
		t.Errorf("type 99: %v", got)
	}
}

// No bytes and no floats make any function panic; and Ints and Dequantize agree
// on all of them.
func FuzzBlocks(f *testing.F) {
	for i, t := range Types() {
		f.Add(uint8(i), randomBlocks(t, 2))
	}
	f.Add(uint8(0), []byte{0, 0, 0x80, 0x7f, 1, 0, 0x80, 0xff, 0xff, 0xff, 0x7f, 0x7f})
	f.Fuzz(func(t *testing.T, k uint8, b []byte) {
		x := make([]float32, (len(b)/4+31)/32*32)
		Dequantize(F32, x[:len(b)/4], b[:len(b)/4*4])
		for _, to := range encoders() {
			packed, back := make([]byte, to.RowBytes(len(x))), make([]float32, len(x))
			if err := Quantize(to, packed, x); err != nil {
				t.Fatal(err)
			}
			Dequantize(to, back, packed)
			for i := range x {
				if math.IsInf(float64(x[i]), 0) || x[i] != x[i] {
					if !math.IsInf(float64(back[i]), 0) && back[i] == back[i] {
						t.Fatalf("%v: %v became %v", to, x[i], back[i])
					}
				}
			}
		}
		from := Types()[int(k)%len(Types())]
		b = b[:len(b)/from.BlockBytes()*from.BlockBytes()]
		if from.BlockElems() > 1 {
			checkInts(t, from, b)
			return
		}
		Dequantize(from, make([]float32, len(b)/from.BlockBytes()), b)
	})
}
