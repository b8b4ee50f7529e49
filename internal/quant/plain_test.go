package quant

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// plain is the definition of the formats for tests: weight i of block b is
// s*q + m. It is written weight by weight, from the layouts, without care for
// speed, and shares nothing with the package but F16ToF32 and the tables.
func plain(f Type, b []byte, i int) (s float32, q int, m float32) {
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	f16 := func(at int) float32 { return F16ToF32(binary.LittleEndian.Uint16(b[at:])) }
	nib := func(at int) int { return int(b[at+i%16]>>(i/16*4)) & 15 }               // of 32 weights
	bit := func(at int) int { return int(b[at+i/8]>>(i%8)) & 1 }                    // one after another
	two := func(at int) int { return int(b[at+i/4]>>(i%4*2)) & 3 }                  // one after another
	scale4 := func(at, k int) int { return int(b[at+k/2]>>(k%2*4)) & 15 }           // nibbles one after another
	crumb := func(at int) int { return int(b[at+i/128*32+i%32]>>(i%128/32*2)) & 3 } // two bits, 4 rows of 32 to a half
	switch f {
	case Q4_0:
		return f16(0), nib(2) - 8, 0
	case Q4_1:
		return f16(0), nib(4), f16(2)
	case Q5_0:
		return f16(0), nib(6) + 16*bit(2) - 16, 0
	case Q5_1:
		return f16(0), nib(8) + 16*bit(4), f16(2)
	case Q8_0:
		return f16(0), int(int8(b[2+i])), 0
	case Q1_0:
		return f16(0), 2*bit(2) - 1, 0
	case Q2_0:
		return f16(0), two(2) - 1, 0
	case TQ1_0:
		at, k := i%32, i/32
		if i >= 240 {
			at, k = 48+i%4, (i-240)/4
		} else if i >= 160 {
			at, k = 32+i%16, (i-160)/16
		}
		pow := [5]byte{1, 3, 9, 27, 81}[k]
		return f16(52), int(b[at]*pow)*3>>8 - 1, 0
	case TQ2_0:
		return f16(64), crumb(0) - 1, 0
	case Q2_K:
		k := b[i/16]
		return f16(80) * float32(k&15), crumb(16), -(f16(82) * float32(k>>4))
	case Q3_K:
		g := i / 16
		k := int(b[96+g%8]>>(g/8*4))&15 | int(b[104+g%4]>>(g/4*2))&3<<4
		return f16(108) * float32(k-32), crumb(32) + 4*(int(b[i%32]>>(i/32))&1) - 4, 0
	case Q4_K, Q5_K:
		g, c := i/32, b[4:16]
		k, n := int(c[g%4]&63), int(c[g%4+4]&63)
		if g >= 4 {
			k = int(c[g+4]&15) | int(c[g-4]>>6)<<4
			n = int(c[g+4]>>4) | int(c[g]>>6)<<4
		}
		s, m = f16(0)*float32(k), -(f16(2) * float32(n))
		if f == Q4_K {
			return s, int(b[16+i/64*32+i%32]>>(g%2*4)) & 15, m
		}
		return s, int(b[48+i/64*32+i%32]>>(g%2*4))&15 + 16*(int(b[16+i%32]>>g)&1), m
	case Q6_K:
		r := i % 128 / 32
		low := int(b[i/128*64+r%2*32+i%32]>>(r/2*4)) & 15
		return f16(208) * float32(int8(b[192+i/16])), low + 16*crumb(128) - 32, 0
	case IQ4_NL:
		return f16(0), plainIQ4[nib(2)], 0
	case IQ4_XS:
		g := i / 32
		k := scale4(4, g) + 16*(u16(2)>>(2*g)&3)
		return f16(0) * float32(k-32), plainIQ4[int(b[8+16*g+i%16]>>(i%32/16*4))&15], 0
	case MXFP4:
		return float32(math.Ldexp(1, int(b[0])-128)), plainFP4[nib(1)], 0
	case NVFP4:
		g := i / 16
		return plainE4M3(b[g]) / 2, plainFP4[int(b[4+8*g+i%8]>>(i%16/8*4))&15], 0
	}
	return plainGrid(f, b, i)
}

