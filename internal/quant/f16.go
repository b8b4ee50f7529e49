package quant

import "math"

// F16ToF32 widens an IEEE 754 half-precision number. It is exact; a signalling
// NaN becomes the quiet one of the same payload.
func F16ToF32(h uint16) float32 {
	if h&0x7fff-0x0400 < 0x7800 { // normal: rebias the exponent from 15 to 127
		return math.Float32frombits(uint32(h&0x8000)<<16 | (uint32(h&0x7fff)<<13 + 112<<23))
	}
	return f16Special(h)
}

// f16Special widens zeros, subnormals, infinities and NaNs.
func f16Special(h uint16) float32 {
	sign, m := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	switch {
	case m < 0x0400:
		return math.Float32frombits(sign | math.Float32bits(float32(m)*0x1p-24))
	case m == 0x7c00:
		return math.Float32frombits(sign | 0x7f800000)
	}
	return math.Float32frombits(sign | 0x7fc00000 | m<<13)
}

// F32ToF16 rounds to the nearest half-precision number, ties to even. From
// 65520 on it gives infinity; a NaN stays one, quiet, with the high bits of its
// payload.
func F32ToF16(x float32) uint16 {
	b := math.Float32bits(x)
	sign, m := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case m-0x38800000 < 0x0f000000: // 2^-14 <= |x| < 2^16: rebias, round; a carry may end in infinity
		m -= 112 << 23
		return sign | uint16((m+0x0fff+m>>13&1)>>13)
	case m < 0x38800000: // the sum's unit is 2^-24, that of the subnormals: the addition rounds
		return sign | uint16(math.Float32bits(math.Float32frombits(m)+0.5)-0x3f000000)
	case m > 0x7f800000:
		return sign | 0x7e00 | uint16(m>>13&0x01ff)
	}
	return sign | 0x7c00
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
