package main

import (
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strconv"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// A tile holds 16 rows of 64 bytes. TDPBF16PS adds to each element of a tile of 16
// activation rows times 16 rows of weights the products of 32 bf16 columns, in float32.
// Weights and activations here are integers that bf16 holds, and their sums integers
// that float32 holds, so all of it is exact and comes without a conversion.
//
// Measured on a core of a Xeon with AMX: TDPBF16PS every 16 cycles; while tile
// instructions are under way one 512-bit float operation a cycle, otherwise two (of
// integers two all the time); with int8 tiles, which need half the columns but a
// conversion of each sum, 58 cycles for 32 columns, with bf16 41. TILEZERO before
// a product costs nothing, but 50 cycles if the loop has no tile loads.
const (
	tileRows  = 16
	tileBytes = 64 * tileRows
	// of a record of 16 activation rows: the tile, then scales, and scale times the sum of the 32, of the first 16, of the last
	tileRecord = tileBytes + 4*64
	tileScale  = tileBytes
	tileSums   = tileBytes + 64
	// steps between a product, its tile's way to memory, and its addition
	tilesAhead, storesAhead = 3, 1
	// sums on their way through memory, and the tiles that they come from
	tileRing = 4
)

// tileOp emits an instruction on tiles that has no operand in memory, of VEX prefix pp.
func tileOp(pp, op, vvvv, modrm byte) {
	for _, b := range []byte{0xc4, 0xe2, (^vvvv&15)<<3 | pp, op, modrm} {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(b)}})
	}
}

func tileZero(t int)         { tileOp(3, 0x49, 0, 0xc0|byte(t)<<3) }
func tileRelease()           { tileOp(0, 0x49, 0, 0xc0) }
func tileDot(c, a, b int)    { tileOp(2, 0x5c, byte(b), 0xc0|byte(c)<<3|byte(a)) }
func tileConfig(m Mem)       { tileMem("config", 0, m) }
func tileLoad(m Mem, t int)  { tileMem("load", t, m) }
func tileStore(t int, m Mem) { tileMem("store", t, m) }

// tileMem emits an instruction on memory that avo does not know: another one of the same
// operands, which nothing else uses, that tilesFinish replaces by its bytes.
func tileMem(name string, t int, m Mem) {
	Comment(fmt.Sprintf("tile%s %d", name, t))
	PREFETCHNTA(m)
}

var tileLine = regexp.MustCompile(`// tile(\w+) (\d)\n\tPREFETCHNTA +(-?\d*)\((\w+)\)(?:\((\w+)\*1\))?\n`)

// bf16 is the bits of an integer of at most 8 bits.
func bf16(v int) uint16 { return uint16(math.Float32bits(float32(v)) >> 16) }

// tilesFinish replaces what tileMem wrote.
func tilesFinish(text []byte) []byte {
	text = tileLine.ReplaceAllFunc(text, func(line []byte) []byte {
		m := tileLine.FindSubmatch(line)
		number := func(s []byte) int {
			n, _ := strconv.Atoi(string(s))
			return n
		}
		base, disp := register(string(m[4])), number(m[3])
		index := byte(4) // none
		if len(m[5]) > 0 {
			index = register(string(m[5]))
		}
		op, pp := byte(0x4b), byte(3)
		switch string(m[1]) {
		case "config":
			op, pp = 0x49, 0
		case "store":
			pp = 2
		}
		code := []byte{0xc4, 1<<7 | (^index>>3&1)<<6 | (^base>>3&1)<<5 | 2, 0x78 | pp, op,
			0x80 | byte(number(m[2]))<<3 | 4, index&7<<3 | base&7, byte(disp), byte(disp >> 8), byte(disp >> 16), byte(disp >> 24)}
		var out []string
		for _, b := range code {
			out = append(out, fmt.Sprintf("BYTE $0x%02x", b))
		}
		return fmt.Appendf(nil, "%s // tile%s %s, %s(%s)(%s)\n", strings.Join(out, "; "), m[1], m[2], m[3], m[4], m[5])
	})
	if strings.Contains(string(text), "PREFETCHNTA") {
		panic("a tile instruction was not replaced")
	}
	return text
}

// register is the number of a general register.
func register(name string) byte {
	for i, r := range []string{"AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"} {
		if name == r {
			return byte(i)
		}
	}
	n, err := strconv.Atoi(strings.TrimPrefix(name, "R"))
	if err != nil {
		panic(err)
	}
	return byte(n)
}

