package cpu

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"drover/internal/quant"
)

// The tests of this file hold every kernel set to the generic one, over inputs
// that end where memory ends (guarded).

// matrixCase is one matrix product that gemv and gemm both make.
type matrixCase struct {
	t          *testing.T
	k, generic *kernels
	kind       kind
	n          int // blocks or columns
	stride     int
	w          []byte    // groups
	x          []float32 // (panelRows, cols)
	groups     int
	raw        []byte // the rows that they were packed from, if raw multiplies those
}

func newMatrixCase(t *testing.T, k *kernels, kd kind, n, groups int) *matrixCase {
	c := &matrixCase{t: t, k: k, generic: generic(), kind: kd, n: n, groups: groups}
	c.stride = kd.groupBytes(c.cols())
	c.w = guarded(t, groups*c.stride)
	c.x = guardedFloats(t, panelRows*c.cols())
	return c
}

func (c *matrixCase) cols() int {
	if c.kind.float() {
		return c.n
	}
	return c.n * blockCols
}

func (c *matrixCase) name() string {
	return fmt.Sprintf("%s %v, %d blocks, %d groups", c.k.isa, c.kind, c.n, c.groups)
}

func guardedFloats(t *testing.T, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(guarded(t, 4*n)))), n)
}

// packRandom fills the groups with random weights, whose last group lacks rows.
func (c *matrixCase) packRandom(seed uint64) {
	typ := typeOf[c.kind]
	size := typ.RowBytes(c.cols())
	raw := make([]byte, c.groups*groupRows*size)
	quant.Random(typ, raw, seed, 0.2)
	c.pack(raw, size)
}

func (c *matrixCase) pack(raw []byte, size int) {
	if c.k.raw[c.kind] != nil && c.cols()%packCols == 0 {
		c.raw = raw
	}
	for g := range c.groups {
		rows := groupRows
		if g > 0 && g == c.groups-1 {
			rows = 11
		}
		newPacker(generic(), typeOf[c.kind], c.cols()).group(c.w[g*c.stride:(g+1)*c.stride], raw[g*groupRows*size:], rows)
	}
}

func (c *matrixCase) normalRows(r *rand.Rand) {
	for i := range c.x {
		c.x[i] = float32(r.NormFloat64())
	}
}

// check multiplies one row after another and six at once.
func (c *matrixCase) check() {
	c.t.Helper()
	one := c.rowByRow(c.k, 0)
	if e := nmse(one, c.rowByRow(c.generic, 0)); !(e < 1e-12) {
		c.t.Fatalf("%s: NMSE %g to generic", c.name(), e)
	}
	if first := c.n / 2 &^ 7; first > 0 {
		for i, got := range c.rowByRow(c.k, first) {
			if math.Float32bits(got) != math.Float32bits(one[i]) {
				c.t.Fatalf("%s: element %d is %g at once, %g where %d are multiplied first", c.name(), i, one[i], got, first)
			}
		}
	}
	if c.raw != nil {
		c.checkRaw(one)
	}
	if c.k.gemvRows[c.kind] != nil {
		for rows := 1; rows <= fewRows; rows++ {
			c.checkFew(rows, one)
		}
	}
	for g := range c.groups {
		h := min(g+1, c.groups-1)
		many := c.manyRows(g, h)
		for row := range len(many) / (2 * groupRows) {
			for i := range 2 * groupRows {
				at := g*groupRows + i
				if i >= groupRows {
					at = h*groupRows + i - groupRows
				}
				want := one[row%panelRows*c.groups*groupRows+at]
				if got := many[row*2*groupRows+i]; math.Float32bits(got) != math.Float32bits(want) {
					c.t.Fatalf("%s: row %d of groups %d and %d, element %d: many rows give %g, one gives %g", c.name(), row, g, h, i, got, want)
				}
			}
		}
	}
}

