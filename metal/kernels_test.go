//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"bytes"
	"math"
	"math/rand/v2"
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