// amx writes the kernels of processors with AMX.
func (s set) amx() {
	s.tileTables()
	for _, l := range layouts {
		s.unpackTiles(l)
	}
	for _, p := range panels {
		s.gemmTiles(p)
	}
	s.quantizeTiles()
	s.tilePeak()
}

// tilePeak writes the yardstick of gemmTiles' benchmark: n rounds of 4 products of
// tiles that stay in registers.
func (s set) tilePeak() {
	s.text("peak", "n int", "n times 4 products of tiles, for benchmarks.")
	n, shape := arg("n"), GP64()
	LEAQ(data("tilesWhole"), shape)
	tileConfig(mem(shape, 0))
	for t := range 8 {
		tileZero(t)
	}
	loop("round", n, func() {
		for c := range tileRing {
			tileDot(c, tileRing, tileRing+2)
		}
	})
	tileRelease()
	s.end()
}

// tileTables writes the shapes of tiles and the values of small weights.
func (s set) tileTables() {
	for i, name := range []string{"tilesWhole", "tilesHalves"} {
		GLOBL(name, rodata)
		var shape [64]byte
		shape[0] = 1
		for t := range 8 {
			shape[16+2*t], shape[48+t] = 64, 16
			switch {
			case i == 0 || t < tileRing:
			case t < 6: // activations of half a block
				shape[16+2*t] = 32
			default: // weights of half a block
				shape[48+t] = 8
			}
		}
		for j, v := range shape {
			DATA(j, U8(v))
		}
	}
	GLOBL("columns", rodata) // of activations in their tile's row, as upper words of float32
	for w := range 32 {
		DATA(2*w, U16(uint16(2*(w/4*4+w/2%2+w%2*2)+1)))
	}
	for _, l := range layouts {
		if l.bytes() {
			continue
		}
		GLOBL("bf16"+l.name, rodata)
		for i := range l.values() {
			v := i - l.bias
			if l.table != "" {
				v = int(tableValues[l.table][i%16])
			}
			DATA(2*i, U16(bf16(v)))
		}
	}
}

// values is how many entries the table of a layout's weights has: a vector's, or two.
func (l layout) values() int {
	if l.most > 31 {
		return 64
	}
	return 32
}

// unpackTiles writes the kernel that makes panel blocks for gemmTiles of a packed group.
func (s set) unpackTiles(l layout) {
	s.text("unpack"+l.name, "panel, w *byte, n int", "unpackTilesGeneric of kind"+l.name+".")
	dst, w, n := arg("panel"), arg("w"), arg("n")
	plain := l
	plain.table = "" // values come from the table of bf16
	b := s.weights(plain, w)
	c := &scales{set: s, layout: l, w: w}
	to := l.unpacked()
	var sign Op
	if l.super && l.min {
		sign = s.constant(0x80000000)
	}
	make16 := s.widener(l)
	c.blocks(n, func() {
		b.part(0)
		for j := range 4 {
			for i, v := range pairOf(b.pair(j, 0)) {
				for k, x := range pairOf(make16(v)) {
					s.move(x, mem(dst, (2*(j+4*i)+k)*64))
				}
			}
		}
		for h := range to.count() {
			VMOVUPS(c.scale(h, 0), mem(dst, tileBytes+64*h))
		}
		if l.min {
			for h := range to.count() {
				v := c.least(h, 0)
				if sign != nil {
					s.xor(sign, v, v)
				}
				VMOVUPS(v, mem(dst, tileBytes+64*(to.count()+h)))
			}
		}
		ADDQ(num(to.block+tileBytes-512), dst)
	})
	s.end()
}

// widener prepares what makes two rows of a tile of a vector of weights: of columns 4j and
// 4j+2 of each row of weights, of 4j+1 and 4j+3.
func (s set) widener(l layout) func(v VecVirtual) (even, odd VecVirtual) {
	if !l.bytes() {
		table := s.vecs(l.values() / 32)
		for i, t := range table {
			s.move(data("bf16"+l.name).Offset(64*i), t)
		}
		look := func(v VecVirtual) {
			if len(table) == 1 {
				VPERMW(table[0], v, v)
				return
			}
			VPERMI2W(table[1], table[0], v)
		}
		return func(v VecVirtual) (even, odd VecVirtual) {
			odd = s.vec()
			VPSRLW(U8(8), v, odd)
			look(v)
			look(odd)
			return v, odd
		}
	}
	// 2^23 + w + 128 is a float32 whose lowest byte is that of w + 128
	least, magic, less, upper := s.dword(0xff), s.dword(0x4b000000), s.dword(0x4b000080), s.dword(0xffff0000)
	value := func(v VecVirtual) {
		VPTERNLOGD(U8(0xea), magic, least, v)
		VSUBPS(less, v, v)
	}
	words := func(v VecVirtual) VecVirtual {
		high := s.vec()
		VPSRLD(U8(16), v, high)
		value(high)
		value(v)
		VPSRLD(U8(16), v, v)
		VPTERNLOGD(U8(0xea), v, upper, high)
		return high
	}
	return func(v VecVirtual) (even, odd VecVirtual) {
		t := s.vec()
		VPSRLD(U8(8), v, t)
		return words(v), words(t)
	}
}