// checkRaw holds raw, of groups that have all rows, to packed ones.
func (c *matrixCase) checkRaw(packed []float32) {
	c.t.Helper()
	size := typeOf[c.kind].RowBytes(c.cols())
	act, dst, group := guarded(c.t, c.cols()*2), guardedFloats(c.t, groupRows), guarded(c.t, groupRows*size)
	for g := range max(1, c.groups-1) {
		copy(group, c.raw[g*groupRows*size:])
		for row := range panelRows {
			in := bytesOf(&c.x[row*c.cols()])
			if !c.kind.float() {
				c.k.quantize(&act[0], &c.x[row*c.cols()], c.n, 1, 0, 64)
				in = &act[0]
			}
			c.k.raw[c.kind](&dst[0], &group[0], in, size, c.n)
			for i, got := range dst {
				if want := packed[(row*c.groups+g)*groupRows+i]; math.Float32bits(got) != math.Float32bits(want) {
					c.t.Fatalf("%s: row %d of group %d, element %d: %g of the file's blocks, %g packed", c.name(), row, g, i, got, want)
				}
			}
		}
	}
}

// checkFew holds gemvRows to rows one by one.
func (c *matrixCase) checkFew(rows int, one []float32) {
	c.t.Helper()
	const canary = float32(12345)
	width, step := c.groups*groupRows, c.n*64
	ld := width + 3
	act, dst := guarded(c.t, fewRows*step), guardedFloats(c.t, (rows-1)*ld+width)
	for row := range fewRows {
		c.k.quantize(&act[row*step], &c.x[row%panelRows*c.cols()], c.n, 1, 0, 64)
	}
	for i := range dst {
		if i%ld >= width {
			dst[i] = canary
		}
	}
	c.k.gemvRows[c.kind](&dst[0], ld, &c.w[0], &act[0], step, c.n, c.groups, c.stride, rows)
	for i, got := range dst {
		want := canary
		if i%ld < width {
			want = one[i/ld%panelRows*width+i%ld]
		}
		if math.Float32bits(got) != math.Float32bits(want) {
			c.t.Fatalf("%s: row %d of %d, element %d: %g at once, %g alone", c.name(), i/ld, rows, i%ld, got, want)
		}
	}
}

// rowByRow is (panelRows, groups*16), of the first blocks or columns and then of the rest.
func (c *matrixCase) rowByRow(k *kernels, first int) []float32 {
	cols, width := c.cols(), c.groups*groupRows
	dst := guardedFloats(c.t, width)
	out := make([]float32, 0, panelRows*width)
	act := guarded(c.t, cols*2)
	unit, record := blockCols, 64 // 64 groups have no padding
	if c.kind.float() {
		unit, record = 1, 4
	}
	for row := range panelRows {
		in := bytesOf(&c.x[row*cols])
		if !c.kind.float() {
			k.quantize(&act[0], &c.x[row*cols], c.n, 1, 0, 64)
			in = &act[0]
		}
		clear(dst)
		if first > 0 {
			k.gemv[c.kind](&dst[0], &c.w[0], in, first, c.groups, c.stride)
		}
		k.gemv[c.kind](&dst[0], &c.w[c.kind.groupBytes(64*first*unit)/64], skipBytes(in, first*record), c.n-first, c.groups, c.stride)
		out = append(out, dst...)
	}
	return out
}

