//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"drover/internal/quant"
)

// bench is a GPU with the library of one weight format, and a scratch buffer of
// NaNs in which a test places what a kernel reads and writes.
type bench struct {
	t                        *testing.T
	g                        *gpu
	f                        *format
	lib                      object
	pipelines                map[string]pipeline
	scratch, constants, args buffer
	used                     int // bytes of scratch
}

func newBench(t *testing.T, f *format) *bench {
	t.Helper()
	b := &bench{t: t, g: oneGPU(t), f: f, pipelines: map[string]pipeline{}}
	var err error
	if b.lib, err = b.g.compile(f.source()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range b.pipelines {
			p.id.release()
		}
		b.lib.release()
	})
	b.scratch, b.constants, b.args = b.g.mustTake(t, 2<<20), b.g.mustTake(t, 4<<10), b.g.mustTake(t, 256)
	b.clear()
	return b
}

// clear makes all of scratch NaNs, and empties it.
func (b *bench) clear() {
	for i := range b.scratch.data {
		b.scratch.data[i] = 0xff
	}
	b.used = 256
}

// floatsOf and words are bytes as numbers.
func floatsOf(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// take is the place of n more numbers in scratch.
func (b *bench) take(n int) (at uint64) {
	b.t.Helper()
	at = uint64(b.used)
	if b.used += (4*n + 255) &^ 255; b.used > len(b.scratch.data) {
		b.t.Fatal("scratch is full")
	}
	return at
}

// put places numbers in scratch.
func put[T float32 | int32](b *bench, x []T) uint64 {
	at := b.take(len(x))
	copy(unsafe.Slice((*T)(unsafe.Pointer(&b.scratch.data[at])), len(x)), x)
	return at
}

// rows are results: n rows of so many floats, ld apart.
type rows struct {
	at          uint64
	n, ld, cols int
}

// room takes room for results, with `before` in them: NaN if they are only written.
func (b *bench) room(n, cols int, before float32) rows {
	r := rows{n: n, ld: cols + 3, cols: cols}
	r.at = b.take(n * r.ld)
	for i := range n {
		for k := range cols {
			floatsOf(b.scratch.data[r.at:])[i*r.ld+k] = before
		}
	}
	return r
}

func (r rows) row(data []byte, i int) []float32 {
	return floatsOf(data[r.at:])[i*r.ld : i*r.ld+r.cols]
}

var nan = float32(math.NaN())

// run runs a kernel and gives its results, (n, cols) each. Whatever else is in
// scratch must be as it was.
func (b *bench) run(name string, l launch, args []byte, weights []buffer, results ...rows) (got [][]float32) {
	b.t.Helper()
	p, ok := b.pipelines[name]
	if !ok {
		var err error
		if p, err = b.g.pipeline(b.lib, name); err != nil {
			b.t.Fatal(err)
		}
		b.pipelines[name] = p
	}
	copy(b.args.data, args)
	before := bytes.Clone(b.scratch.data)
	pooled(func() {
		e := b.g.begin(name)
		e.bind(0, b.args, 0)
		for i := range 3 {
			e.bind(1+i, weights[min(i, len(weights)-1)], weightsAt)
		}
		e.bind(4, b.scratch, 0)
		e.bind(6, b.constants, 0)
		e.dispatch(p, l.groups, l.threads)
		if _, err := e.finish(name); err != nil {
			b.t.Fatal(err)
		}
	})
	for _, r := range results {
		var all []float32
		for i := range r.n {
			all = append(all, r.row(b.scratch.data, i)...)
			copy(r.row(before, i), r.row(b.scratch.data, i))
		}
		got = append(got, all)
	}
	if !bytes.Equal(before, b.scratch.data) {
		at := 0
		for before[at] == b.scratch.data[at] {
			at++
		}
		b.t.Fatalf("%s writes to byte %d of scratch, beyond its results %+v", name, at, results)
	}
	return got
}

func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// weightsAt is where matrices begin in their buffers: aligned as in files.
const weightsAt = 32

// weights is matrices (experts*rows, cols) of a type, in a buffer and as numbers.
type weights struct {
	rows, cols int
	raw        []byte
	in         buffer
	w          []float32
}

// load puts the blocks of matrices into a buffer.
func (b *bench) load(typ quant.Type, rows, cols int, raw []byte) *weights {
	b.t.Helper()
	n := len(raw) / typ.RowBytes(cols)
	m := &weights{rows: rows, cols: cols, raw: raw, w: make([]float32, n*cols), in: b.g.mustTake(b.t, weightsAt+n*b.f.rowBytes(cols))}
	quant.Dequantize(typ, m.w, raw)
	if b.f.converted {
		b.f.convert(typ, m.in.data[weightsAt:], raw)
	} else {
		copy(m.in.data[weightsAt:], raw)
	}
	return m
}

func (b *bench) random(typ quant.Type, rows, cols, experts int, seed uint64) *weights {
	b.t.Helper()
	raw := make([]byte, experts*rows*typ.RowBytes(cols))
	quant.Random(typ, raw, seed, 0.5)
	return b.load(typ, rows, cols, raw)
}

// asTiles rounds the weights as matmul does.
func (m *weights) asTiles(f *format) *weights {
	if f.name == "f32" || f.name == "bf16" {
		return m
	}
	rounded := *m
	rounded.w = make([]float32, len(m.w))
	for i, v := range m.w {
		rounded.w[i] = quant.F16ToF32(quant.F32ToF16(max(-65504, min(65504, v))))
	}
	return &rounded
}

// times is row r of m times x.
func (m *weights) times(r int, x []float32) (sum float64) {
	for k, w := range m.w[r*m.cols : (r+1)*m.cols] {
		sum += float64(w) * float64(x[k])
	}
	return sum
}

// inputs is rows of activations, normally distributed, in scratch; what lies between them are NaNs.
type inputs struct {
	x   [][]float32
	at  uint64
	ldx int
}

func (b *bench) inputs(n, cols int, seed uint64) inputs {
	b.t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	in := inputs{ldx: (cols+3)/4*4 + 4}
	in.at = b.take(n * in.ldx)
	for i := range n {
		x := make([]float32, cols)
		for k := range x {
			x[k] = float32(r.NormFloat64())
		}
		copy(floatsOf(b.scratch.data[in.at:])[i*in.ldx:], x)
		in.x = append(in.x, x)
	}
	return in
}

// from is the inputs from row i on.
func (in inputs) from(i int) inputs {
	return inputs{in.x[i:], in.at + 4*uint64(i*in.ldx), in.ldx}
}

// bias puts a bias of so many rows among the constants.
func (b *bench) bias(rows int) (at uint64, values []float32) {
	values = floatsOf(b.constants.data[256:])[:rows]
	for i := range values {
		values[i] = float32(i)/4 - 3
	}
	return 256, values
}

// product is the arguments of one without experts.
func (in inputs) product(cols, n int) Product {
	return Product{X: in.at, Matrices: 1, Cols: int32(cols), N: int32(n), LdX: int32(in.ldx)}
}

// nmse is the squared error over the squares of want.
func nmse(got []float32, want []float64) float64 {
	var e, s float64
	for i, w := range want {
		e += (float64(got[i]) - w) * (float64(got[i]) - w)
		s += w * w
	}
	return e / s
}

// tolerance is for sums in f32 of exact products: 1e-14 or so. Matmul is held to
// it with weights rounded as it rounds them, and to f16Tolerance with those of the file:
// relative errors are at most 2^-11, and of no sign.
const tolerance, f16Tolerance = 1e-12, 0x1p-22

func (b *bench) near(what string, got []float32, want []float64, limit float64) {
	b.t.Helper()
	if len(got) != len(want) {
		b.t.Fatalf("%s: %d results, want %d", what, len(got), len(want))
	}
	if e := nmse(got, want); !(e <= limit) {
		b.t.Fatalf("%s: NMSE %.1e, at most %.0e: %v, want %v", what, e, limit, got[:4], want[:4])
	}
}

// eachFormat runs test for every format, with a type that is read in it.
func eachFormat(t *testing.T, test func(b *bench, typ quant.Type)) {
	t.Helper()
	for i := range formats {
		f := &formats[i]
		typ := quant.NVFP4 // of those that are converted, the one with the smallest blocks
		if !f.converted {
			var err error
			if typ, err = quant.Parse(f.name); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(f.name, func(t *testing.T) { test(newBench(t, f), typ) })
	}
}

// shapes are rows and columns that end within a tile and, where blocks allow it,
// within a strip, a step of matmul, or one of a simdgroup.
func shapes(typ quant.Type) [][2]int {
	switch e := typ.BlockElems(); {
	case e == 1:
		return [][2]int{{37, 99}, {9, 1061}}
	case e < 256:
		return [][2]int{{37, 5 * max(e, 64)}, {9, 17 * max(e, 64)}}
	}
	return [][2]int{{37, 256}, {9, 5 * 256}}
}

// TestFormatOf: every type has a format; those without their own are converted,
// have no mins, for which converted weights have no room, and whole blocks of it.
func TestFormatOf(t *testing.T) {
	for _, typ := range quant.Types() {
		f := formatOf(typ)
		if own := f.name == strings.ToLower(typ.String()); own == f.converted {
			t.Errorf("%v is read as %s", typ, f.name)
		}
		if !f.converted && (f.columns != typ.BlockElems() || f.bytes != typ.BlockBytes()) {
			t.Errorf("%v: blocks of %d in %d bytes", typ, f.columns, f.bytes)
		}
		if f.converted && (quant.HasMin(typ) || typ.BlockElems()%f.columns != 0) {
			t.Errorf("%v cannot be converted", typ)
		}
		if got, want := f.matrixBytes(3, 512), uint64(3*512/f.columns*f.bytes); got != want {
			t.Errorf("%v: %d bytes, want %d", typ, got, want)
		}
	}
}

// TestEmbed: the weights of every type are those of Dequantize to the bit, also
// with scales of few bits.
func TestEmbed(t *testing.T) {
	for _, typ := range quant.Types() {
		t.Run(typ.String(), func(t *testing.T) {
			b := newBench(t, formatOf(typ))
			for i, s := range append(shapes(typ), [2]int{20, 1024}) {
				b.clear()
				rows, cols := s[0], s[1]
				raw := make([]byte, rows*typ.RowBytes(cols))
				quant.Random(typ, raw, uint64(i), []float32{0.5, 3000, 1e-5}[i])
				m := b.load(typ, rows, cols, raw)
				tokens := []int32{0, int32(rows - 1), 8, 7, 3}
				x := b.room(len(tokens), cols, nan)
				x.at, x.ld = b.take(len(tokens)*(cols+7)), (cols+3)/4*4+4
				e := Embed{X: x.at, Tokens: put(b, tokens), N: int32(len(tokens)), Dim: int32(cols), LdX: int32(x.ld)}
				got := b.run(b.f.embedName(), embedLaunch(len(tokens), cols), bytesOf(&e), []buffer{m.in}, x)[0]
				for i, v := range got {
					if want := m.w[int(tokens[i/cols])*cols+i%cols]; math.Float32bits(v) != math.Float32bits(want) {
						t.Fatalf("(%d, %d), row %d, column %d: %v, want %v", rows, cols, tokens[i/cols], i%cols, v, want)
					}
				}
			}
		})
	}
}

// three is three matrices that share their input, with bias and what was before.
type three struct {
	ms     []*weights
	bias   []float32 // of the first
	biasAt uint64
}

func (b *bench) three(typ quant.Type, rows, cols int) three {
	x := three{ms: []*weights{b.random(typ, rows, cols, 1, 1), b.random(typ, 6, cols, 1, 2), b.random(typ, 81, cols, 1, 3)}}
	x.biasAt, x.bias = b.bias(rows)
	return x
}

func (x three) rows() []int { return []int{x.ms[0].rows, x.ms[1].rows, x.ms[2].rows} }

// run multiplies the first n inputs; before is added if it is a number.
func (x three) run(b *bench, name string, l launch, in inputs, n int, before float32) [][]float32 {
	b.t.Helper()
	used := b.used
	defer func() { b.used = used }()
	p := in.product(x.ms[0].cols, n)
	p.Matrices = 3
	if before == before {
		p.Add = 1
	}
	var y []rows
	var weights []buffer
	for i, m := range x.ms {
		y, weights = append(y, b.room(n, m.rows, before)), append(weights, m.in)
		p.M[i] = Matrix{Y: y[i].at, Rows: int32(m.rows), LdY: int32(y[i].ld)}
	}
	p.M[0].Bias = x.biasAt
	return b.run(name, l, bytesOf(&p), weights, y...)
}

// want is the right results.
func (x three) want(in inputs, n int, before float32, rounded func(*weights) *weights) (all [][]float64) {
	if before != before {
		before = 0
	}
	for i, m := range x.ms {
		m = rounded(m)
		var want []float64
		for j := range n {
			for r := range m.rows {
				v := m.times(r, in.x[j]) + float64(before)
				if i == 0 {
					v += float64(x.bias[r])
				}
				want = append(want, v)
			}
		}
		all = append(all, want)
	}
	return all
}

func same(m *weights) *weights { return m }

// TestMatvec: products of 1 to 8 rows by three matrices are right, and a row's result
// has the same bits whatever else is in the batch.
func TestMatvec(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		for _, s := range shapes(typ) {
			b.clear()
			x := b.three(typ, s[0], s[1])
			in := b.inputs(decodeRows, s[1], 4)
			l := matvecLaunch(x.rows(), 1)
			var whole [][]float32 // of 8 rows
			for n := decodeRows; n >= 1; n-- {
				for _, before := range []float32{nan, 2.5} {
					name := b.f.matvecName(n)
					got := x.run(b, name, l, in, n, before)
					for i, want := range x.want(in, n, before, same) {
						b.near(name, got[i], want, tolerance)
					}
					if before == before {
						continue
					}
					if n == decodeRows {
						whole = got
					}
					for i, g := range got {
						if !slices.Equal(g, whole[i][:len(g)]) {
							b.t.Fatalf("%s: the first %d rows of matrix %d differ from those among 8", name, n, i)
						}
					}
				}
			}
			for j := range decodeRows {
				for i, g := range x.run(b, b.f.matvecName(1), l, in.from(j), 1, nan) {
					if m := x.ms[i].rows; !slices.Equal(g, whole[i][j*m:(j+1)*m]) {
						b.t.Fatalf("row %d of matrix %d alone differs from that among 8", j, i)
					}
				}
			}
		}
	})
}

