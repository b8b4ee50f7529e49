package quant

import (
	"encoding/binary"
	"math/bits"
)

// The I-quants: 256 weights a block, eight (four) at a time a pattern of a grid
// (iqtables.go), with signs apart; groups of 32 or 16 with a scale of a few bits
// times the block's f16 d.

// grid8 is pattern i of a grid of eights, each magnitude by its number.
func grid8(table string, i int) uint64 {
	e := table[3*i : 3*i+3]
	return spread2(uint64(e[0]-' ') | uint64(e[1]-' ')<<6 | uint64(e[2]-' ')<<12)
}

// grid44 is patterns i and j of a grid of fours, each magnitude by its number.
func grid44(table string, i, j int) uint64 {
	a, b := table[2*i:2*i+2], table[2*j:2*j+2]
	return spread3(uint64(a[0]-' ') | uint64(a[1]-' ')<<6 | uint64(b[0]-' ')<<12 | uint64(b[1]-' ')<<18)
}

// The magnitudes by their numbers: 8, 25, 43; 4, 12, ... 52, 62; 1, 3, ... 15.
func magnitudes2(n uint64) uint64    { return 8*ones + 17*n + n>>1&ones }
func magnitudes3xxs(n uint64) uint64 { return 4*ones + 8*n + (n&(n>>1)&(n>>2)&ones)<<1 }
func magnitudes3s(n uint64) uint64   { return ones + 2*n }

// signs7 completes seven signs with an eighth that makes their number even.
func signs7(x uint32) byte {
	x &= 127
	return byte(x | uint32(bits.OnesCount32(x)&1)<<7)
}

// unpackIQ2_XXS: d, then for each group of 32 four grid indices[4] and a uint32
// with four times seven signs and, on top, the scale s; w = d*(s+1/2)/4*grid.
func unpackIQ2_XXS(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 66; src, q, scale = src[66:], q[256:], scale[16:] {
		d := half(src)
		for g := 0; g < 8; g++ {
			index, signs := src[2+8*g:6+8*g], binary.LittleEndian.Uint32(src[6+8*g:])
			s := d * (0.5 + float32(signs>>28)) * 0.25
			scale[2*g], scale[2*g+1] = s, s
			for j, i := range index {
				store(q[32*g+8*j:], negate(magnitudes2(grid8(iq2xxsGrid, int(i))), signs7(signs>>(7*j))))
			}
		}
	}
}

// unpackIQ2_XS: d, uint16[32] with nine bits of grid index and seven signs,
// scales[8] of two nibbles s for groups of 16; w = d*(s+1/2)/4*grid.
func unpackIQ2_XS(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 74; src, q, scale = src[74:], q[256:], scale[16:] {
		scales2(scale[:16], half(src), src[66:74])
		for j := 0; j < 32; j++ {
			x := binary.LittleEndian.Uint16(src[2+2*j:])
			store(q[8*j:], negate(magnitudes2(grid8(iq2xsGrid, int(x&511))), signs7(uint32(x>>9))))
		}
	}
}

// unpackIQ2_S: d, low bytes of grid indices[32], signs[32], high bits of indices[8]
// (bits 2k of byte g: index 4g+k), scales[8] as in IQ2_XS.
func unpackIQ2_S(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 82; src, q, scale = src[82:], q[256:], scale[16:] {
		scales2(scale[:16], half(src), src[74:82])
		for j := 0; j < 32; j++ {
			i := int(src[2+j]) | int(src[66+j/4]>>(2*(j%4))&3)<<8
			store(q[8*j:], negate(magnitudes2(grid8(iq2sGrid, i)), src[34+j]))
		}
	}
}

// scales2 reads the scales of IQ2_XS and IQ2_S.
func scales2(scale []float32, d float32, src []byte) {
	for g, s := range src {
		scale[2*g] = d * (0.5 + float32(s&15)) * 0.25
		scale[2*g+1] = d * (0.5 + float32(s>>4)) * 0.25
	}
}

