package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// quantize writes the kernel that makes one row of an activation record, a
// block at a time. Magnitudes are compared as integers, so that a NaN is the
// largest of all and makes the scale a NaN.
func (s set) quantize() {
	s.text("quantize", "dst *byte, x *float32, n, T, t, step int", "quantizeGeneric, to the bit.")
	dst, x, n, stride, t := arg("dst"), arg("x"), arg("n"), arg("T"), arg("t")
	LEAQ(mem(dst, 0).Idx(t, 4), dst)
	step := arg("step")
	SHLQ(U8(2), stride)
	out := columns{at: [4]Register{dst, GP64(), GP64(), GP64()}, stride: stride, stride3: times(stride, 3)}
	quantizer := s.quantizer()
	loop("block", n, func() {
		v, scale := quantizer.integers(x)
		q, upper := s.int8s(v), XMM()
		sums, negative, floats := quantizer.sums(q), XMM(), XMM()
		VPXOR(negative, negative, negative)
		VPSUBD(sums, negative, negative)
		VPSLLD(U8(7), negative, negative)
		VCVTDQ2PS(sums, floats)
		factors := XMM()
		VBROADCASTSS(scale, factors)
		VMULPS(factors, floats, floats)
		VEXTRACTI128(U8(1), q, upper)
		out.move()
		for i := range 4 {
			VPEXTRD(U8(uint8(i)), q.AsX(), out.dword(i))
			VPEXTRD(U8(uint8(i)), upper, out.dword(4+i))
		}
		for i := range 3 {
			VPEXTRD(U8(uint8(i)), negative, out.dword(8+i))
			VPEXTRD(U8(uint8(i)), floats, out.dword(12+i))
		}
		VMOVSS(scale, out.dword(11))
		ADDQ(step, dst)
		ADDQ(num(128), x)
	})
	s.end()
}

// quantizer holds the constants of integers.
type quantizer struct {
	*scaler
	magnitude     Op
	ones8, ones16 Op
}

func (s set) quantizer() *quantizer {
	q := &quantizer{magnitude: s.constant(0x7fffffff), ones8: s.ymm(0x01010101), ones16: s.ymm(0x00010001)}
	q.scaler = s.scaler(127)
	return q
}

// integers makes those of the block at x, and their scale.
func (s *quantizer) integers(x Register) (v []VecVirtual, scale VecVirtual) {
	v = make([]VecVirtual, 32/s.lanes())
	var most VecVirtual
	for i := range v {
		v[i] = s.vec()
		VMOVUPS(mem(x, i*s.bytes()), v[i])
		m := s.vec()
		s.and(s.magnitude, v[i], m)
		if most == nil {
			most = m
		} else {
			VPMAXSD(m, most, most)
		}
	}
	factor, scale := s.of(most)
	for _, v := range v {
		VMULPS(factor, v, v)
		VCVTPS2DQ(v, v)
	}
	return v, scale
}

// scaler makes integers' scales: the largest value becomes top.
type scaler struct {
	set
	least, top VecVirtual
}

func (s set) scaler(top float32) *scaler {
	c := &scaler{set: s, least: XMM(), top: XMM()}
	scalar(math.Float32bits(0x1p-100)-1, c.least)
	scalar(math.Float32bits(top), c.top)
	return c
}

// of is what values are multiplied by, in every lane, and their scale, by the largest in the lanes of most: both 0 where
// that is tiny.
func (s *scaler) of(most VecVirtual) (factor, scale VecVirtual) {
	s.fold(most, maxInts)
	largest, inverse, mask := most.AsX(), XMM(), XMM()
	VPCMPGTD(s.least, largest, mask)
	VPAND(mask, largest, largest)
	VDIVSS(largest, s.top, inverse)
	VPAND(mask, inverse, inverse)
	scale = XMM()
	VDIVSS(s.top, largest, scale)
	factor = s.vec()
	VBROADCASTSS(inverse, factor)
	return factor, scale
}

// sums is dwords: the sum of 32 int8, of the first 16, of the last.
func (s *quantizer) sums(q VecVirtual) VecVirtual {
	sum, upper := YMM(), XMM()
	VPMADDUBSW(q, s.ones8, sum)
	VPMADDWD(s.ones16, sum, sum)
	VPHADDD(sum, sum, sum)
	VPHADDD(sum, sum, sum) // of the first 16 in the lower half, of the last 16 in the upper
	VEXTRACTI128(U8(1), sum, upper)
	sums := XMM()
	VPADDD(upper, sum.AsX(), sums)
	VPBLENDD(U8(0b1010), sum.AsX(), sums, sums)
	VPBLENDD(U8(0b0100), upper, sums, sums)
	return sums
}

// ymm is constant(v) for instructions of 256 bits, as a register.
func (s set) ymm(v uint32) Op {
	if s.wide() {
		return s.dword(v).AsY()
	}
	return s.dword(v)
}

func scalar(v uint32, to Register) {
	r := GP32()
	MOVL(U32(v), r)
	VMOVD(r, to)
}

// columns are the dwords of one row in an activation record, stride bytes apart.
type columns struct {
	at              [4]Register // of dwords 0, 4, 8 and 12
	stride, stride3 Register
}

// move follows at[0].
func (c *columns) move() {
	LEAQ(mem(c.at[0], 0).Idx(c.stride, 4), c.at[1])
	LEAQ(mem(c.at[0], 0).Idx(c.stride, 8), c.at[2])
	LEAQ(mem(c.at[1], 0).Idx(c.stride, 8), c.at[3])
}

func (c *columns) dword(i int) Mem {
	m := mem(c.at[i/4], 0)
	return []Mem{m, m.Idx(c.stride, 1), m.Idx(c.stride, 2), m.Idx(c.stride3, 1)}[i%4]
}

// int8s packs 32 integers.
func (s set) int8s(v []VecVirtual) VecVirtual {
	q := YMM()
	if s.wide() {
		upper := XMM()
		VPMOVSDB(v[0], q.AsX())
		VPMOVSDB(v[1], upper)
		VINSERTI128(U8(1), upper, q, q)
		return q
	}
	order := YMM()
	VPACKSSDW(v[1], v[0], v[0])
	VPACKSSDW(v[3], v[2], v[2])
	VPACKSSWB(v[2], v[0], v[0])
	VMOVDQU(data("unpacked"), order)
	VPERMD(v[0], order, q)
	return q
}
