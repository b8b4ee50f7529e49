package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Attention over a q8_0 cache (see cpu/kernels.go): queries and weights are int16, so that a product takes two
// values of a lane at once, in half of the instructions that float32 takes, and nothing has to be converted but a block's sum.

const (
	blockCols = 32
	top16     = 32767
	blockData = 2 * pageRows // where a block's bytes begin, behind its scales
)

func (s set) attentionQ8() {
	s.fix()
	s.weigh()
	s.scoreQ8()
	s.accumQ8()
}

// tilesQ8 are as lineTiles. A line alone has more chains of sums than vectors, against their latency; four lines read a row
// of positions at once, as it lies, which on a Zen 4 took 5 % less than half rows.
func (s set) tilesQ8(one int) []tile {
	if s.wide() {
		return []tile{{8, 2}, {4, one}, {1, one}}
	}
	return []tile{{4, 2}, {1, 4}}
}

// words are the bytes at m as int16.
func (s set) words(m Mem) VecVirtual {
	v := s.vec()
	VPMOVSXBW(m, v)
	return v
}

// addPairs adds x*w, of pairs of int16, to the int32 in acc.
func (s set) addPairs(w, x, acc VecVirtual) {
	if s.wide() {
		VPDPWSSD(w, x, acc)
		return
	}
	t := s.vec()
	VPMADDWD(w, x, t)
	VPADDD(t, acc, acc)
}

// pairSums is, for each of a tile's lines, sums of so many pairs: a dword of the line times the words at k+from, which lie step
// bytes on for the next pair. ask asks for what will be read; k, the rows' registers and ahead, by asked a pair, are moved on.
func (s set) pairSums(name string, t tile, pairs int, rows []Mem, registers []Register, k Register, from, step int, ahead Register, asked int, ask func(c int)) [][]VecVirtual {
	chains := 1
	if s.wide() {
		chains = max(1, 8/(t.lines*t.vectors))
	}
	acc := make([][]VecVirtual, t.lines)
	for i := range acc {
		acc[i] = s.vecs(t.vectors * chains)
		for _, v := range acc[i] {
			s.zero(v)
		}
	}
	in := GP64()
	MOVQ(num(pairs/chains), in)
	loop("pairs"+name, in, func() {
		for c := range chains {
			x := make([]VecVirtual, t.vectors)
			for j := range x {
				x[j] = s.words(mem(k, from+c*step+j*2*s.lanes()))
			}
			for i := range rows {
				w := s.broadcast(rows[i].Offset(4 * c))
				for j := range x {
					s.addPairs(w, x[j], acc[i][c*t.vectors+j])
				}
			}
			ask(c)
		}
		for _, r := range registers {
			ADDQ(num(4*chains), r)
		}
		ADDQ(num(step*chains), k)
		ADDQ(num(chains*asked), ahead)
	})
	for _, a := range acc {
		for c := 1; c < chains; c++ {
			for j := range t.vectors {
				VPADDD(a[c*t.vectors+j], a[j], a[j])
			}
		}
	}
	return acc
}

// near is what a tile's lines ask for into the L1 cache while they read at p (see ahead in package cpu).
func near(p Register, t tile) Mem {
	if t.lines == 1 {
		return mem(p, 0).Idx(variable("nearPages"), 1)
	}
	return mem(p, 0).Idx(variable("nearBlocks"), 1)
}