// TestMatmul: products of prompts are right; kernels of both widths give the same
// bits, and those of a row do not depend on the others.
func TestMatmul(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		s := shapes(typ)
		for i, n := range []int{9, 33, 64, 65} {
			b.clear()
			x := b.three(typ, s[i%2][0]+64*(i/3), s[i%2][1])
			in := b.inputs(n, s[i%2][1], 4)
			before := []float32{nan, -1.5}[i/2]
			rounded := func(m *weights) *weights { return m.asTiles(b.f) }
			var first [][]float32
			for _, columns := range []int{32, 64} {
				name := b.f.matmulName(columns)
				got := x.run(b, name, matmulOf(columns, x.rows(), n, 1), in, n, before)
				exact := x.want(in, n, before, same)
				for i, want := range x.want(in, n, before, rounded) {
					b.near(name, got[i], want, tolerance)
					b.near(name+" of unrounded weights", got[i], exact[i], f16Tolerance)
				}
				if first == nil {
					first = got
				} else if !slices.EqualFunc(got, first, slices.Equal) {
					b.t.Fatalf("%s: other bits than the smaller kernel's", name)
				}
			}
			last := n - 9 // the rows from there on, among others
			for j, g := range x.run(b, b.f.matmulName(32), matmulOf(32, x.rows(), 9, 1), in.from(last), 9, before) {
				if m := x.ms[j].rows; !slices.Equal(g, first[j][last*m:]) {
					b.t.Fatalf("the last 9 of %d rows differ by themselves", n)
				}
			}
		}
	})
}

