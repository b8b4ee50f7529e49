package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Quantize writes weights in format t, as ggml's reference encoders do, byte
// for byte. len(dst) is t.RowBytes(len(src)). It knows F32, F16, BF16, Q8_0,
// Q4_0, Q4_1, Q5_0 and Q5_1; any other format is an error.
//
// Where ggml leaves the result undefined: a block that holds a NaN or an
// infinity has no finite weight left, nor has one too large for its f16 scale.
func Quantize(t Type, dst []byte, src []float32) error {
	switch t {
	case F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1:
	default:
		return fmt.Errorf("cannot write weights as %v: choose F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1", t)
	}
	if len(dst) != t.RowBytes(len(src)) {
		panic(fmt.Sprintf("BUG: %d bytes for %d weights of %v", len(dst), len(src), t))
	}
	switch t {
	case F32, F16, BF16:
		packFloats(t, dst, src)
	case Q8_0:
		packQ8_0(dst, src)
	case Q4_0, Q5_0:
		packSigned(dst, src, t == Q5_0)
	case Q4_1, Q5_1:
		packMin(dst, src, t == Q5_1)
	}
	return nil
}

// packFloats is the formats without blocks.
func packFloats(t Type, dst []byte, src []float32) {
	switch t {
	case F32:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
	case F16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(x))
		}
	case BF16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(x))
		}
	}
}

// packQ8_0 scales so that the largest magnitude is 127, and rounds half away
// from zero.
func packQ8_0(dst []byte, src []float32) {
	for ; len(src) >= 32; src, dst = src[32:], dst[34:] {
		var most uint32 // bits of magnitudes have the order of magnitudes, then infinity, then NaNs
		for _, x := range src[:32] {
			most = max(most, math.Float32bits(x)&0x7fffffff)
		}
		d := math.Float32frombits(most) / 127
		inverse := reciprocal(d)
		putHalf(dst, d)
		for i, x := range src[:32] {
			y := float64(float32(x * inverse)) // in float64, y ± 0.5 is exact
			dst[2+i] = byte(int8(truncate(y+math.Copysign(0.5, y), 127)))
		}
	}
}

// packSigned is Q4_0 and, with five bits, Q5_0: the weight of largest magnitude
// (the first of equals) becomes the lowest integer, -8 or -16.
func packSigned(dst []byte, src []float32, five bool) {
	bits, qs := 4, 2
	if five {
		bits, qs = 5, 6
	}
	zero := float32(int(1) << (bits - 1))
	for ; len(src) >= 32; src, dst = src[32:], dst[qs+16:] {
		var most uint32
		var signed float32
		for _, x := range src[:32] {
			if a := math.Float32bits(x) & 0x7fffffff; a > most {
				most, signed = a, x
			}
		}
		d := signed / -zero
		inverse := reciprocal(d)
		putHalf(dst, d)
		var high uint32
		for j := 0; j < 16; j++ {
			a := pick(float32(src[j]*inverse)+(zero+0.5), bits)
			b := pick(float32(src[16+j]*inverse)+(zero+0.5), bits)
			dst[qs+j] = byte(a&15 | b<<4)
			high |= a>>4<<j | b>>4<<(16+j)
		}
		if five {
			binary.LittleEndian.PutUint32(dst[2:], high)
		}
	}
}

// packMin is Q4_1 and, with five bits, Q5_1: the least weight becomes 0, the
// greatest 15 or 31.
func packMin(dst []byte, src []float32, five bool) {
	bits, qs := 4, 4
	if five {
		bits, qs = 5, 8
	}
	top := float32(int(1)<<bits - 1)
	for ; len(src) >= 32; src, dst = src[32:], dst[qs+16:] {
		least, greatest := src[0], src[0]
		for _, x := range src[1:32] { // not min and max, which choose between 0 and -0
			if x < least || x != x {
				least = x
			}
			if x > greatest || x != x {
				greatest = x
			}
		}
		d := (greatest - least) / top
		inverse := reciprocal(d)
		putHalf(dst, d)
		putHalf(dst[2:], least)
		var high uint32
		for j := 0; j < 16; j++ {
			a := pick(float32((src[j]-least)*inverse)+0.5, bits)
			b := pick(float32((src[16+j]-least)*inverse)+0.5, bits)
			dst[qs+j] = byte(a&15 | b<<4)
			high |= a>>4<<j | b>>4<<(16+j)
		}
		if five {
			binary.LittleEndian.PutUint32(dst[4:], high)
		}
	}
}

func reciprocal(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// pick truncates x to an integer of some bits; NaN gives 0.
func pick(x float32, bits int) uint32 {
	return uint32(max(0, truncate(float64(x), 1<<bits-1)))
}

// truncate cuts x to an integer of magnitude up to limit; NaN gives 0. Go leaves
// it to the platform what an integer out of range becomes.
func truncate(x float64, limit int) int {
	switch l := float64(limit); {
	case x >= l:
		return limit
	case x <= -l:
		return -limit
	case x != x:
		return 0
	}
	return int(x)
}

func putHalf(dst []byte, x float32) { binary.LittleEndian.PutUint16(dst, F32ToF16(x)) }