// unpackIQ3_XXS: d, grid indices[64], then for each group of 32 a uint32 with four
// times seven signs and, on top, the scale s; w = d*(s+1/2)/2*grid.
func unpackIQ3_XXS(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 98; src, q, scale = src[98:], q[256:], scale[16:] {
		d := half(src)
		for g := 0; g < 8; g++ {
			index, signs := src[2+8*g:10+8*g], binary.LittleEndian.Uint32(src[66+4*g:])
			s := d * (0.5 + float32(signs>>28)) * 0.5
			scale[2*g], scale[2*g+1] = s, s
			for j := 0; j < 4; j++ {
				x := magnitudes3xxs(grid44(iq3xxsGrid, int(index[2*j]), int(index[2*j+1])))
				store(q[32*g+8*j:], negate(x, signs7(signs>>(7*j))))
			}
		}
	}
}

// unpackIQ3_S: d, low bytes of grid indices[64], their ninth bits[8], signs[32],
// scales[4] of two nibbles s for groups of 32; w = d*(2s+1)*grid.
func unpackIQ3_S(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 110; src, q, scale = src[110:], q[256:], scale[16:] {
		d := half(src)
		for g := 0; g < 8; g++ {
			s := d * float32(1+2*int(src[106+g/2]>>(4*(g%2))&15))
			scale[2*g], scale[2*g+1] = s, s
			index, ninth := src[2+8*g:10+8*g], int(src[66+g])<<8
			for j := 0; j < 4; j++ {
				a := int(index[2*j]) | ninth>>(2*j)&256
				b := int(index[2*j+1]) | ninth>>(2*j+1)&256
				store(q[32*g+8*j:], negate(magnitudes3s(grid44(iq3sGrid, a, b)), src[74+4*g+j]))
			}
		}
	}
}

// The 1-bit formats have w = d*(2s+1)*(grid ± 1/8), for which we write
// d*(2s+1)/8 * (8*grid ± 1). eighths is 8*grid - 1 if minus1, else 8*grid + 1.
func eighths(grid uint64, minus1 bool) uint64 {
	if minus1 {
		return minus(8*grid, 9) // grid counts from 0 for -1
	}
	return minus(8*grid, 7)
}

// unpackIQ1_S: d, low bytes of grid indices[32], then for each group of 32 a
// uint16 with four times three high bits of the indices, the scale s of three
// bits, and the sign of the eighth on top.
func unpackIQ1_S(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 50; src, q, scale = src[50:], q[256:], scale[16:] {
		d := half(src)
		for g := 0; g < 8; g++ {
			h := int(binary.LittleEndian.Uint16(src[34+2*g:]))
			s := d * float32(2*(h>>12&7)+1) * 0.125
			scale[2*g], scale[2*g+1] = s, s
			for j, low := range src[2+4*g : 6+4*g] {
				i := int(low) | h>>(3*j)&7<<8
				store(q[32*g+8*j:], eighths(grid8(iq1sGrid, i), h&0x8000 != 0))
			}
		}
	}
}

// unpackIQ1_M: low bytes of grid indices[32], nibbles[16*2] of three high bits and
// the sign of the eighth, scales (uint16[4]) of four times three bits s for groups
// of 16, with a nibble of d, lowest first, on top of each.
func unpackIQ1_M(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 56; src, q, scale = src[56:], q[256:], scale[16:] {
		scales := load(src[48:])
		d := F16ToF32(uint16(scales>>12&0x000f | scales>>24&0x00f0 | scales>>36&0x0f00 | scales>>48&0xf000))
		for g := 0; g < 16; g++ {
			s := scales >> (g/4*16 + g%4*3) & 7
			scale[g] = d * float32(2*s+1) * 0.125
			h := int(src[32+g])
			store(q[16*g:], eighths(grid8(iq1sGrid, int(src[2*g])|h&0x07<<8), h&0x08 != 0))
			store(q[16*g+8:], eighths(grid8(iq1sGrid, int(src[2*g+1])|h&0x70<<4), h&0x80 != 0))
		}
	}
}