// manyRows is (rows, 32) of groups g and h: of panelRows, or of some records of tileRows, row i that of x's row
// i%panelRows.
func (c *matrixCase) manyRows(g, h int) []float32 {
	const ld = 2*groupRows + 5
	canary := float32(12345)
	rows := panelRows
	if c.k.tiled() && !c.kind.float() {
		rows = (1 + c.n%3) * tileRows
	}
	dst := guardedFloats(c.t, (rows-1)*ld+2*groupRows)
	for i := range dst {
		dst[i] = canary
	}
	a, b := &c.w[g*c.stride], &c.w[h*c.stride]
	if c.kind.float() {
		act := guardedFloats(c.t, panelRows*c.n)
		for i := range act {
			act[i] = c.x[i%panelRows*c.n+i/panelRows]
		}
		c.k.gemmFloat[c.kind](&dst[0], ld, a, b, bytesOf(&act[0]), c.n)
	} else {
		act := guarded(c.t, c.n*c.k.recordBytes()*rows)
		ring := guarded(c.t, tileRing)
		for row := range rows {
			x := &c.x[row%panelRows*c.cols()]
			if c.k.tiled() {
				c.k.quantizeTiles(&act[row/tileRows*c.n*tileRecord], x, c.n, row%tileRows)
			} else {
				c.k.quantize(&act[0], x, c.n, panelRows, row, 64*panelRows)
			}
		}
		if c.k.unpack[c.kind] != nil {
			a, b = &c.unpack(c.k, g)[0], &c.unpack(c.k, h)[0]
		}
		c.k.multiplyRows(c.kind.panel(), &dst[0], ld, a, b, &act[0], c.n, rows, &ring[0])
	}
	var out []float32
	for row := range rows {
		out = append(out, dst[row*ld:][:2*groupRows]...)
		if row < rows-1 {
			for _, v := range dst[row*ld+2*groupRows : (row+1)*ld] {
				if v != canary {
					c.t.Fatalf("%s: gemm writes beyond its 32 columns", c.name())
				}
			}
		}
	}
	return out
}

// unpack is the panel of group g, the same from every set.
func (c *matrixCase) unpack(k *kernels, g int) []byte {
	size := c.n * k.panelBytes(c.kind.panel())
	panel, want := guarded(c.t, size), make([]byte, size)
	// the group alone, so that nothing is read behind it
	w := guarded(c.t, c.stride)
	copy(w, c.w[g*c.stride:])
	k.unpack[c.kind](&panel[0], &w[0], c.n)
	c.definitions().unpack[c.kind](&want[0], &w[0], c.n)
	if !bytes.Equal(panel, want) {
		c.t.Fatalf("%s: unpacked group %d differs from generic", c.name(), g)
	}
	return panel
}

// definitions are the generic kernels with the set's panels.
func (c *matrixCase) definitions() *kernels {
	if c.k.tiled() {
		return genericTiles()
	}
	return c.generic
}

// nmse is the error of got as a share of want's energy.
func nmse(got, want []float32) float64 {
	var num, den float64
	for i, v := range got {
		d := float64(v) - float64(want[i])
		num, den = num+d*d, den+float64(want[i])*float64(want[i])
	}
	return num / max(den, 1e-300)
}

// eachShape runs f for every set and kind, over lengths and numbers of groups.
func eachShape(t *testing.T, f func(t *testing.T, k *kernels, kd kind, n, groups int)) {
	for _, k := range sets() {
		for kd := range kinds {
			t.Run(fmt.Sprintf("%s/%v", k.isa, kd), func(t *testing.T) {
				step := max(1, typeOf[kd].BlockElems()/blockCols) // of a superblock
				groups := 0
				for n := step; n <= 40; n += step {
					if (k.isa == "generic" || k.isa == "tiles") && n > 2*step {
						break // it is held to itself
					}
					f(t, k, kd, n, 1+groups%5)
					groups++
				}
			})
		}
	}
}

func TestMatrixShapes(t *testing.T) {
	const seed = 11
	eachShape(t, func(t *testing.T, k *kernels, kd kind, n, groups int) {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		c := newMatrixCase(t, k, kd, n, groups)
		c.packRandom(uint64(seed + n))
		c.normalRows(r)
		if n%3 == 0 { // a block of zeros, one of tiny values, one with a single large value
			clear(c.x[:min(len(c.x), blockCols)])
			c.x[0] = 1e-35
			c.x[len(c.x)-1] = 3e4
		}
		c.check()
	})
}

