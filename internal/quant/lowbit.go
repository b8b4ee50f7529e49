package quant

import "encoding/binary"

// The formats of one and two bits with one f16 scale d. The ternary ones have
// w = d*(q-1) with q of 0, 1, 2 (in TQ2_0 also 3, which no encoder writes).

// unpackTQ2_0: qs[64], d. Bits 2k of byte j of each half of 32 bytes are
// weight 32k+j of that half.
func unpackTQ2_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 66; src, q, scale = src[66:], q[256:], scale[16:] {
		fill(scale[:16], half(src[64:]))
		for j := 0; j < 64; j += 8 {
			x := load(src[j:])
			for k := 0; k < 4; k++ {
				store(q[j/32*128+32*k+j%32:], minus(x>>(2*k)&(3*ones), 1))
			}
		}
	}
}

// unpackTQ1_0: qs[48], qh[4], d. A byte is a fraction of 256 whose digits in
// base 3 are weights: five in each byte of qs, four in each of qh. Digit k of
// the first 32 bytes is weights 32k..32k+31; of the next 16, 160+16k..; of the
// last 4, 240+4k...
func unpackTQ1_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 54; src, q, scale = src[54:], q[256:], scale[16:] {
		fill(scale[:16], half(src[52:]))
		for j := 0; j < 32; j += 8 {
			unpackTrits(q[j:], 32, load(src[j:]))
		}
		for j := 0; j < 16; j += 8 {
			unpackTrits(q[160+j:], 16, load(src[32+j:]))
		}
		for j, x := range src[48:52] {
			for k, f := 0, uint(x); k < 4; k++ {
				q[240+4*k+j] = byte(3*f>>8) - 1
				f = 3 * f & 0xff
			}
		}
	}
}

// unpackTrits writes digit k of the eight fractions in x to q[k*stride:],
// k < 5, less one. Three times a fraction needs ten bits, so even and odd bytes
// go apart in lanes of 16.
func unpackTrits(q []byte, stride int, x uint64) {
	const wide, digits = 0x00ff00ff00ff00ff, 0x0003000300030003
	even, odd := x&wide, x>>8&wide
	for k := 0; k < 5; k++ {
		even, odd = 3*even, 3*odd
		store(q[k*stride:], minus(even>>8&digits|odd&(digits<<8), 1))
		even, odd = even&wide, odd&wide
	}
}

// unpackQ1_0: d, bits[16] for 128 weights, lowest first; w = d or -d.
func unpackQ1_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 18; src, q, scale = src[18:], q[128:], scale[8:] {
		d := half(src)
		for j, x := range src[2:18] {
			scale[j/2] = d
			store(q[8*j:], minus(spread1(x)<<1, 1))
		}
	}
}

// unpackQ2_0: d, qs[16] for 64 weights, two bits each, lowest first; w = d*(q-1).
func unpackQ2_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 18; src, q, scale = src[18:], q[64:], scale[4:] {
		d := half(src)
		scale[0], scale[1], scale[2], scale[3] = d, d, d, d
		for j := 0; j < 8; j++ {
			x := binary.LittleEndian.Uint16(src[2+2*j:])
			store(q[8*j:], minus(spread2(uint64(x)), 1))
		}
	}
}

func fill(s []float32, v float32) {
	for i := range s {
		s[i] = v
	}
}
