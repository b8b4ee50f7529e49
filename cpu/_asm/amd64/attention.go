package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// cached are the formats of keys and values that are multiplied as float32.
var cached = []string{"F32", "F16"}

// These are those of package cpu.
const (
	pageRows = 64
	cutRows  = 256
)

// tile is how many lines a kernel takes at once, and how many vectors of positions or
// columns.
type tile struct{ lines, vectors int }

// lineTiles are those of a kernel, the most lines first. Sixteen sums hide the latency of FMA, in
// AVX2 the eight that there are registers for. Eight lines share the widening of F16,
// which takes as long as two products: of 64 values times eight lines 28 cycles became
// 23.5, on a Xeon. In AVX2, with one vector, it was no faster.
func (s set) lineTiles(kind string, one int) []tile {
	if !s.wide() {
		return []tile{{4, 2}, {1, one}}
	}
	t := []tile{{4, 4}, {1, one}}
	if kind == "F32" {
		return t
	}
	return append([]tile{{8, 2}}, t...)
}

func (s set) attention() {
	for _, kind := range cached {
		s.score(kind)
		s.accumulate(kind)
	}
	s.widen("F16")
	s.widen("BF16")
	s.narrowF16()
	s.combine()
	s.attentionQ8()
}

// byLines repeats a tile for as many lines as there are whole tiles, then the next.
func byLines(lines Register, tiles []tile, do func(tile)) {
	for _, t := range tiles {
		name := fmt.Sprint("lines", t.lines)
		Label(name)
		CMPQ(lines, num(t.lines))
		JLT(LabelRef("less" + name))
		do(t)
		SUBQ(num(t.lines), lines)
		JMP(LabelRef(name))
		Label("less" + name)
	}
	Label("done")
}

// strided are the first count rows of a matrix, stride bytes apart; from the fifth on
// they are taken from the second base, 4 rows on.
func strided(base, base4, stride, stride3 Register, count int) (rows []Mem) {
	for _, b := range []Register{base, base4} {
		rows = append(rows, mem(b, 0), mem(b, 0).Idx(stride, 1), mem(b, 0).Idx(stride, 2), mem(b, 0).Idx(stride3, 1))
	}
	return rows[:count]
}

// A page is asked for into L2 while the one before is read, line after line wherever the
// kernel is, since L2 itself goes on with what is asked for in a row: then few of its lines are
// among the 16 that L1 waits for on Intel's processors. From L2 a kernel's own lines are asked for
// shortly before they are read. With all asked for into L1, in the kernel's order, one core of a Xeon
// read 8.5 GB/s for eight query heads, so 11.7 (of 15), and 11.7 and 13.2 for four. One line reads a page as it
// lies, which a Zen 4 does best by itself: nearPages in package cpu is how far ahead, in values.
const (
	dimsAhead = 16 // of keys
	rowsAhead = 8  // of values; a scale of an address
)

