package quant

import "math"

// The formats of four bits an index into a table. Byte j of a group of 2n
// weights has weight j in its low and weight j+n in its high nibble.

// iq4nlValues is the table of IQ4_NL and IQ4_XS as int8: -127, -104, -83, -65,
// -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.
const iq4nlValues = "\x81\x98\xad\xbf\xcf\xdd\xea\xf6\x01\x0d\x19\x26\x35\x45\x59\x71"

// e2m1Values is twice the values of the OCP microscaling format E2M1 (sign, two
// bits of exponent, one of mantissa) as int8: 0, 1, 2, 3, 4, 6, 8, 12 and their
// negatives.
const e2m1Values = "\x00\x01\x02\x03\x04\x06\x08\x0c\x00\xff\xfe\xfd\xfc\xfa\xf8\xf4"

// unpackIQ4_NL: f16 scale d, qs[16] for 32 weights; w = d*table[q].
func unpackIQ4_NL(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 18; src, q, scale = src[18:], q[32:], scale[2:] {
		d := half(src)
		scale[0], scale[1] = d, d
		lookup16(q, iq4nlValues, src[2:18])
	}
}

// unpackIQ4_XS: f16 scale d, high bits of scales (uint16), their low
// nibbles[4], qs[128] for 256 weights in groups of 32; w = d*(s-32)*table[q].
func unpackIQ4_XS(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 136; src, q, scale = src[136:], q[256:], scale[16:] {
		d, high := half(src), uint(src[2])|uint(src[3])<<8
		for g := 0; g < 8; g++ {
			s := int(src[4+g/2]>>(4*(g%2))&15) | int(high>>(2*g)&3)<<4
			scale[2*g] = d * float32(s-32)
			scale[2*g+1] = scale[2*g]
			lookup16(q[32*g:], iq4nlValues, src[8+16*g:24+16*g])
		}
	}
}

// unpackMXFP4: scale byte e, qs[16] for 32 weights; w = 2^(e-128)*table[q].
func unpackMXFP4(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 17; src, q, scale = src[17:], q[32:], scale[2:] {
		d := e8m0Half(src[0])
		scale[0], scale[1] = d, d
		lookup16(q, e2m1Values, src[1:17])
	}
}

// unpackNVFP4: scale bytes[4], qs[32] for 64 weights in groups of 16.
func unpackNVFP4(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 36; src, q, scale = src[36:], q[64:], scale[4:] {
		for g := 0; g < 4; g++ {
			scale[g] = e4m3Half(src[g])
			for j, x := range src[4+8*g : 12+8*g] {
				q[16*g+j] = e2m1Values[x&15]
				q[16*g+8+j] = e2m1Values[x>>4]
			}
		}
	}
}

// lookup16 writes the table's values of the 32 nibbles of qs[16].
func lookup16(q []byte, table string, qs []byte) {
	q, table, qs = q[:32], table[:16], qs[:16]
	for j, x := range qs {
		q[j] = table[x&15]
		q[16+j] = table[x>>4]
	}
}

// e8m0Half is half of the OCP microscaling scale E8M0, 2^(e-127). ggml gives 255
// the value that its exponent has, not NaN.
func e8m0Half(e byte) float32 {
	if e < 2 { // subnormal in float32
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// e4m3Half is half of the scale of NVFP4: four bits of exponent with bias 7,
// three of mantissa, the sign ignored. ggml gives 0x7f, a NaN in the
// specification, the value 0, and 0xff the value that its bits have.
func e4m3Half(x byte) float32 {
	e, m := uint32(x>>3&15), uint32(x&7)
	switch {
	case x == 0x7f:
		return 0
	case e == 0:
		return float32(m) * 0x1p-10
	}
	return math.Float32frombits((e+119)<<23 | m<<20)
}
