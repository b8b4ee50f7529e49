//go:build linux && cgo

package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"drover/internal/quant"
)

// weightCard is a device with the kernels of one weight format.
type weightCard struct {
	t       *testing.T
	d       *device
	s       *stream
	m       *module
	prompt  *module // products for prompts, where a test has loaded them
	f       *format
	kernels map[string]*kernel
	buffers []uint64
}

func newWeightCard(t *testing.T, d *device, f *format) *weightCard {
	t.Helper()
	c := &weightCard{t: t, d: d, f: f, kernels: map[string]*kernel{}}
	text, err := ptx(f.module(), "sm_80")
	if err != nil {
		t.Fatal(err)
	}
	if c.m, err = c.d.module(text); err != nil {
		t.Fatal(err)
	}
	if c.s, err = c.d.stream(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range c.buffers {
			c.check(c.d.free(p))
		}
		c.check(c.s.close())
		c.check(c.m.close())
	})
	return c
}

func (c *weightCard) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *weightCard) launch(name string, l launch, args unsafe.Pointer) {
	c.t.Helper()
	k := c.kernels[name]
	if k == nil {
		var err error
		k, err = c.m.kernel(name)
		c.check(err)
		c.kernels[name] = k
	}
	c.check(c.s.launch(k, l.grid, l.block, 0, args))
}

func (c *weightCard) bytes(n int) uint64 {
	c.t.Helper()
	p, err := c.d.alloc(uint64(n))
	c.check(err)
	c.buffers = append(c.buffers, p)
	return p
}

// upload copies a slice to a new buffer.
func upload[T any](c *weightCard, x []T) uint64 {
	c.t.Helper()
	n := len(x) * int(unsafe.Sizeof(x[0]))
	p := c.bytes(n)
	c.check(c.s.copyIn(p, unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), n)))
	c.check(c.s.sync())
	return p
}

// download reads n values.
func download[T any](c *weightCard, p uint64, n int) []T {
	c.t.Helper()
	x := make([]T, n)
	b, err := c.d.hostAlloc(n * int(unsafe.Sizeof(x[0])))
	c.check(err)
	c.check(c.s.copyOut(b, p))
	c.check(c.s.sync())
	copy(x, unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n))
	c.check(c.d.hostFree(b))
	return x
}

// packedMatrix is random weights of a type, on the device and as numbers.
type packedMatrix struct {
	rows, cols int
	at         uint64
	w          []float32 // (experts*rows, cols)
}

// random packs experts matrices (rows, cols) in pieces of 32 rows.
func (c *weightCard) random(typ quant.Type, rows, cols, experts int, seed uint64) packedMatrix {
	c.t.Helper()
	size, stride := typ.RowBytes(cols), c.f.packedBytes(rows, cols)
	raw := make([]byte, experts*rows*size)
	quant.Random(typ, raw, seed, 0.5)
	m := packedMatrix{rows, cols, c.bytes(experts * int(stride)), make([]float32, experts*rows*cols)}
	quant.Dequantize(typ, m.w, raw)
	for e := range experts {
		for lo := 0; lo < rows; lo += 32 {
			hi := min(lo+32, rows)
			piece := raw[(e*rows+lo)*size : (e*rows+hi)*size]
			if c.f.converted {
				piece = converted(typ, piece, (hi-lo)*cols)
			}
			p := Pack{Raw: upload(c, piece), W: m.at + uint64(e)*stride, Rows: int32(hi - lo), First: int32(lo), Cols: int32(cols), Total: int32(rows)}
			c.launch("pack_"+c.f.name, c.f.packLaunch(hi-lo, cols), unsafe.Pointer(&p))
			c.check(c.s.sync())
		}
	}
	return m
}