// scoreQ8: a lane is a position; pairs are of dimensions.
func (s set) scoreQ8() {
	s.text("scoreQ8", "dst, q *float32, k, next *byte, lines, dim int", "scoreQ8Generic.")
	dst, query, keys, next, lines, dim := arg("dst"), arg("q"), arg("k"), arg("next"), arg("lines"), arg("dim")
	stride, stride3 := times(dim, 4), times(dim, 12)
	SHRQ(U8(5), dim) // blocks
	q, q4, k, left, ahead := GP64(), GP64(), GP64(), GP64(), GP64()
	chunk := func(t tile, first int) {
		name := fmt.Sprintf("%dfrom%d", t.lines, first)
		out := func(i, j int) Mem { return mem(dst, 4*(i*cutRows+first+j*s.lanes())) }
		nothing := s.vec()
		s.zero(nothing)
		for i := range t.lines {
			for j := range t.vectors {
				VMOVUPS(nothing, out(i, j))
			}
		}
		MOVQ(query, q)
		registers := []Register{q}
		if t.lines > 4 {
			LEAQ(mem(q, 0).Idx(stride, 4), q4)
			registers = append(registers, q4)
		}
		rows := strided(q, q4, stride, stride3, t.lines)
		LEAQ(mem(keys, first*2), k)
		MOVQ(dim, left)
		loop("blocks"+name, left, func() {
			bytes := t.vectors * s.lanes() * 2
			acc := s.pairSums(name, t, blockCols/2, rows, registers, k, blockData, 2*pageRows, ahead, bytes, func(c int) {
				near := near(k, t)
				for line := 0; line < bytes; line += 64 {
					PREFETCHT1(mem(ahead, c*bytes+line))
					PREFETCHT0(near.Offset(line + blockData + c*2*pageRows))
				}
			})
			for j := range t.vectors {
				scale := s.f16(mem(k, j*2*s.lanes()-blockCols*pageRows), 0)
				for i := range acc {
					x := acc[i][j]
					VCVTDQ2PS(x, x)
					VFMADD213PS(out(i, j), scale, x)
					VMOVUPS(x, out(i, j))
				}
			}
			ADDQ(num(blockData), k)
		})
		// behind a line's integers stands its scale
		for i, row := range rows {
			scale := s.broadcast(row)
			for j := range t.vectors {
				x := s.vec()
				VMULPS(out(i, j), scale, x)
				VMOVUPS(x, out(i, j))
			}
		}
	}
	byLines(lines, s.tilesQ8(4), func(t tile) {
		MOVQ(next, ahead)
		for first := 0; first < pageRows; first += t.vectors * s.lanes() {
			chunk(t, first)
		}
		ADDQ(num(4*cutRows*t.lines), dst)
		skip(query, stride, t.lines)
	})
	s.end()
}

// weightBytes are a line's weights of a page.
const weightBytes = 2 * pageRows

// accumQ8: a lane is a dimension; pairs are of positions.
func (s set) accumQ8() {
	s.text("accumQ8", "acc, w *float32, v, next *byte, lines, dim int", "accumQ8Generic.")
	acc, weights, lines, stride := arg("acc"), arg("w"), arg("lines"), arg("dim")
	SHLQ(U8(2), stride)
	scales := times(lines, weightBytes)
	ADDQ(weights, scales)
	w, v, ahead := GP64(), GP64(), GP64()
	byLines(lines, s.tilesQ8(2), func(t tile) {
		Load(Param("next"), ahead)
		Load(Param("v"), v)
		wide := t.vectors * s.lanes() // dimensions
		for part := 0; part < blockCols; part += wide {
			MOVQ(weights, w)
			rows := make([]Mem, t.lines)
			for i := range rows {
				rows[i] = mem(w, weightBytes*i)
			}
			sums := s.pairSums(fmt.Sprintf("%dfrom%d", t.lines, part), t, pageRows/2, rows, []Register{w}, v, blockData+2*part, 2*blockCols, ahead, 2*wide, func(c int) {
				PREFETCHT1(mem(ahead, c*2*wide))
				PREFETCHT0(near(v, t).Offset(blockData + c*2*blockCols))
			})
			SUBQ(num(blockCols*pageRows), v)
			MOVQ(acc, w)
			for i := range rows {
				d := s.broadcast(mem(scales, 4*i))
				for j, x := range sums[i][:t.vectors] {
					to := mem(w, 4*(part+j*s.lanes()))
					VCVTDQ2PS(x, x)
					VFMADD213PS(to, d, x)
					VMOVUPS(x, to)
				}
				ADDQ(stride, w)
			}
		}
		skip(acc, stride, t.lines)
		ADDQ(num(weightBytes*t.lines), weights)
		ADDQ(num(4*t.lines), scales)
	})
	s.end()
}

