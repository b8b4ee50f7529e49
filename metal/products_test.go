//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"drover/internal/quant"
)

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