// gemmTiles writes the product of two groups of panel blocks and records of 16
// activation rows, a pass for each group of each record. A step is one tile: of a block,
// or half a block. Its product is made tilesAhead steps before it is added, and stored
// storesAhead steps before, through a ring, across the end of a pass. The unit of this is
// as many blocks as fill the ring; what is left of a pass goes by itself.
//
// In the L1 cache are neither weights nor activations: chunks of 8 or 16 blocks of both
// groups that stay there while all records pass are 2 to 8 % slower.
func (s set) gemmTiles(l layout) {
	l.block += tileBytes - 512
	s.text("gemmTiles"+l.name, "dst *float32, ld int, a, b, act *byte, n, records int, ring *byte", "gemmTilesGeneric of panel"+l.name+".")
	g := &tiled{set: s, layout: l, ring: arg("ring"), stride: GP64(), w: GP64(), act: arg("act"), nextAct: GP64(), nextW: GP64(),
		dst: arg("dst"), ld: arg("ld"), acc: s.vecs(tileRows), steps: l.count()}
	shape := "tilesWhole"
	if l.halves {
		shape = "tilesHalves"
	}
	LEAQ(data(shape), g.w)
	tileConfig(mem(g.w, 0))
	MOVQ(arg("a"), g.w)
	MOVQ(U32(64), g.stride)
	SHLQ(U8(2), g.ld)
	g.unit = tileRing / g.steps
	units, records, below := arg("n"), arg("records"), GP64()
	SHRQ(U8(uint8(bits.TrailingZeros(uint(g.unit)))), units)
	JZ(LabelRef("record"))
	for q := range tilesAhead {
		g.multiply(g.act, g.w, q)
	}
	for q := range storesAhead {
		g.store(q)
	}
	Label("record")
	for i, next := range []string{"b", "a"} {
		g.name = fmt.Sprint(i)
		MOVQ(g.act, g.nextAct)
		if i == 1 { // of the last record the first pass once more
			IMUL3Q(num(tileRecord), arg("n"), below)
			ADDQ(g.act, below)
			CMPQ(records, num(1))
			CMOVQGT(below, g.nextAct)
		}
		MOVQ(arg(next), g.nextW)
		g.pass(units)
		g.rows(64*i, func(v VecVirtual, m Mem) { VMOVUPS(v, m) })
		MOVQ(g.nextAct, g.act)
		MOVQ(g.nextW, g.w)
	}
	MOVQ(g.ld, below)
	SHLQ(U8(4), below)
	ADDQ(below, g.dst)
	DECQ(records)
	JNZ(LabelRef("record"))
	tileRelease()
	s.end()
}

// tiled is gemmTiles under way.
type tiled struct {
	set
	layout
	ring, stride   Register
	act, w         Register // the block that is added
	nextAct, nextW Register // the first block of the next pass
	dst, ld        Register
	acc            []VecVirtual
	steps, unit    int // of a block; blocks
	name           string
}

// pass makes the product of a record and a group from act and w on; those of the next pass are begun.
func (g *tiled) pass(units Register) {
	left := GP64()
	for _, v := range g.acc {
		g.zero(v)
	}
	MOVQ(units, left)
	TESTQ(left, left)
	JZ(LabelRef("rest" + g.name))
	DECQ(left)
	JZ(LabelRef("last" + g.name))
	Label("unit" + g.name)
	g.body(false)
	DECQ(left)
	JNZ(LabelRef("unit" + g.name))
	Label("last" + g.name)
	g.body(true)
	Label("rest" + g.name)
	MOVQ(arg("n"), left)
	ANDQ(num(g.unit-1), left)
	JZ(LabelRef("passed" + g.name))
	Label("block" + g.name)
	const free = tileRing - 1 // the others have what is begun
	for h := range g.steps {
		g.multiplyInto(g.act, g.w, h, free)
		g.store(free)
		g.addFrom(h, free)
	}
	g.mins(0)
	ADDQ(num(tileRecord), g.act)
	ADDQ(num(g.block), g.w)
	DECQ(left)
	JNZ(LabelRef("block" + g.name))
	Label("passed" + g.name)
}

