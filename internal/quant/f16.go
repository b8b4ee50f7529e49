package quant

import "math"

// F16ToF32 widens an IEEE 754 half-precision number. It is exact; a signalling
// NaN becomes the quiet one of the same payload.
func F16ToF32(h uint16) float32 {
	b := uint32(h&0x7fff)<<13 + 112<<23 // the exponents' biases are 15 and 127
	if h&0x7c00 == 0 {                  // zero or subnormal: less the 1 that normal numbers have
		b = math.Float32bits(math.Float32frombits(b+1<<23) - 0x1p-14)
	} else if h&0x7c00 == 0x7c00 {
		b += 112 << 23
		if h&0x03ff != 0 {
			b |= 0x00400000
		}
	}
	return math.Float32frombits(b | uint32(h&0x8000)<<16)
}

// F32ToF16 rounds to the nearest half-precision number, ties to even. From
// 65520 on it gives infinity; a NaN stays one, quiet, with the high bits of its
// payload.
func F32ToF16(x float32) uint16 {
	const rebias = 1<<32 - 112<<23 + 0x0fff
	b := math.Float32bits(x)
	m := b & 0x7fffffff
	if m < 0x38800000 { // below 2^-14: the sum's unit is that of the subnormals, so that adding rounds
		m = math.Float32bits(math.Float32frombits(m)+0.5) - 0x3f000000
	} else if m < 0x47800000 { // below 2^16: rebias and round; a carry may end in infinity
		m = (m + m>>13&1 + rebias) >> 13
	} else if m > 0x7f800000 {
		m = m>>13&0x03ff | 0x7e00
	} else {
		m = 0x7c00
	}
	return uint16(b>>16&0x8000 | m)
}

// BF16ToF32 widens a bfloat16 number, the upper half of a float32. It is exact.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// F32ToBF16 rounds to the nearest bfloat16 number, ties to even. Subnormals are
// kept; a NaN stays one, quiet.
func F32ToBF16(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x0040
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}