// matmulOf is matmulLaunch for the kernel of so many columns.
func matmulOf(columns int, rows []int, n, active int) launch {
	return launch{size{uintptr(ceil(n, columns)), uintptr(tiles(rows, 64)), uintptr(active)}, size{128, 1, 1}}
}

// TestMatmulLaunch: the launch covers all rows, and few rows take the small kernel.
func TestMatmulLaunch(t *testing.T) {
	for _, c := range []struct {
		rows       []int
		n, columns int
	}{{[]int{4096}, 9, 32}, {[]int{4096, 64, 65}, 512, 64}, {[]int{100}, 512, 32}, {[]int{11008, 11008}, 33, 64}} {
		columns, l := matmulLaunch(c.rows, c.n, 1, c.n)
		if columns != c.columns || l != matmulOf(c.columns, c.rows, c.n, 1) {
			t.Errorf("%v, %d rows of a batch: %d columns, %v", c.rows, c.n, columns, l)
		}
	}
	if columns, l := matmulLaunch([]int{1024}, 100, 8, 25); columns != 32 || l != matmulOf(32, []int{1024}, 100, 8) {
		t.Errorf("8 experts of 25 rows on average: %d columns, %v", columns, l)
	}
}

// expertList is the work list that route makes: which slots, row*used + rank, go to
// which expert.
func expertList(chosen [][]int32, experts int) (words []int32, active int) {
	used := len(chosen[0])
	var ids, order []int32
	first := []int32{0}
	for e := range int32(experts) {
		n := len(order)
		for row, ranks := range chosen {
			if rank := slices.Index(ranks, e); rank >= 0 {
				order = append(order, int32(row*used+rank))
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

// choose makes every row choose two of five experts: all of them the second, none the last.
func choose(n int) (chosen [][]int32) {
	for i := range n {
		chosen = append(chosen, [][]int32{{3, 1}, {1, 0}, {1, 2}}[i%3])
	}
	return chosen
}

const experts, expertsUsed = 5, 2

// mixture is what a product with experts reads.
type mixture struct {
	in     inputs
	chosen [][]int32
	list   uint64
	share  int
}

func (b *bench) mixture(n, cols, share int) mixture {
	x := mixture{chosen: choose(n), share: share}
	words, _ := expertList(x.chosen, experts)
	x.list = put(b, words)
	x.in = b.inputs(n*expertsUsed, cols, 7)
	return x
}

func (x mixture) product(m *weights, ldy int) Product {
	p := x.in.product(m.cols, len(x.chosen))
	p.Experts, p.Share, p.Total = x.list, int32(x.share), experts
	for i := range p.M[:2] {
		p.M[i] = Matrix{Rows: int32(m.rows), LdY: int32(ldy)}
	}
	return p
}

// times is the products of every slot's expert.
func (x mixture) times(m *weights) (want []float64) {
	for row, ranks := range x.chosen {
		for rank, e := range ranks {
			at := row*len(ranks) + rank
			if x.share == 1 {
				at = row
			}
			for r := range m.rows {
				want = append(want, m.times(int(e)*m.rows+r, x.in.x[at]))
			}
		}
	}
	return want
}

// TestExperts: the slots of each active expert get its product, from the row's
// input or the slot's own, in both classes.
func TestExperts(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		rows, cols := shapes(typ)[0][0], shapes(typ)[0][1]
		m := b.random(typ, rows, cols, experts, 5)
		for i, n := range []int{1, 2, 8, 40} {
			b.clear()
			x := b.mixture(n, cols, i%2)
			y := b.room(n*expertsUsed, rows, nan)
			p := x.product(m, y.ld)
			p.M[0].Y, p.M[0].Stride = y.at, b.f.matrixBytes(rows, cols)
			name, l, want := b.f.matvecName(n), matvecLaunch([]int{rows}, min(experts, n*expertsUsed)), x.times(m)
			if n > decodeRows {
				var columns int
				columns, l = matmulLaunch([]int{rows}, n, experts, n*expertsUsed/experts)
				name, want = b.f.matmulName(columns), x.times(m.asTiles(b.f))
			}
			got := b.run(name, l, bytesOf(&p), []buffer{m.in}, y)
			b.near(name, got[0], want, tolerance)
		}
	})
}

// TestGate: the gated activation is right, with and without experts, and a row's
// has the same bits whatever else is in the batch.
func TestGate(t *testing.T) {
	eachFormat(t, func(b *bench, typ quant.Type) {
		rows, cols := shapes(typ)[0][0], shapes(typ)[0][1]
		gate, up := b.random(typ, rows, cols, 1, 3), b.random(typ, rows, cols, 1, 4)
		l := gateLaunch(rows, 1)
		b.clear()
		in := b.inputs(decodeRows, cols, 6)
		var whole []float32
		for _, n := range []int{8, 3, 2, 1} {
			act := b.room(n, rows, nan)
			g := Gate{Product: in.product(cols, n), Act: act.at, LdAct: int32(act.ld)}
			g.Matrices, g.M[0].Rows, g.M[1].Rows = 2, int32(rows), int32(rows)
			got := b.run(b.f.gateName(n), l, bytesOf(&g), []buffer{gate.in, up.in}, act)[0]
			if n == 8 {
				whole = got
			}
			if !slices.Equal(got, whole[:len(got)]) {
				b.t.Fatalf("the first %d rows differ from those among 8", n)
			}
			var want []float64
			for j := range n {
				for r := range rows {
					want = append(want, silu(gate.times(r, in.x[j]))*up.times(r, in.x[j]))
				}
			}
			b.near(b.f.gateName(n), got, want, tolerance)
		}
		gate, up = b.random(typ, rows, cols, experts, 3), b.random(typ, rows, cols, experts, 4)
		for _, n := range []int{1, 7} {
			b.clear()
			x := b.mixture(n, cols, 1)
			act := b.room(n*expertsUsed, rows, nan)
			g := Gate{Product: x.product(gate, 0), Act: act.at, LdAct: int32(act.ld)}
			g.Matrices, g.M[0].Stride, g.M[1].Stride = 2, b.f.matrixBytes(rows, cols), b.f.matrixBytes(rows, cols)
			got := b.run(b.f.gateName(n), gateLaunch(rows, min(experts, n*expertsUsed)), bytesOf(&g), []buffer{gate.in, up.in}, act)
			want, ups := x.times(gate), x.times(up)
			for i := range want {
				want[i] = silu(want[i]) * ups[i]
			}
			b.near(b.f.gateName(n)+" of experts", got[0], want, tolerance)
		}
	})
}

func silu(x float64) float64 { return x / (1 + math.Exp(-x)) }

// scales are where a block has its f16 scales, beside the types of real numbers and MXFP4.
func scales(typ quant.Type) []int {
	switch typ {
	case quant.Q4_1, quant.Q5_1, quant.Q4_K, quant.Q5_K:
		return []int{0, 2}
	case quant.Q2_K:
		return []int{80, 82}
	case quant.Q3_K:
		return []int{108}
	case quant.Q6_K:
		return []int{208}
	}
	return []int{0}
}

// TestExtremes: blocks of equal bits with the largest scales, and large activations.
func TestExtremes(t *testing.T) {
	const most = 0x7bff // of f16
	eachFormat(t, func(b *bench, typ quant.Type) {
		rows, cols := 4, 512
		for _, bits := range []byte{0x00, 0xff, 0x7f, 0x80} {
			raw := bytes.Repeat([]byte{bits}, rows*typ.RowBytes(cols))
			for block := 0; block < len(raw); block += typ.BlockBytes() {
				switch at := raw[block:]; typ {
				case quant.F32:
					binary.LittleEndian.PutUint32(at, math.Float32bits(1e10*float32(int8(bits))))
				case quant.BF16:
					binary.LittleEndian.PutUint16(at, quant.F32ToBF16(1e10*float32(int8(bits))))
				case quant.F16:
					binary.LittleEndian.PutUint16(at, most|uint16(bits&0x80)<<8)
				case quant.MXFP4:
					at[0] = 160
				case quant.NVFP4:
					copy(at, []byte{0x7e, 0x7e, 0x7e, 0x7e})
				default:
					for _, d := range scales(typ) {
						binary.LittleEndian.PutUint16(at[d:], most)
					}
				}
			}
			b.clear()
			m := b.load(typ, rows, cols, raw)
			in := b.inputs(9, cols, 1)
			for j, x := range in.x {
				for k := range x {
					x[k] = float32(1+k%7) * 1e20
				}
				copy(floatsOf(b.scratch.data[in.at:])[j*in.ldx:], x)
			}
			for n, name := range map[int]string{1: b.f.matvecName(1), 8: b.f.matvecName(8), 9: b.f.matmulName(32)} {
				l, rounded := matvecLaunch([]int{rows}, 1), m
				if n > decodeRows {
					l, rounded = matmulOf(32, []int{rows}, n, 1), m.asTiles(b.f)
				}
				y := b.room(n, rows, nan)
				p := in.product(cols, n)
				p.M[0] = Matrix{Y: y.at, Rows: int32(rows), LdY: int32(y.ld)}
				got := b.run(name, l, bytesOf(&p), []buffer{m.in}, y)[0]
				for i, v := range got {
					want, size := rounded.times(i%rows, in.x[0]), 0.0
					for k, w := range rounded.w[i%rows*cols:][:cols] {
						size += math.Abs(float64(w) * float64(in.x[0][k]))
					}
					if !(math.Abs(float64(v)-want) <= 1e-5*size) {
						b.t.Fatalf("%s of blocks of %#x: %v, want %v", name, bits, v, want)
					}
				}
			}
		}
	})
}

// TestProductsWatched runs the tests of one format of each kind again on a GPU of the
// oldest family, without bfloat, where the software device looks for races and for
// threadgroup memory that is not written, gives matrices another layout, and runs
// threads in another order.
func TestProductsWatched(t *testing.T) {
	oneGPU(t)
	cmd := exec.Command(os.Args[0], "-test.run=^(TestEmbed|TestMatvec|TestMatmul|TestExperts|TestGate)$/^(f32|bf16|q4_k|mxfp4|BF16|Q6_K)$", "-test.v")
	cmd.Env = append(os.Environ(), "DROVER_METALSIM_FAMILY=apple7", "DROVER_METALSIM_BFLOAT=0", "DROVER_METALSIM_CHECK=1", "DROVER_METALSIM_LAYOUT=5", "DROVER_METALSIM_ORDER=3")
	said, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(said, []byte("--- PASS: TestM")) < 8 {
		t.Errorf("%v\n%s", err, said)
	}
}