// rows calls f for each row of the product.
func (g *tiled) rows(at int, f func(v VecVirtual, m Mem)) {
	row := GP64()
	LEAQ(mem(g.dst, at), row)
	for _, v := range g.acc {
		f(v, mem(row, 0))
		ADDQ(g.ld, row)
	}
}

// body adds the steps of a unit, and multiplies those that come tilesAhead later: of the
// last one of a pass they are the next pass's.
func (g *tiled) body(last bool) {
	for k := range tileRing {
		q := k + tilesAhead
		if last && q >= tileRing {
			g.multiply(g.nextAct, g.nextW, q%tileRing)
		} else {
			g.multiply(g.act, g.w, q)
		}
		g.store((k + storesAhead) % tileRing)
		g.addFrom(k, k)
		if k%g.steps == g.steps-1 {
			g.mins(k / g.steps)
		}
	}
	ADDQ(num(g.unit*tileRecord), g.act)
	ADDQ(num(g.unit*g.block), g.w)
}

func (g *tiled) multiply(act, w Register, q int) { g.multiplyInto(act, w, q, q%tileRing) }

// multiplyInto makes tile c of step q from these blocks on.
func (g *tiled) multiplyInto(act, w Register, q, c int) {
	block, h := q/g.steps, q%g.steps
	a, b := tileRing+q%2, tileRing+2+q%2
	tileLoad(mem(act, block*tileRecord+32*h).Idx(g.stride, 1), a)
	tileLoad(mem(w, block*g.block+512*h).Idx(g.stride, 1), b)
	tileZero(c)
	tileDot(c, a, b)
}

func (g *tiled) store(c int) { tileStore(c, mem(g.ring, c*tileBytes).Idx(g.stride, 1)) }

// addFrom adds step q of a body, which is tile c of the ring.
func (g *tiled) addFrom(q, c int) {
	block, h := q/g.steps, q%g.steps
	scale := g.f32(mem(g.w, block*g.block+tileBytes+64*h), 0)
	for t, acc := range g.acc {
		v := g.vec()
		VMULPS_BCST(mem(g.act, block*tileRecord+tileScale+4*t), scale, v)
		VFMADD231PS(mem(g.ring, c*tileBytes+64*t), v, acc)
	}
}

// mins adds what a block's weights have less.
func (g *tiled) mins(block int) {
	if !g.min {
		return
	}
	for h := range g.steps {
		sums := tileSums
		if g.halves {
			sums += 64 * (1 + h)
		}
		least := g.f32(mem(g.w, block*g.block+tileBytes+64*(g.steps+h)), 0)
		for t, acc := range g.acc {
			VFMADD231PS_BCST(mem(g.act, block*tileRecord+sums+4*t), least, acc)
		}
	}
}

// quantizeTiles writes quantize for records of 16 rows.
func (s set) quantizeTiles() {
	s.text("quantizeTiles", "dst *byte, x *float32, n, t int", "quantizeTilesGeneric, to the bit.")
	dst, x, n, t := arg("dst"), arg("x"), arg("n"), arg("t")
	values := GP64() // of dst: the row's scale
	LEAQ(mem(dst, tileScale).Idx(t, 4), values)
	SHLQ(U8(6), t)
	ADDQ(t, dst)
	q := s.quantizer()
	order := s.vec()
	s.move(data("columns"), order)
	loop("block", n, func() {
		v, scale := q.integers(x)
		sums := q.sums(s.int8s(v))
		for _, v := range v {
			VCVTDQ2PS(v, v)
		}
		VPERMT2W(v[1], order, v[0])
		s.move(v[0], mem(dst, 0))
		VCVTDQ2PS(sums, sums)
		factors := XMM()
		VBROADCASTSS(scale, factors)
		VMULPS(factors, sums, sums)
		VMOVSS(scale, mem(values, 0))
		for i := range 3 {
			VPEXTRD(U8(uint8(i)), sums, mem(values, tileSums-tileScale+64*i))
		}
		ADDQ(num(tileRecord), dst)
		ADDQ(num(tileRecord), values)
		ADDQ(num(128), x)
	})
	s.end()
}