// halfFields are the offsets of a block's f16 scales and mins.
var halfFields = [kinds][]int{kindQ8_0: {0}, kindQ4_0: {0}, kindQ4_1: {0, 2}, kindQ5_0: {0}, kindQ5_1: {0, 2},
	kindQ2_K: {80, 82}, kindQ3_K: {108}, kindQ4_K: {0, 2}, kindQ5_K: {0, 2}, kindQ6_K: {208}, kindIQ4_NL: {0}, kindIQ4_XS: {0}}

// TestMatrixExtremes has weights and activations whose products are the largest
// there are, where 16-bit sums would saturate.
func TestMatrixExtremes(t *testing.T) {
	const seed = 12
	bytesAt := [][]byte{{0xff}, {0}, {0x80}, {0x7f}, {0, 0xff}, {0x80, 0x7f}, {0xf0, 0x0f}}
	signs := [][]float32{{1}, {-1}, {1, -1}, {1, 1, -1, -1}}
	for _, k := range sets() {
		for kd := kindQ8_0; kd < kinds; kd++ {
			t.Run(fmt.Sprintf("%s/%v", k.isa, kd), func(t *testing.T) { // which gives its memory back
				for i, choice := range bytesAt {
					for j, sign := range signs {
						r := rand.New(rand.NewPCG(seed, uint64(i*10+j)))
						c := newMatrixCase(t, k, kd, 8, 2)
						c.packExtreme(r, choice)
						for i := range c.x {
							c.x[i] = sign[i%len(sign)]
							if i >= len(c.x)/2 { // the other rows mix the signs
								c.x[i] = sign[r.IntN(len(sign))]
							}
						}
						c.check()
					}
				}
			})
		}
	}
}

// packExtreme fills blocks with bytes of choice, and scales of 1.
func (c *matrixCase) packExtreme(r *rand.Rand, choice []byte) {
	if c.kind < kindI8 {
		typ := typeOf[c.kind]
		raw := make([]byte, c.groups*groupRows*typ.RowBytes(c.cols()))
		for i := range raw {
			raw[i] = choice[r.IntN(len(choice))]
		}
		for b := 0; b < len(raw); b += typ.BlockBytes() {
			for _, at := range halfFields[c.kind] {
				raw[b+at], raw[b+at+1] = 0, 0x3c
			}
			if c.kind == kindMXFP4 {
				raw[b] = 128
			}
		}
		c.pack(raw, typ.RowBytes(c.cols()))
		return
	}
	size := c.kind.panel().bytes()
	for b := 0; b < len(c.w); b += size {
		for i := range 512 {
			c.w[b+i] = choice[r.IntN(len(choice))]
		}
		f := at[float32](&c.w[b+512], 0, (size-512)/4)
		for i := range f {
			f[i] = 1
		}
	}
}

// TestMatrixSmall has blocks whose weights are within 16 or 32 of the bias, at the
// bounds, which AVX2 multiplies in another way, and one weight just beyond them.
func TestMatrixSmall(t *testing.T) {
	const seed, n = 15, 8
	for _, k := range kernelSets() {
		for _, f := range []struct {
			kind       kind
			size, most int
		}{{kindQ8_0, 544, 16}, {kindI8, 640, 32}} {
			for beyond := -1; beyond < n; beyond++ { // the block that has it
				r := rand.New(rand.NewPCG(seed, uint64(beyond)))
				c := newMatrixCase(t, k, f.kind, n, 2)
				for i := range c.x {
					c.x[i] = float32(r.IntN(2)*2 - 1)
					if i < len(c.x)/2 {
						c.x[i] = 1
					}
				}
				for b := 0; b < len(c.w); b += f.size {
					least, most := byte(128-f.most), byte(127+f.most)
					for i := range 512 {
						c.w[b+i] = []byte{least, most, most, most}[r.IntN(4)]
					}
					if b/f.size%n == beyond {
						c.w[b+r.IntN(512)] = []byte{least - 1, most + 1}[r.IntN(2)]
					}
					for i := 512; i < f.size; i += 4 { // about 1, as a float32 and as two f16
						copy(c.w[b+i:], []byte{0, 0x3c, 0x80, 0x3f})
					}
				}
				c.check()
			}
		}
	}
}