// fix makes int16 of lines, and their scales.
func (s set) fix() {
	s.text("fix", "x *float32, lines, n int", "fixGeneric, to the bit.")
	x, lines, n := arg("x"), arg("lines"), arg("n")
	SHRQ(U8(5), n) // of 32 values
	in, out, left := GP64(), GP64(), GP64()
	f := s.scaler(top16)
	magnitude := s.constant(0x7fffffff)
	loop("lines", lines, func() {
		most := s.vec()
		s.zero(most)
		MOVQ(x, in)
		MOVQ(n, left)
		loop("largest", left, func() {
			for i := range blockCols / s.lanes() {
				m := s.vec()
				VMOVUPS(mem(in, i*s.bytes()), m)
				s.and(magnitude, m, m)
				VPMAXSD(m, most, most)
			}
			ADDQ(num(4*blockCols), in)
		})
		factor, scale := f.of(most)
		MOVQ(x, in)
		MOVQ(x, out)
		MOVQ(n, left)
		loop("values", left, func() {
			v := make([]VecVirtual, blockCols/s.lanes())
			for i := range v {
				v[i] = s.vec()
				VMULPS(mem(in, i*s.bytes()), factor, v[i])
				VCVTPS2DQ(v[i], v[i])
			}
			for i := range v {
				if s.wide() {
					VPMOVSDW(v[i], mem(out, i*32))
				} else if i%2 == 0 {
					VPACKSSDW(v[i+1], v[i], v[i])
					VPERMQ(U8(0xd8), v[i], v[i])
					VMOVDQU(v[i], mem(out, i*16))
				}
			}
			ADDQ(num(4*blockCols), in)
			ADDQ(num(2*blockCols), out)
		})
		VMOVSS(scale, mem(out, 0))
		MOVQ(in, x)
	})
	s.end()
}

// weigh makes the int16 of lines' weights in a block of a page of values. A product rounds where a number of its scale's size
// is added to it, and its integer then stands in the sum's lower word.
func (s set) weigh() {
	s.text("weigh", "w, p *float32, v *byte, lines, n int", "weighGeneric, to the bit.")
	w, p, values, lines := arg("w"), arg("p"), arg("v"), arg("lines")
	g := &weigher{set: s, w: w, at: times(lines, weightBytes), p: p, values: values, exponents: map[uint32]Op{}}
	ADDQ(w, g.at)
	for _, v := range weighConstants {
		g.exponents[v] = s.constant(v)
	}
	g.before()
	count := 1
	if s.wide() {
		count = 4
		g.low = s.dword(0xffff)
	}
	for ; count > 0; count /= 4 {
		name := fmt.Sprint("lines", count)
		Label(name)
		CMPQ(lines, num(count))
		JLT(LabelRef("less" + name))
		g.some(count)
		SUBQ(num(count), lines)
		JMP(LabelRef(name))
		Label("less" + name)
	}
	s.end()
}

// What the largest becomes a scale by (see weightScale in package cpu).
const (
	nearlyNext   = 0x80
	leastLargest = 15 << 23
	exponentBits = 0xff << 23
	belowLargest = 14 << 23
	aboveLargest = 9<<23 | 1<<22
)

var weighConstants = []uint32{nearlyNext, leastLargest, exponentBits, belowLargest, aboveLargest}

// weigher is the state of weigh.
type weigher struct {
	set
	w, at, p, values Register // at: the lines' scales
	exponents        map[uint32]Op
	scales           []VecVirtual // of positions; in AVX2 in local
	low              VecVirtual
	local            Mem // lines' scales; in AVX2 the positions'
}

func (g *weigher) vectors() int { return pageRows / g.lanes() }

// before loads the positions' scales, 0 from n on.
func (g *weigher) before() {
	n := arg("n")
	if !g.wide() {
		g.local = AllocLocal(4 * pageRows)
		count := YMM()
		VMOVD(n.As32(), count.AsX())
		VPBROADCASTD(count.AsX(), count)
		for i := range g.vectors() {
			index, keep := g.vec(), g.vec()
			VPMOVZXBD(data("counted").Offset(8*i), index)
			VPCMPGTD(index, count, keep)
			VANDPS(g.f16(mem(g.values, 0), i), keep, keep)
			VMOVUPS(keep, g.local.Offset(i*g.bytes()))
		}
		return
	}
	g.local = AllocLocal(g.bytes())
	bits := GP64()
	MOVQ(I32(-1), bits)
	BZHIQ(n, bits, bits)
	for range g.vectors() {
		k, d := K(), g.vec()
		KMOVW(bits.As32(), k)
		SHRQ(U8(16), bits)
		VCVTPH2PS_Z(mem(g.values, 32*len(g.scales)), k, d)
		g.scales = append(g.scales, d)
	}
}