var (
	plainIQ4 = [16]int{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	plainFP4 = [16]int{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
)

func plainE4M3(x byte) float32 {
	e, m := int(x>>3&15), float64(x&7)
	if x == 0x7f {
		return 0
	}
	if e == 0 {
		return float32(math.Ldexp(m/8, -6))
	}
	return float32(math.Ldexp(1+m/8, e-7))
}

// plainGrid is plain for the formats of grids.
func plainGrid(f Type, b []byte, i int) (s float32, q int, m float32) {
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	d := F16ToF32(uint16(u16(0)))
	g, e, l := i/32, i/8, i%8 // group, eighth, place in it
	sign := func(bits int) int { return 1 - 2*(bits>>l&1) }
	seven := func(word int) int { // the seven signs of the eighth and their parity
		x := word >> (7 * (e % 4)) & 127
		return x | bits.OnesCount(uint(x))%2<<7
	}
	switch f {
	case IQ2_XXS:
		w := u32(6 + 8*g)
		return d * (float32(w>>28) + 0.5) / 4, sign(seven(w)) * pattern(f, int(b[2+8*g+e%4]))[l], 0
	case IQ2_XS:
		x := u16(2 + 2*e)
		return d * (float32(b[66+g]>>(i%32/16*4)&15) + 0.5) / 4,
			sign(x>>9|bits.OnesCount(uint(x>>9))%2<<7) * pattern(f, x&511)[l], 0
	case IQ2_S:
		x := int(b[2+e]) + 256*(int(b[66+g]>>(e%4*2))&3)
		return d * (float32(b[74+g]>>(i%32/16*4)&15) + 0.5) / 4, sign(int(b[34+e])) * pattern(f, x)[l], 0
	case IQ3_XXS:
		w := u32(66 + 4*g)
		return d * (float32(w>>28) + 0.5) / 2, sign(seven(w)) * pattern(f, int(b[2+i/4]))[i%4], 0
	case IQ3_S:
		x := int(b[2+i/4]) + 256*(int(b[66+g]>>(i%32/4))&1)
		return d * float32(1+2*(b[106+g/2]>>(g%2*4)&15)), sign(int(b[74+e])) * pattern(f, x)[i%4], 0
	case IQ1_S:
		w := u16(34 + 2*g)
		q = 8*pattern(f, int(b[2+e])+256*(w>>(e%4*3)&7))[l] + 1 - 2*(w>>15)
		return d * float32(2*(w>>12&7)+1) / 8, q, 0
	case IQ1_M:
		var h uint16
		for k := 0; k < 4; k++ {
			h |= uint16(b[49+2*k]>>4) << (4 * k)
		}
		k := u16(48+i/64*2) >> (i % 64 / 16 * 3) & 7
		w := int(b[32+i/16] >> (e % 2 * 4))
		q = 8*pattern(f, int(b[e])+256*(w&7))[l] + 1 - 2*(w>>3&1)
		return F16ToF32(h) * float32(2*k+1) / 8, q, 0
	}
	panic("no definition of " + f.String())
}

// pattern decodes pattern i of the format's grid.
func pattern(f Type, i int) []int {
	table, values := grid(f)
	bits, n := 2, 8
	if len(values) == 8 {
		bits, n = 3, 4
	}
	code := 0
	for k := (bits*n+5)/6 - 1; k >= 0; k-- {
		code = code<<6 | int(table[i*((bits*n+5)/6)+k]-' ')
	}
	p := make([]int, n)
	for j := range p {
		p[j] = values[code>>(bits*j)&(1<<bits-1)]
	}
	return p
}

// grid is the format's table and the magnitudes it counts.
func grid(f Type) (table string, values []int) {
	switch f {
	case IQ2_XXS:
		return iq2xxsGrid, []int{8, 25, 43}
	case IQ2_XS:
		return iq2xsGrid, []int{8, 25, 43}
	case IQ2_S:
		return iq2sGrid, []int{8, 25, 43}
	case IQ1_S, IQ1_M:
		return iq1sGrid, []int{-1, 0, 1}
	case IQ3_XXS:
		return iq3xxsGrid, []int{4, 12, 20, 28, 36, 44, 52, 62}
	}
	return iq3sGrid, []int{1, 3, 5, 7, 9, 11, 13, 15}
}