func TestQuantize(t *testing.T) {
	const seed = 13
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for n := 1; n <= 9; n++ {
			for _, T := range []int{1, panelRows} {
				x := guardedFloats(t, n*blockCols)
				got, want := guarded(t, n*64*T), make([]byte, n*64*T)
				for i := range got {
					got[i], want[i] = 0xa5, 0xa5
				}
				for row := range T {
					for i := range x {
						x[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()*float64(i/blockCols)))
					}
					for i := range blockCols { // halves, which round to even
						x[i] = (float32(r.IntN(255)) - 127) / 2
					}
					x[r.IntN(blockCols)] = 127
					if n > 2 {
						clear(x[blockCols : 2*blockCols])
						x[2*blockCols-1] = []float32{0, tiny, tiny / 2, -1e-38}[r.IntN(4)]
					}
					k.quantize(&got[0], &x[0], n, T, row, 64*T)
					quantizeGeneric(&want[0], &x[0], n, T, row, 64*T)
				}
				for b := range n { // dwords 15 are unused
					g, w := got[b*64*T:(b+1)*64*T], want[b*64*T:(b+1)*64*T]
					if !bytes.Equal(g[:60*T], w[:60*T]) {
						t.Fatalf("%s, %d blocks, records of %d rows: block %d is\n%v, want\n%v", k.isa, n, T, b, g, w)
					}
				}
			}
		}
	}
}

// TestQuantizeTiles: every set with tiles writes the definition's records.
func TestQuantizeTiles(t *testing.T) {
	const n = 5
	x := values(tileRows * n * blockCols)
	clear(x[:blockCols])
	for _, k := range sets() {
		if !k.tiled() {
			continue
		}
		got, want := guarded(t, n*tileRecord), make([]byte, n*tileRecord)
		for row := range tileRows {
			k.quantizeTiles(&got[0], &x[row*n*blockCols], n, row)
			quantizeTilesGeneric(&want[0], &x[row*n*blockCols], n, row)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: records differ from generic", k.isa)
		}
	}
}

// TestQuantizeRows: rows of one block each, one after another, are what they are one by one.
func TestQuantizeRows(t *testing.T) {
	const step = 3 * 64 * panelRows
	x := values(panelRows * blockCols)
	for _, k := range kernelSets() {
		for rows := range panelRows + 1 {
			got, want := make([]byte, step), make([]byte, step)
			for row := range rows {
				k.quantize(&want[64*panelRows], &x[row*blockCols], 1, panelRows, row, step)
			}
			if rows > 0 {
				k.quantize(&got[64*panelRows], &x[0], rows, panelRows, 0, 4)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d rows are\n%v, want\n%v", k.isa, rows, got, want)
			}
		}
	}
}

// TestQuantizeNaN: a NaN or an infinity among the values must not vanish.
func TestQuantizeNaN(t *testing.T) {
	for _, k := range kernelSets() {
		for i := range blockCols {
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				var x [blockCols]float32
				var act [64]byte
				var dst [groupRows]float32
				x[i], x[(i+7)%blockCols] = float32(bad), 2
				k.quantize(&act[0], &x[0], 1, 1, 0, 64)
				w := make([]byte, kindQ4_0.groupBytes(blockCols))
				for i := range groupRows {
					w[256+2*i+1] = 0x3c
				}
				k.gemv[kindQ4_0](&dst[0], &w[0], &act[0], 1, 1, len(w))
				for r, v := range dst {
					if !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) {
						t.Fatalf("%s: %g in column %d gives %g in row %d", k.isa, bad, i, v, r)
					}
				}
			}
		}
	}
}