// converted is n weights as int8 and then f32 scales.
func converted(typ quant.Type, src []byte, n int) []byte {
	q, scale := make([]int8, n), make([]float32, n/16)
	quant.Ints(typ, q, scale, nil, src)
	var b []byte
	for _, v := range q {
		b = append(b, byte(v))
	}
	for _, v := range scale {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

// byLanes puts A16 in the order that decode reads.
func byLanes(half []uint16) []uint16 {
	lanes := make([]uint16, len(half))
	for i := range half {
		word := i / 2 % 8 // of its 16 columns
		t, odd, step := word%4, word/4, i%64/16
		lanes[i/64*64+16*t+4*step+2*odd+i%2] = half[i]
	}
	return lanes
}

// byBlocks is a row in A16 as decode reads it: a scale of each 32 columns, 2^-24
// times the sum of each 16, and the values that it stands for.
func byBlocks(x []float32, kpad int) (half []uint16, scales, sums []float32, rounded []float64) {
	for k := 0; k < kpad; k += 32 {
		block := make([]float32, 32)
		copy(block, x[min(k, len(x)):])
		h, scale, r := a16(block, 32, false)
		half, scales = append(half, h...), append(scales, scale)
		for i := 0; i < 32; i += 16 {
			var sum float32
			for _, v := range h[i : i+16] {
				sum += quant.F16ToF32(v)
			}
			sums = append(sums, sum*scale/(1<<24))
		}
		rounded = append(rounded, r...)
	}
	return byLanes(half), scales, sums, rounded[:len(x)]
}

// input is rows of activations on the device, and the values that they stand for.
type input struct {
	x                        [][]float64
	half, scale, sums, plain uint64
	kpad, ldx                int
}

func (c *weightCard) input(rows, cols int, seed uint64) input {
	c.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	in := input{kpad: pad(cols, 256), ldx: pad(cols, 4) + 4}
	var halves []uint16
	var scales, sums []float32
	plain := make([]float32, rows*in.ldx)
	for row := range rows {
		x := plain[row*in.ldx:][:cols]
		for i := range x {
			x[i] = float32(r.NormFloat64())
			if row == 1 && i < 64 {
				x[i] = 0
			}
		}
		half, scale, sum, rounded := byBlocks(x, in.kpad)
		halves, scales, sums = append(halves, half...), append(scales, scale...), append(sums, sum...)
		if c.f.float {
			for i := range x {
				rounded[i] = float64(x[i])
			}
		}
		in.x = append(in.x, rounded)
	}
	in.half, in.scale, in.sums, in.plain = upload(c, halves), upload(c, scales), upload(c, sums), upload(c, plain)
	return in
}

// product is the arguments that all products share.
func (c *weightCard) product(in *input, cols, n int) Product {
	p := Product{Matrices: 1, Cols: int32(cols), N: int32(n), KPad: int32(in.kpad), LdX: int32(in.ldx), X: in.plain}
	if !c.f.float {
		p.Half, p.Scale, p.Sums = in.half, in.scale, in.sums
	}
	return p
}

// times is row r of m times x.
func (m *packedMatrix) times(r int, x []float64) float64 {
	var sum float64
	for k, w := range m.w[r*m.cols : (r+1)*m.cols] {
		sum += float64(w) * x[k]
	}
	return sum
}

// ofExperts is the products of every slot's expert, of which each has so many
// rows, with the row's x (share 1) or the slot's own.
func (m *packedMatrix) ofExperts(chosen [][]int32, share, rows int, x [][]float64) (want []float64) {
	for row, ranks := range chosen {
		for rank, e := range ranks {
			at := row
			if share == 0 {
				at = row*len(ranks) + rank
			}
			for r := range rows {
				want = append(want, m.times(int(e)*rows+r, x[at]))
			}
		}
	}
	return want
}

func errorOf(got []float32, want []float64) float64 {
	var e, s float64
	for i, w := range want {
		e += (float64(got[i]) - w) * (float64(got[i]) - w)
		s += w * w
	}
	return e / s
}

// decodeTolerance is for f32 sums of exact products, 1e-13 or so. A card's tensor
// cores cut products by subnormals to fewer bits (matvec.cu): with quants of two bits
// a few 1e-12, computed for an H100 as it is known to align and cut.
func decodeTolerance() float64 {
	if onCard() {
		return 1e-10
	}
	return 1e-11
}

// eachFormat runs test for every format, with a type that is packed in it.
func eachFormat(t *testing.T, test func(c *weightCard, typ quant.Type)) {
	for i := range formats {
		f := &formats[i]
		typ := quant.IQ3_S // of those that the host converts
		if !f.converted {
			var err error
			if typ, err = quant.Parse(f.name); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(f.name, func(t *testing.T) { test(newWeightCard(t, cards(t, 0)[0], f), typ) })
	}
}

// weightShapes are rows and columns that end within a tile and, where blocks
// allow it, within a chunk; and more chunks than warps.
func weightShapes(typ quant.Type) [][2]int {
	switch typ.BlockElems() {
	case 1:
		return [][2]int{{40, 100}, {24, 64 * 17}}
	case 32:
		return [][2]int{{40, 416}, {24, 256 * 17}}
	}
	return [][2]int{{40, 768}, {24, 256 * 17}}
}

// Embedding gives the weights as Dequantize does, to the bit.
func TestEmbed(t *testing.T) {
	eachFormat(t, func(c *weightCard, typ quant.Type) {
		for i, s := range weightShapes(typ) {
			m := c.random(typ, s[0], s[1], 1, uint64(i))
			tokens := []int32{0, int32(m.rows - 1), 8, 7, 17}
			ldx := m.cols + 4
			x := upload(c, make([]float32, len(tokens)*ldx))
			e := Embed{W: m.at, X: x, Tokens: upload(c, tokens), N: int32(len(tokens)), Dim: int32(m.cols), LdX: int32(ldx)}
			c.launch("embed_"+c.f.name, c.f.embedLaunch(len(tokens), m.cols), unsafe.Pointer(&e))
			got := download[float32](c, x, len(tokens)*ldx)
			for i, token := range tokens {
				want := m.w[int(token)*m.cols:][:m.cols]
				if g := got[i*ldx:][:m.cols]; !slices.Equal(g, want) {
					k := 0
					for g[k] == want[k] {
						k++
					}
					c.t.Fatalf("%v: row %d of (%d, %d), column %d: %v, want %v", typ, token, m.rows, m.cols, k, g[k], want[k])
				}
				if rest := got[i*ldx+m.cols : (i+1)*ldx]; !slices.Equal(rest, make([]float32, 4)) {
					c.t.Fatalf("%v: wrote beyond row %d: %v", typ, token, rest)
				}
			}
		}
	})
}

// matvec runs one launch for the matrices and gives (n, rows) of each.
func (c *weightCard) matvec(name string, l launch, p Product, ms []packedMatrix, bias uint64, before []float32) [][]float32 {
	c.t.Helper()
	p.Matrices = int32(len(ms))
	for i, m := range ms {
		y := slices.Repeat(before[:1], int(p.N)*m.rows)
		p.M[i] = Matrix{W: m.at, Y: upload(c, y), Rows: int32(m.rows), LdY: int32(m.rows)}
		if i == 0 {
			p.M[i].Bias = bias
		}
	}
	c.launch(name, l, unsafe.Pointer(&p))
	var got [][]float32
	for i, m := range ms {
		got = append(got, download[float32](c, p.M[i].Y, int(p.N)*m.rows))
	}
	return got
}

// Products of 1 to 8 columns and three matrices are right, and a column's result
// has the same bits whatever else is in the batch.
func TestMatvec(t *testing.T) {
	eachFormat(t, func(c *weightCard, typ quant.Type) {
		for i, s := range weightShapes(typ) {
			rows, cols := s[0], s[1]
			ms := []packedMatrix{c.random(typ, rows, cols, 1, 10+uint64(i)), c.random(typ, 16, cols, 1, 20+uint64(i)), c.random(typ, 72, cols, 1, 30+uint64(i))}
			in := c.input(8, cols, uint64(i))
			bias := make([]float32, rows)
			for j := range bias {
				bias[j] = float32(j) - 7.5
			}
			biasAt := upload(c, bias)
			var whole [][]float32 // of 8 columns
			for n := 8; n >= 1; n-- {
				for tiles := 1; tiles <= c.f.tiles; tiles++ {
					p := c.product(&in, cols, n)
					p.Add = int32(n % 2)
					before := []float32{float32(n % 2 * 3)}
					name, l := c.f.matvecName(tiles), c.f.matvecLaunch(tiles, []int{rows, 16, 72}, cols, 1)
					got := c.matvec(name, l, p, ms, biasAt, before)
					for j, m := range ms {
						var want []float64
						for column := range n {
							for r := range m.rows {
								v := m.times(r, in.x[column]) + float64(before[0])
								if j == 0 {
									v += float64(bias[r])
								}
								want = append(want, v)
							}
						}
						if e := errorOf(got[j], want); !(e <= decodeTolerance()) {
							c.t.Fatalf("%s of %v (%d, %d), %d columns, matrix %d: NMSE %.1e: %v, want %v", name, typ, m.rows, cols, n, j, e, got[j][:4], want[:4])
						}
					}
					if n == 8 && tiles == 1 {
						whole = got
					}
					if n%2 == 0 {
						for j, m := range ms {
							if !slices.Equal(got[j], whole[j][:n*m.rows]) {
								c.t.Fatalf("%s of %v: the first %d columns of matrix %d differ from those among 8", name, typ, n, j)
							}
						}
					}
				}
			}
			c.alone(ms, in, whole, biasAt)
		}
	})
}

// alone wants of every column by itself what it was among 8.
func (c *weightCard) alone(ms []packedMatrix, in input, whole [][]float32, bias uint64) {
	c.t.Helper()
	for column := range 8 {
		p := c.product(&in, ms[0].cols, 1)
		p.Half += uint64(2 * column * in.kpad)
		if p.Scale != 0 {
			p.Scale += uint64(4 * column * in.kpad / 32)
			p.Sums += uint64(4 * column * in.kpad / 16)
		}
		p.X += uint64(4 * column * in.ldx)
		name, l := c.f.matvecName(1), c.f.matvecLaunch(1, []int{ms[0].rows, ms[1].rows, ms[2].rows}, ms[0].cols, 1)
		for j, got := range c.matvec(name, l, p, ms, bias, []float32{0}) {
			if rows := ms[j].rows; !slices.Equal(got, whole[j][column*rows:][:rows]) {
				c.t.Fatalf("%s: column %d of matrix %d alone differs from that among 8", name, column, j)
			}
		}
	}
}

// expertList is the work list that route makes: which pairs (row, rank) go to
// which expert.
func expertList(chosen [][]int32, experts int) (words []int32, active int) {
	used := len(chosen[0])
	var ids, order []int32
	first := []int32{0}
	for e := range int32(experts) {
		n := len(order)
		for row, ranks := range chosen {
			for rank, id := range ranks {
				if id == e {
					order = append(order, int32(row*used+rank))
				}
			}
		}
		if len(order) > n {
			ids, first = append(ids, e), append(first, int32(len(order)))
		}
	}
	words = []int32{int32(len(ids)), int32(used), 0, 0}
	words = append(append(words, ids...), make([]int32, experts-len(ids))...)
	words = append(append(words, first...), make([]int32, experts+1-len(first))...)
	return append(words, order...), len(ids)
}

// Experts: the slots of each active expert get its product, from the row's input
// or the slot's own.
func TestMatvecExperts(t *testing.T) {
	chosen := [][]int32{{4, 1}, {1, 0}, {1, 4}}
	const experts, used = 6, 2
	eachFormat(t, func(c *weightCard, typ quant.Type) {
		s := weightShapes(typ)[0]
		rows, cols := s[0], s[1]
		m := c.random(typ, rows, cols, experts, 5)
		list, _ := expertList(chosen, experts)
		at := upload(c, list)
		for share := range 2 {
			in := c.input(len(chosen)*used, cols, 9)
			p := c.product(&in, cols, len(chosen))
			p.Experts, p.Share, p.Total = at, int32(share), experts
			y := upload(c, make([]float32, len(chosen)*used*rows))
			p.M[0] = Matrix{W: m.at, Y: y, Rows: int32(rows), LdY: int32(rows), Stride: c.f.packedBytes(rows, cols)}
			name, l := c.f.matvecName(1), c.f.matvecLaunch(1, []int{rows}, cols, len(chosen)*used)
			c.launch(name, l, unsafe.Pointer(&p))
			got := download[float32](c, y, len(chosen)*used*rows)
			want := m.ofExperts(chosen, share, rows, in.x)
			if e := errorOf(got, want); !(e <= decodeTolerance()) {
				c.t.Fatalf("%s of %v, share %d: NMSE %.1e", name, typ, share, e)
			}
		}
	})
}

// The gated activation is right.
func TestMatvecGate(t *testing.T) {
	eachFormat(t, func(c *weightCard, typ quant.Type) {
		for i, s := range weightShapes(typ) {
			rows, cols := s[0], s[1]
			gate, up := c.random(typ, rows, cols, 1, 3), c.random(typ, rows, cols, 1, 4)
			in := c.input(8, cols, uint64(i))
			for _, n := range []int{1, 3, 8} {
				ldact, kpad := rows+4, pad(rows, 256)
				g := Gate{Product: c.product(&in, cols, n), To: Outputs{LdOut: int32(ldact), KPad: int32(kpad), Lanes: 1}}
				g.Matrices = 2
				g.M[0], g.M[1] = Matrix{W: gate.at, Rows: int32(rows)}, Matrix{W: up.at, Rows: int32(rows)}
				g.To.Out, g.To.Half = upload(c, make([]float32, n*ldact)), upload(c, make([]uint16, n*kpad))
				g.To.Scale, g.To.Sums = upload(c, make([]float32, n*kpad/32)), upload(c, make([]float32, n*kpad/16))
				c.launch("matvec_gate_"+c.f.name, c.f.gateLaunch(rows, cols, 1), unsafe.Pointer(&g))
				act := download[float32](c, g.To.Out, n*ldact)
				halves, scales := download[uint16](c, g.To.Half, n*kpad), download[float32](c, g.To.Scale, n*kpad/32)
				sums := download[float32](c, g.To.Sums, n*kpad/16)
				var got []float32
				var want []float64
				for column := range n {
					row := act[column*ldact:][:rows]
					got = append(got, row...)
					for r := range rows {
						v := gate.times(r, in.x[column])
						want = append(want, v/(1+math.Exp(-v))*up.times(r, in.x[column]))
					}
					if rest := act[column*ldact+rows:][:4]; !slices.Equal(rest, make([]float32, 4)) {
						c.t.Fatalf("gate of %v (%d, %d): wrote beyond column %d: %v", typ, rows, cols, column, rest)
					}
					half, scale, sum, _ := byBlocks(row, kpad)
					if !slices.Equal(halves[column*kpad:][:kpad], half) || !slices.Equal(scales[column*kpad/32:][:kpad/32], scale) {
						c.t.Fatalf("gate of %v (%d, %d), column %d of %d: halves or their scales are not those of the values", typ, rows, cols, column, n)
					}
					for i, v := range sum {
						if e := math.Abs(float64(v - sums[column*kpad/16+i])); !(e <= 1e-3*float64(scale[i/2])/(1<<24)) {
							c.t.Fatalf("gate of %v (%d, %d), column %d of %d: sum %d is %v, want %v", typ, rows, cols, column, n, i, sums[column*kpad/16+i], v)
						}
					}
				}
				if e := errorOf(got, want); !(e <= decodeTolerance()) {
					c.t.Fatalf("gate of %v (%d, %d), %d columns: NMSE %.1e", typ, rows, cols, n, e)
				}
			}
		}
	})
}

// Every type has a format; those without their own are converted, and have no
// mins, for which converted weights have no room.
func TestFormatOf(t *testing.T) {
	for _, typ := range quant.Types() {
		f := formatOf(typ)
		if own := f.name == strings.ToLower(typ.String()); own == Converts(typ) {
			t.Errorf("%v is packed as %s, by the host: %v", typ, f.name, Converts(typ))
		}
		if Converts(typ) && (quant.HasMin(typ) || typ.BlockElems() < 16) {
			t.Errorf("%v cannot be converted", typ)
		}
		if got, want := f.packedBytes(17, f.columns+1), uint64(4*f.bytes); got != want {
			t.Errorf("%v: 2 tiles of 2 chunks take %d bytes, want %d", typ, got, want)
		}
	}
	if f := formatOf(quant.Q4_0); fmt.Sprint(f.warps(128), f.warps(640), f.warps(4096)) != "1 8 8" {
		t.Errorf("warps of 1, 5 and 32 chunks: %d, %d, %d", f.warps(128), f.warps(640), f.warps(4096))
	}
}