// score multiplies queries with the keys of a page, each lane one position: a
// chunk of positions at a time, dimension after dimension.
func (s set) score(kind string) {
	s.text("score"+kind, "dst, q *float32, k, next *byte, lines, dim int", "score"+kind+"Generic.")
	dst, query, keys, next, lines, dim := arg("dst"), arg("q"), arg("k"), arg("next"), arg("lines"), arg("dim")
	stride, stride3 := times(dim, 4), times(dim, 12)
	size := sizeOf(kind)
	q, q4, k, left, ahead := GP64(), GP64(), GP64(), GP64(), GP64()
	// chunk makes vectors*count sums of the positions from first on
	chunk := func(count, vectors, first int) {
		name := fmt.Sprintf("%dfrom%d", count, first)
		acc := make([][]VecVirtual, count)
		for i := range acc {
			acc[i] = s.vecs(vectors)
			for _, v := range acc[i] {
				s.zero(v)
			}
		}
		MOVQ(query, q)
		if count > 4 {
			LEAQ(mem(query, 0).Idx(stride, 4), q4)
		}
		LEAQ(mem(keys, first*size), k)
		rows := strided(q, q4, stride, stride3, count)
		MOVQ(dim, left)
		loop("dims"+name, left, func() {
			w := make([]VecVirtual, count)
			for i := range w {
				w[i] = s.broadcast(rows[i])
			}
			for j := range vectors {
				x := s.floats(kind, mem(k, j*s.lanes()*size), 0)
				for i := range w {
					VFMADD231PS(w[i], x, acc[i][j])
				}
			}
			bytes := vectors * s.lanes() * size
			near := mem(k, dimsAhead*pageRows*size)
			if count == 1 {
				near = mem(k, 0).Idx(variable("nearPages"), uint8(size))
			}
			for line := 0; line < bytes; line += 64 {
				PREFETCHT1(mem(ahead, line))
				PREFETCHT0(near.Offset(line))
			}
			ADDQ(num(bytes), ahead)
			ADDQ(num(4), q)
			if count > 4 {
				ADDQ(num(4), q4)
			}
			ADDQ(num(pageRows*size), k)
		})
		for i := range acc {
			for j, v := range acc[i] {
				VMOVUPS(v, mem(dst, 4*(i*cutRows+first+j*s.lanes())))
			}
		}
	}
	byLines(lines, s.lineTiles(kind, 4), func(t tile) {
		MOVQ(next, ahead)
		for first := 0; first < pageRows; first += t.vectors * s.lanes() {
			chunk(t.lines, t.vectors, first)
		}
		ADDQ(num(4*cutRows*t.lines), dst)
		skip(query, stride, t.lines)
	})
	s.end()
}

// skip adds so many rows to a pointer.
func skip(p, stride Register, rows int) {
	if rows == 1 {
		ADDQ(stride, p)
		return
	}
	for range rows / 4 {
		LEAQ(mem(p, 0).Idx(stride, 4), p)
	}
}

// accumulate adds rows of values, each times its weight, to the sums of lines:
// as many columns at once as there are registers for.
func (s set) accumulate(kind string) {
	s.text("accum"+kind, "acc, p *float32, v, next *byte, lines, n, dim int", "accum"+kind+"Generic.")
	sums, weights, values, next, lines := arg("acc"), arg("p"), arg("v"), arg("next"), arg("lines")
	cols := arg("dim")
	stride, stride3 := times(cols, 4), times(cols, 12)
	size := sizeOf(kind)
	row := times(cols, size)
	acc, p, v, rows, left, ahead := GP64(), GP64(), GP64(), GP64(), GP64(), GP64()
	// columns adds so many vectors from v on
	columns := func(name string, count, vectors int) {
		sum := make([][]VecVirtual, count)
		out := strided(acc, rows, stride, stride3, count)
		fifth := func() {
			if count > 4 {
				LEAQ(mem(acc, 0).Idx(stride, 4), rows)
			}
		}
		fifth()
		for i := range sum {
			sum[i] = make([]VecVirtual, vectors)
			for j := range sum[i] {
				sum[i][j] = s.f32(out[i], j)
			}
		}
		MOVQ(weights, p)
		MOVQ(v, rows)
		Load(Param("n"), left)
		loop("rows"+name, left, func() {
			w := make([]VecVirtual, count)
			for i := range w {
				w[i] = s.broadcast(mem(p, 4*cutRows*i))
			}
			for j := range vectors {
				x := s.floats(kind, mem(rows, 0), j)
				for i := range w {
					VFMADD231PS(w[i], x, sum[i][j])
				}
			}
			bytes := vectors * s.lanes() * size
			near := mem(rows, 0).Idx(row, rowsAhead)
			if count == 1 {
				near = mem(rows, 0).Idx(variable("nearPages"), uint8(size))
			}
			for line := 0; line < bytes; line += 64 {
				PREFETCHT1(mem(ahead, line))
				PREFETCHT0(near.Offset(line))
			}
			ADDQ(num(bytes), ahead)
			ADDQ(num(4), p)
			ADDQ(row, rows)
		})
		fifth()
		for i := range sum {
			for j, x := range sum[i] {
				VMOVUPS(x, out[i].Offset(j*s.bytes()))
			}
		}
	}
	// steps goes over the columns, at first as many vectors at a time as the tile has, then by fewer
	steps := func(t tile) {
		name := fmt.Sprint(t.lines, "by")
		MOVQ(next, ahead)
		MOVQ(sums, acc)
		MOVQ(values, v)
		Load(Param("dim"), cols)
		for vectors := t.vectors; vectors >= 1; vectors /= 2 {
			label := fmt.Sprint(name, vectors)
			Label("cols" + label)
			CMPQ(cols, num(vectors*s.lanes()))
			JLT(LabelRef("less" + label))
			columns(label, t.lines, vectors)
			ADDQ(num(vectors*s.bytes()), acc)
			ADDQ(num(vectors*s.lanes()*size), v)
			SUBQ(num(vectors*s.lanes()), cols)
			JMP(LabelRef("cols" + label))
			Label("less" + label)
		}
		ADDQ(num(4*cutRows*t.lines), weights)
		skip(sums, stride, t.lines)
	}
	Load(Param("n"), left)
	TESTQ(left, left)
	JZ(LabelRef("done"))
	byLines(lines, s.lineTiles(kind, 8), steps)
	s.end()
}

