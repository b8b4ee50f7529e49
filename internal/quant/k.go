package quant

import "encoding/binary"

// The K-quants: 256 weights a block in groups of 16 or 32, whose scales (and
// mins) are small integers times the block's f16 d (and dmin).

// unpackQ2_K: scales[16] (scale s in the low nibble, min m in the high one),
// qs[64], d, dmin; groups of 16; w = d*s*q - dmin*m. Bits 2k of byte j of each
// half of 32 bytes are weight 32k+j of that half.
func unpackQ2_K(q []byte, scale, min []float32, src []byte) {
	for ; len(src) >= 84; src, q, scale, min = src[84:], q[256:], scale[16:], min[16:] {
		d, dmin := half(src[80:]), half(src[82:])
		for g, s := range src[:16] {
			scale[g] = d * float32(s&15)
			min[g] = -(dmin * float32(s>>4))
		}
		for j := 0; j < 64; j += 8 {
			x := load(src[16+j:])
			for k := 0; k < 4; k++ {
				store(q[j/32*128+32*k+j%32:], x>>(2*k)&(3*ones))
			}
		}
	}
}

// unpackQ3_K: hmask[32], qs[64], scales[12], d; groups of 16; w = d*(s-32)*(q-4).
// The low two bits lie as in Q2_K; the third of weight 32k+j is bit k of hmask[j].
// Scales have their low nibbles in bytes 0-7 (low nibble: group j, high: j+8) and
// their high two bits in bytes 8-11 (bits 2k of byte 8+j: group 4k+j).
func unpackQ3_K(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 110; src, q, scale = src[110:], q[256:], scale[16:] {
		d := half(src[108:])
		low, high := load(src[96:]), uint64(binary.LittleEndian.Uint32(src[104:]))
		high |= high << 30 // lanes 0-3 and 4-7: bits 2k of groups 4k.. and 4k+4..
		lo := minus(low&nibbles|high<<4&(0x30*ones), 32)
		hi := minus(low>>4&nibbles|high&(0x30*ones), 32)
		for g := 0; g < 8; g++ {
			scale[g] = d * float32(int8(lo>>(8*g)))
			scale[8+g] = d * float32(int8(hi>>(8*g)))
		}
		for j := 0; j < 64; j += 8 {
			x, h := load(src[32+j:]), load(src[j%32:])>>(j/32*4)
			for k := 0; k < 4; k++ {
				store(q[j/32*128+32*k+j%32:], minus(x>>(2*k)&(3*ones)|h>>k&ones<<2, 4))
			}
		}
	}
}

// unpackQ4_K: d, dmin, scales[12], qs[128]; groups of 32; w = d*s*q - dmin*m.
// Byte j of each 32 bytes has weight j of a group in its low nibble and weight j
// of the next group in its high one.
func unpackQ4_K(q []byte, scale, min []float32, src []byte) {
	for ; len(src) >= 144; src, q, scale, min = src[144:], q[256:], scale[16:], min[16:] {
		scales45(scale[:16], min[:16], src)
		for j := 0; j < 128; j += 8 {
			x := load(src[16+j:])
			at := q[j/32*64+j%32:]
			store(at, x&nibbles)
			store(at[32:], x>>4&nibbles)
		}
	}
}

// unpackQ5_K: d, dmin, scales[12], qh[32], qs[128]: Q4_K with a fifth bit; that
// of weight j of group g is bit g of qh[j].
func unpackQ5_K(q []byte, scale, min []float32, src []byte) {
	for ; len(src) >= 176; src, q, scale, min = src[176:], q[256:], scale[16:], min[16:] {
		scales45(scale[:16], min[:16], src)
		for j := 0; j < 128; j += 8 {
			x, h := load(src[48+j:]), load(src[16+j%32:])>>(j/32*2)
			at := q[j/32*64+j%32:]
			store(at, x&nibbles|h&ones<<4)
			store(at[32:], x>>4&nibbles|h>>1&ones<<4)
		}
	}
}

// scales45 reads the head of a Q4_K or Q5_K block: d, dmin, then eight scales
// and eight mins of six bits. Bytes 0-3 are scales 0-3, with the high two bits of
// scales 4-7 on top; bytes 4-7 the same of mins; bytes 8-11 the low nibbles of
// scales 4-7 (low) and mins 4-7 (high).
func scales45(scale, min []float32, src []byte) {
	d, dmin := half(src), half(src[2:])
	a := binary.LittleEndian.Uint32(src[4:])
	b := binary.LittleEndian.Uint32(src[8:])
	c := binary.LittleEndian.Uint32(src[12:])
	s := uint64(a&0x3f3f3f3f) | uint64(c&0x0f0f0f0f|a>>2&0x30303030)<<32
	m := uint64(b&0x3f3f3f3f) | uint64(c>>4&0x0f0f0f0f|b>>2&0x30303030)<<32
	for g := 0; g < 16; g += 2 {
		ds, dm := d*float32(byte(s)), -(dmin * float32(byte(m)))
		scale[g], scale[g+1], min[g], min[g+1] = ds, ds, dm, dm
		s, m = s>>8, m>>8
	}
}

// unpackQ6_K: low nibbles[128], high two bits[64], int8 scales[16], d; groups of
// 16; w = d*s*(q-32). In each half, weight 32k+j has its nibble in byte
// 32*(k%2)+j (high for k >= 2) and its high bits at 2k of byte j.
func unpackQ6_K(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 210; src, q, scale = src[210:], q[256:], scale[16:] {
		d := half(src[208:])
		for g, s := range src[192:208] {
			scale[g] = d * float32(int8(s))
		}
		for j := 0; j < 64; j += 8 {
			low, at := src[j/32*64+j%32:], q[j/32*128+j%32:]
			a, b, h := load(low), load(low[32:]), load(src[128+j:])
			store(at, minus(a&nibbles|h<<4&(0x30*ones), 32))
			store(at[32:], minus(b&nibbles|h<<2&(0x30*ones), 32))
			store(at[64:], minus(a>>4&nibbles|h&(0x30*ones), 32))
			store(at[96:], minus(b>>4&nibbles|h>>2&(0x30*ones), 32))
		}
	}
}
