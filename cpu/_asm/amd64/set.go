package main

import (
	"fmt"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Flags of textflag.h.
const (
	nosplit = 4
	rodata  = 8 | 16 // RODATA, NOPTR
)

// panelRows is that of package cpu.
const panelRows = 6

// set writes the kernels of one instruction set. A vector of 16 rows is one
// register with AVX-512 and two parts otherwise.
type set struct {
	bits   int
	vnni   bool // has VPDPBUSD
	tiles  bool // AMX: what it adds to AVX-512
	suffix string
}

func (s set) wide() bool { return s.bits == 512 }

// productsOnly says that this set differs from AVX2 in products of quantised
// weights alone.
func (s set) productsOnly() bool { return s.vnni && !s.wide() }

func (s set) bytes() int { return s.bits / 8 }
func (s set) lanes() int { return s.bits / 32 }
func (s set) parts() int { return 512 / s.bits }

// text begins a kernel; doc says what it computes.
func (s set) text(name, signature, doc string) {
	TEXT(name+s.suffix, nosplit, "func("+signature+")")
	Pragma("noescape")
	Doc(name + s.suffix + ": " + doc)
}

func (s set) end() {
	VZEROUPPER()
	RET()
}

func (s set) vec() VecVirtual {
	if s.wide() {
		return ZMM()
	}
	return YMM()
}

func (s set) vecs(n int) []VecVirtual {
	v := make([]VecVirtual, n)
	for i := range v {
		v[i] = s.vec()
	}
	return v
}

// arg is an argument of the kernel, in a register.
func arg(name string) GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// times returns r*k.
func times(r Register, k int) GPVirtual {
	c := GP64()
	IMUL3Q(num(k), r, c)
	return c
}

func mem(base Register, disp int) Mem { return Mem{Base: base, Disp: disp} }

// zero: of the instructions that clear a register, avo knows VXORPS for one that reads nothing.
func (s set) zero(v Register) { VXORPS(v, v, v) }

func (s set) move(from, to Op) {
	if s.wide() {
		VMOVDQU64(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

func (s set) and(a, b, to Op) {
	if s.wide() {
		VPANDD(a, b, to)
	} else {
		VPAND(a, b, to)
	}
}

func (s set) or(a, b, to Op) {
	if s.wide() {
		VPORD(a, b, to)
	} else {
		VPOR(a, b, to)
	}
}

func (s set) xor(a, b, to Op) {
	if s.wide() {
		VPXORD(a, b, to)
	} else {
		VPXOR(a, b, to)
	}
}

// shifted is v, its dwords shifted right, or left for negative by.
func (s set) shifted(v VecVirtual, by int) VecVirtual {
	to := s.vec()
	switch {
	case by > 0:
		VPSRLD(U8(uint8(by)), v, to)
	case by < 0:
		VPSLLD(U8(uint8(-by)), v, to)
	default:
		s.move(v, to)
	}
	return to
}

// dword is v in every lane.
func (s set) dword(v uint32) VecVirtual {
	to := s.vec()
	r := GP32()
	MOVL(U32(v), r)
	if s.wide() {
		VPBROADCASTD(r, to)
		return to
	}
	VMOVD(r, to.AsX())
	VPBROADCASTD(to.AsX(), to)
	return to
}

// constants are the dwords that AVX2 kernels read from memory, where registers are few.
var constants = append([]uint32{0x0f0f0f0f, 0x30303030, 0x80808080,
	0x80000000, 0x7fffffff, 127, 0x3f3f3f3f, 0x33333333, 0x55555555, 0x0000cccc, 0x00aa00aa, 0x0c0c0c0c, 0x22222222, 0xe0e0e0e0, 0xc0c0c0c0, 0x00ff00ff, 0x00600000, 1}, append(weighConstants, expConstants()...)...)

// constant is v in every lane: a register with AVX-512, memory with AVX2.
func (s set) constant(v uint32) Op {
	if s.wide() {
		return s.dword(v)
	}
	if !slices.Contains(constants, v) {
		panic(fmt.Sprintf("%#x is not among the constants", v))
	}
	return data(fmt.Sprintf("x%08x", v))
}

// data is static data of this file.
func data(name string) Mem { return NewDataAddr(Symbol{Name: name, Static: true}, 0) }

// tableValues are what nibbles of some formats stand for.
var tableValues = map[string][16]int8{
	"iq4nl": {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
	"e2m1":  {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
}

// tables writes the static data.
func (s set) tables() {
	for _, name := range []string{"iq4nl", "e2m1"} {
		GLOBL(name, rodata) // the values plus 128
		for i, v := range tableValues[name] {
			DATA(i, U8(uint8(v)^0x80))
		}
	}
	if !s.wide() {
		for _, v := range constants {
			GLOBL(fmt.Sprintf("x%08x", v), rodata)
			for i := range 8 {
				DATA(4*i, U32(v))
			}
		}
		GLOBL("counted", rodata)
		for i := range pageRows {
			DATA(i, U8(uint8(i)))
		}
	}
	GLOBL("masks", rodata)
	if s.wide() { // word i has i bits
		for i := range 16 {
			DATA(2*i, U16(1<<i-1))
		}
		s.orders()
		return
	}
	for i := range 16 { // the 8 dwords before dword 8-i have i that are set, first
		DATA(4*i, U32(0xffffffff*uint32((15-i)/8)))
	}
	s.orders()
}

// orders are those in which dwords and bytes are taken from a register.
func (s set) orders() {
	GLOBL("unpacked", rodata) // dword i of every lane, i = 0 to 3: also of VPACKSSDW and VPACKSSWB
	lanes := s.lanes() / 4
	for i := range s.lanes() {
		DATA(4*i, U32(uint32(i%lanes*4+i/lanes)))
	}
	GLOBL("quarters", rodata) // byte i of every dword of a lane
	for i := range 16 {
		DATA(i, U8(uint8(i%4*4+i/4)))
	}
	GLOBL("eighth", rodata)
	for i := range 16 {
		DATA(i, U8(uint8(i/8)))
	}
	GLOBL("bit", rodata)
	for i := range 16 {
		DATA(i, U8(1<<(i%8)))
	}
	GLOBL("twice", rodata)
	for i := range s.lanes() {
		DATA(4*i, U32(uint32(i/2)))
	}
	GLOBL("minusPlus", rodata)
	for i := range s.lanes() {
		DATA(4*i, U32(uint32(1-i%2)<<31))
	}
	GLOBL("words", rodata) // the lower words of all dwords, then the upper
	if s.wide() {
		for i := range 32 {
			DATA(2*i, U16(uint16(i%16*2+i/16)))
		}
		return
	}
	for i := range 32 { // of each lane
		DATA(i, U8(uint8(i%8/2*4+i/8%2*2+i%2)))
	}
}

// broadcast is the dword at m in every lane.
func (s set) broadcast(m Mem) VecVirtual {
	v := s.vec()
	VBROADCASTSS(m, v)
	return v
}

// f16, f32, u8 and i8 load one value for each row of part p from m, as float32.
func (s set) f16(m Mem, p int) VecVirtual {
	v := s.vec()
	VCVTPH2PS(m.Offset(p*s.bytes()/2), v)
	return v
}

func (s set) f32(m Mem, p int) VecVirtual {
	v := s.vec()
	VMOVUPS(m.Offset(p*s.bytes()), v)
	return v
}

func (s set) u8(m Mem, p int) VecVirtual {
	v := s.bytes32(m, p)
	VCVTDQ2PS(v, v)
	return v
}

// bytes32 is u8 before it is converted.
func (s set) bytes32(m Mem, p int) VecVirtual {
	v := s.vec()
	VPMOVZXBD(m.Offset(p*s.bytes()/4), v)
	return v
}

func (s set) i8(m Mem, p int) VecVirtual {
	v := s.vec()
	VPMOVSXBD(m.Offset(p*s.bytes()/4), v)
	VCVTDQ2PS(v, v)
	return v
}

// floats loads part p of a vector of weights of a float kind, as float32.
func (s set) floats(kind string, m Mem, p int) VecVirtual {
	switch kind {
	case "F32":
		return s.f32(m, p)
	case "F16":
		return s.f16(m, p)
	}
	v := s.vec()
	VPMOVZXWD(m.Offset(p*s.bytes()/2), v)
	VPSLLD(U8(16), v, v)
	return v
}

// loop repeats body n times; n, which must not be 0, is used up.
func loop(name string, n Register, body func()) {
	Label(name)
	body()
	DECQ(n)
	JNZ(LabelRef(name))
}

// num is an immediate operand.
func num(n int) U32 { return U32(uint32(n)) }