// sizeOf is the bytes of a value.
func sizeOf(kind string) int { return map[string]int{"F32": 4, "F16": 2}[kind] }

// widen makes float32 of F16 or BF16.
func (s set) widen(kind string) {
	s.text("widen"+kind, "dst *float32, src *byte, n int", "widen"+kind+"Generic.")
	dst, src, n := arg("dst"), arg("src"), arg("n")
	SHRQ(U8(6), n)
	loop("values", n, func() {
		for i := range 64 / s.lanes() {
			VMOVUPS(s.floats(kind, mem(src, 0), i), mem(dst, i*s.bytes()))
		}
		ADDQ(num(128), src)
		ADDQ(num(256), dst)
	})
	s.end()
}

func (s set) combine() {
	s.text("combine", "dst, x *float32, old, now float32, n int", "combineGeneric, to the bit.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	old, now := s.vec(), s.vec()
	VBROADCASTSS(NewParamAddr("old", 16), old)
	VBROADCASTSS(NewParamAddr("now", 20), now)
	s.elements(n, []Register{dst, x}, func(l lanes) {
		a, b := l.load(mem(dst, 0)), l.load(mem(x, 0))
		VMULPS(old, a, a)
		VMULPS(now, b, b)
		VADDPS(b, a, a)
		l.store(a, mem(dst, 0))
	})
	s.end()
}

// narrowF16 takes vectors, and the rest value by value.
func (s set) narrowF16() {
	s.text("narrowF16", "dst *byte, src *float32, n int", "narrowF16Generic.")
	dst, src, n := arg("dst"), arg("src"), arg("n")
	Label("vectors")
	CMPQ(n, U8(uint8(s.lanes())))
	JLT(LabelRef("rest"))
	v := s.vec()
	VMOVUPS(mem(src, 0), v)
	VCVTPS2PH(U8(0), v, mem(dst, 0))
	ADDQ(num(s.bytes()), src)
	ADDQ(num(s.bytes()/2), dst)
	SUBQ(num(s.lanes()), n)
	JMP(LabelRef("vectors"))
	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	x, h := XMM(), GP32()
	VMOVSS(mem(src, 0), x)
	VCVTPS2PH(U8(0), x, x)
	VMOVD(x, h)
	MOVW(h.As16(), mem(dst, 0))
	ADDQ(num(4), src)
	ADDQ(num(2), dst)
	DECQ(n)
	JMP(LabelRef("rest"))
	Label("done")
	s.end()
}