// factors are vector i of positions of line l, and their scales, one in memory.
func (g *weigher) factors(l, i int) (a Mem, b VecVirtual) {
	line := mem(g.p, 4*l*cutRows+i*g.bytes())
	if g.wide() {
		return line, g.scales[i]
	}
	v := g.vec()
	VMOVUPS(line, v)
	return g.local.Offset(i * g.bytes()), v
}

// some makes the weights of so many lines.
func (g *weigher) some(count int) {
	most := g.vecs(count)
	for l, m := range most {
		for i := range g.vectors() {
			a, b := g.factors(l, i)
			if i == 0 {
				VMULPS(a, b, m)
				continue
			}
			x := g.vec()
			VMULPS(a, b, x)
			VPMAXSD(x, m, m)
		}
	}
	added := g.added(most)
	half := 16 / g.lanes() // vectors of 16 positions
	for l := range most {
		rounded := func(i int) VecVirtual {
			x := g.vec()
			g.move(added[l], x)
			a, b := g.factors(l, i)
			VFMADD231PS(a, b, x)
			return x
		}
		for i := range g.vectors() {
			if i/half%2 == 1 {
				continue
			}
			lower, upper := rounded(i), rounded(i+half)
			VPSLLD(U8(16), upper, upper)
			if g.wide() {
				VPTERNLOGD(U8(0xf8), g.low, lower, upper) // upper | lower&low
			} else {
				VPBLENDW(U8(0x55), lower, upper, upper)
			}
			VMOVUPS(upper, mem(g.w, (i/half/2*half+i%half)*g.bytes()))
		}
		ADDQ(num(weightBytes), g.w)
	}
	ADDQ(num(4*cutRows*count), g.p)
}

// exponent makes, of the largest in v, its scale and what is added to products, v.
func (g *weigher) exponent(v, scale Register) {
	VPADDD(g.exponents[nearlyNext], v, v)
	VPMAXSD(g.exponents[leastLargest], v, v)
	g.and(g.exponents[exponentBits], v, v)
	VPSUBD(g.exponents[belowLargest], v, scale)
	VPADDD(g.exponents[aboveLargest], v, v)
}

// added is what is added to each line's products, in every lane, and stores the lines' scales.
func (g *weigher) added(most []VecVirtual) []VecVirtual {
	if len(most) == 1 {
		m, scale := most[0], g.vec()
		g.fold(m, maxInts)
		g.exponent(m, scale)
		VMOVSS(scale.AsX(), mem(g.at, 0))
		ADDQ(num(4), g.at)
		VPBROADCASTD(m.AsX(), m)
		return most
	}
	// four lines at once: a line's quarters are folded until each of four quarters is one line's
	for i := 0; i < 4; i += 2 {
		a, b := most[i], most[i+1]
		lower, upper := g.vec(), g.vec()
		VSHUFF32X4(U8(0x44), b, a, lower)
		VSHUFF32X4(U8(0xee), b, a, upper)
		VPMAXSD(upper, lower, a)
	}
	even, odd := g.vec(), g.vec()
	VSHUFF32X4(U8(0x88), most[2], most[0], even)
	VSHUFF32X4(U8(0xdd), most[2], most[0], odd)
	all, t := most[0], even
	VPMAXSD(odd, even, all)
	for _, order := range []uint8{0x4e, 0xb1} {
		VPSHUFD(U8(order), all, t)
		VPMAXSD(t, all, all)
	}
	scale, r := odd, GP32()
	g.exponent(all, scale)
	VMOVUPS(scale, g.local)
	added := g.vecs(4)
	for i, a := range added {
		VSHUFF32X4(U8(uint8(0x55*i)), all, all, a)
		MOVL(g.local.Offset(16*i), r)
		MOVL(r, mem(g.at, 4*i))
	}
	ADDQ(num(16), g.at)
	return added
}
