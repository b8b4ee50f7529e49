package cpu

import (
	"fmt"
	"math"
	"testing"
	"time"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// Rates of the kernels, one core, beside that core's limits: %read is of the
// bandwidth that it reads memory with, measured before each benchmark; %peak of
// int8 products in registers, or of the float32 product, which was found to
// reach what multiply-adds in registers do.

// inL2 and inMemory are sizes of weights; those in memory are timed a piece at a
// time, one piece after another, so that some go undisturbed.
const (
	inL2     = 384 << 10
	inMemory = 192 << 20
	piece    = 4 << 20
)

// limit is a rate in amounts a nanosecond (GB/s, GOP/s) and what a share of it
// is called.
type limit struct {
	rate float64
	name string
}

// bed is where kernels are measured: weights in memory, and one set's limits.
type bed struct {
	k             *kernels
	weights       []byte
	int8, float32 limit
}

// eachSet runs f for every kernel set but the generic one.
func eachSet(b *testing.B, f func(b *testing.B, t *bed)) {
	weights, err := reserve(inMemory, true)
	if err != nil {
		b.Fatal(err)
	}
	defer release(weights)
	fill(weights, 1)
	for _, k := range kernelSets() {
		if k.isa == "generic" {
			continue
		}
		b.Run(k.isa, func(b *testing.B) {
			f(b, &bed{k: k, weights: weights, int8: limit{intPeak(k), "%peak"}, float32: floatPeak(k)})
		})
	}
}

// read is the bandwidth of so many cores as of now, of the best piece of the weights.
func (t *bed) read(threads int) limit {
	d, p, rate := &device{k: t.k}, newPool(threads, choosePlaces(threads)), 0.0
	defer p.close()
	for at := 0; at < len(t.weights); at += piece {
		rate = max(rate, d.readRate(p, t.weights[at:at+piece]))
	}
	return limit{rate / 1e9, "%read"}
}

// floatPeak is the best of the float32 product.
func floatPeak(k *kernels) limit {
	d, p, rate := &device{k: k}, newPool(1, places{}), 0.0
	for range 10 {
		rate = max(rate, d.floatRate(p))
	}
	return limit{rate / 1e9, "%peak"}
}

// fastest runs f and reports amount/ns (GB/s, GOP/s) of the fastest run, since
// other processes slow down the rest. f tells its own time.
func fastest(b *testing.B, amount int, unit string, l limit, f func() time.Duration) {
	least := time.Duration(math.MaxInt64)
	for b.Loop() {
		least = min(least, f())
	}
	rate := float64(amount) / float64(max(1, least.Nanoseconds()))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, unit)
	if l.rate > 0 {
		b.ReportMetric(100*rate/l.rate, l.name)
	}
}

// timed makes f tell its time.
func timed(f func()) func() time.Duration {
	return func() time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
}

func (k kind) String() string { return typeOf[k].String() }

// BenchmarkPeak is the limits.
func BenchmarkPeak(b *testing.B) {
	eachSet(b, func(b *testing.B, t *bed) {
		read := limit{}
		for b.Loop() {
			if r := t.read(1); r.rate > read.rate {
				read = r
			}
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(read.rate, "GB/s")
		b.ReportMetric(t.int8.rate, "int8-GOP/s")
		b.ReportMetric(t.float32.rate, "float32-GOP/s")
	})
}

// BenchmarkProduct multiplies a matrix of each format with the rows of one
// decoded token, of some, and of a prompt's tile. Weights from the L2 cache show
// what the kernel could do were memory faster.
func BenchmarkProduct(b *testing.B) {
	const tile = 8 * groupRows // a prompt's matrix: its rows
	eachSet(b, func(b *testing.B, t *bed) {
		for kd := range kinds {
			for _, c := range []struct {
				name             string
				rows, cols, size int
			}{
				{"decode1/L2", 1, 1024, inL2}, {"decode1/memory", 1, 4096, inMemory},
				{"decode4/memory", 4, 4096, inMemory}, {"decode8/L2", 8, 1024, inL2}, {"decode8/memory", 8, 4096, inMemory}, {"decode32/memory", 32, 4096, inMemory},
				{"prompt", passRows, 2048, tile / groupRows * kd.groupBytes(2048)},
			} {
				b.Run(kd.String()+"/"+c.name, func(b *testing.B) {
					f, bytes := t.product(kd, c.rows, c.cols, t.weights[:c.size])
					switch {
					case c.name != "prompt":
						fastest(b, bytes, "GB/s", t.read(1), f)
					case kd.float():
						fastest(b, 2*c.rows*c.cols*tile, "GOP/s", t.float32, f)
					default:
						fastest(b, 2*c.rows*c.cols*tile, "GOP/s", t.int8, f)
					}
				})
			}
		}
	})
}

// product is a stage's multiply of rows with as many groups as a piece of the
// weights holds, each time the next piece, and the bytes of these.
func (t *bed) product(kd kind, rows, cols int, weights []byte) (f func() time.Duration, bytes int) {
	stride := kd.groupBytes(cols)
	groups, r := min(len(weights), piece)/stride, pad(rows, panelsRows)
	m := &matrix{kind: kd, rows: groups * groupRows, cols: cols, groups: groups, parts: 1, stride: stride}
	m.strip = m.stripOf()
	s := &stage{k: t.k, pool: newPool(1, places{}), act: make([]byte, (r+fewRows)*cols/blockCols*tileRecord/tileRows), actFloat: make([]float32, r*cols),
		panels: [][]byte{make([]byte, panelGroups*cols*4*groupRows)},
		tiles:  [][]float32{make([]float32, 2*tileSize+tileRing/4)}}
	s.products.next = make([]counter, 1)
	s.tasks.prep, s.tasks.multiply = s.prepRows, s.multiplyShares
	ld := pad(m.rows, 2*groupRows)
	p := product{m: m, dst: make([]float32, r*ld), ld: ld}
	s.input(input{x: values(rows * cols), ld: cols, cols: cols, rows: rows}, m)
	at, size := 0, groups*stride
	return timed(func() {
		if at+size > len(weights) {
			at = 0
		}
		m.data = weights[at : at+size]
		at += size
		s.multiply(nil, p)
	}), size
}

// values are n small numbers.
func values(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i%17) - 8
	}
	return x
}

// BenchmarkPanels multiplies two unpacked groups of 2048 columns with some panels:
// what BenchmarkProduct's prompts do besides unpacking.
func BenchmarkPanels(b *testing.B) {
	const cols = 2048
	eachSet(b, func(b *testing.B, t *bed) {
		for p := range panelKinds {
			b.Run([...]string{"32", "32M", "16", "16M"}[p], func(b *testing.B) {
				const n = cols / blockCols
				rows, record := t.k.strip(n), t.k.recordBytes()
				strips := stripRows / rows
				act, dst, ring := make([]byte, strips*rows*n*record), make([]float32, rows*2*groupRows), make([]byte, tileRing)
				fastest(b, 2*strips*cols*2*groupRows*rows, "GOP/s", t.int8, timed(func() {
					for i := range strips {
						t.k.multiplyRows(p, &dst[0], 2*groupRows, &t.weights[0], &t.weights[n*t.k.panelBytes(p)], &act[i*rows*n*record], n, rows, &ring[0])
					}
				}))
			})
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	const cols = 2048
	eachSet(b, func(b *testing.B, t *bed) {
		for kd := kindQ8_0; kd < kindI8; kd++ {
			b.Run(kd.String(), func(b *testing.B) {
				w, panel := make([]byte, kd.groupBytes(cols)), make([]byte, cols/32*t.k.panelBytes(kd.panel()))
				fastest(b, len(panel), "GB/s", limit{}, timed(func() { t.k.unpack[kd](&panel[0], &w[0], cols/32) }))
			})
		}
	})
}

// BenchmarkPack packs rows from memory into memory, 4 MiB at a time, and again
// and again the same group, as products do where weights stay in the file. It
// reports bytes of the file. The limit of the first is what copy reports.
func BenchmarkPack(b *testing.B) {
	const cols = 4096
	src, err := reserve(inMemory, true)
	if err != nil {
		b.Fatal(err)
	}
	defer release(src)
	dst, err := reserve(inMemory*5/4, true)
	if err != nil {
		b.Fatal(err)
	}
	defer release(dst)
	fill(src, 1)
	clear(dst)
	b.Run("copy", func(b *testing.B) {
		const each = 4 << 20
		at := 0
		fastest(b, each, "GB/s", limit{}, timed(func() {
			copy(dst[at:at+each], src[at:at+each])
			if at += each; at == inMemory {
				at = 0
			}
		}))
	})
	from, to := 0, 0 // go on where the last left off: what lies there has left the caches
	for _, k := range kernelSets() {
		for kd := range kindI8 {
			p := newPacker(k, typeOf[kd], cols)
			size, stride := groupRows*typeOf[kd].RowBytes(cols), kd.groupBytes(cols)
			b.Run(k.isa+"/"+kd.String()+"/memory", func(b *testing.B) {
				each := 4 << 20 / size
				fastest(b, each*size, "GB/s", limit{}, timed(func() {
					if from+each*size > len(src) || to+each*stride > len(dst) {
						from, to = 0, 0
					}
					for range each {
						p.group(dst[to:to+stride], src[from:from+size], groupRows)
						from, to = from+size, to+stride
					}
				}))
			})
			b.Run(k.isa+"/"+kd.String()+"/cache", func(b *testing.B) {
				fastest(b, size, "GB/s", limit{}, timed(func() { p.group(dst[:stride], src[:size], groupRows) }))
			})
		}
	}
}

// BenchmarkRaw multiplies rows of a file's blocks with one row, and packs them
// before it does, as products do where weights stay in the file. It reports bytes of
// the file.
func BenchmarkRaw(b *testing.B) {
	const cols = 4096
	act := make([]byte, cols*4)
	var dst [groupRows]float32
	eachSet(b, func(b *testing.B, t *bed) {
		from := 0 // go on where the last left off: what lies there has left the caches
		for kd := range kinds {
			raw := t.k.raw[kd]
			if raw == nil {
				continue
			}
			p, n := newPacker(t.k, typeOf[kd], cols), cols
			if !kd.float() {
				n /= blockCols
			}
			row := p.t.RowBytes(cols)
			size, group := groupRows*row, make([]byte, kd.groupBytes(cols))
			each := piece / size * size
			groups := func(f func(src []byte)) func() time.Duration {
				return timed(func() {
					if from+each > len(t.weights) {
						from = 0
					}
					for end := from + each; from < end; from += size {
						f(t.weights[from : from+size])
					}
				})
			}
			b.Run(kd.String()+"/L2", func(b *testing.B) {
				fastest(b, size, "GB/s", limit{}, timed(func() { raw(&dst[0], &t.weights[0], &act[0], row, n) }))
			})
			b.Run(kd.String()+"/memory", func(b *testing.B) {
				fastest(b, each, "GB/s", t.read(1), groups(func(src []byte) { raw(&dst[0], &src[0], &act[0], row, n) }))
			})
			b.Run(kd.String()+"/packed", func(b *testing.B) {
				fastest(b, each, "GB/s", t.read(1), groups(func(src []byte) {
					p.group(group, src, groupRows)
					t.k.gemv[kd](&dst[0], &group[0], &act[0], n, 1, len(group))
				}))
			})
		}
	})
}

// BenchmarkVectors reports bytes of the float32 (or cache) values read; all stay
// in the cache.
func BenchmarkVectors(b *testing.B) {
	const n, dim = 4096, 128
	const page = backend.PageRows * dim
	x, y, z := values(n), values(n), make([]float32, page)
	act, cache := make([]byte, n*4*panelRows), make([]byte, page*2)
	eachSet(b, func(b *testing.B, t *bed) {
		k := t.k
		for _, c := range []struct {
			name  string
			bytes int
			f     func()
		}{
			{"quantize1", n * 4, func() { k.quantize(&act[0], &x[0], n/32, 1, 0, 64) }},
			{"quantize6", n * 4, func() { k.quantize(&act[0], &x[0], n/32, panelRows, 3, 64*panelRows) }},
			{"widenF16", page * 2, func() { k.widenF16(&z[0], &cache[0], page) }},
			{"softmax", cutRows * 4, func() { k.softmax(&y[0], &z[0], cutRows, 1) }},
			{"siluMul", n * 8, func() { k.siluMul(&z[0], &x[0], &y[0], n) }},
			{"sumSquares", n * 4, func() { k.sumSquares(&x[0], n) }},
			{"scaleMul", n * 8, func() { k.scaleMul(&z[0], &x[0], &y[0], 2, n) }},
			{"rmsNorm", n * 8, func() { k.rmsNorm(&z[0], &x[0], &y[0], 1e-5, n) }},
			{"add", n * 8, func() { k.add(&z[0], &x[0], n) }},
		} {
			b.Run(c.name, func(b *testing.B) {
				clear(z)
				fastest(b, c.bytes, "GB/s", limit{}, timed(c.f))
			})
		}
	})
}

// BenchmarkLines reports the operations of lines on one page of keys, or of
// values, that stays in the cache.
func BenchmarkLines(b *testing.B) {
	const most, dim = 8, 128
	const page = backend.PageRows * dim
	eachSet(b, func(b *testing.B, t *bed) {
		k := t.k
		cache := make([]byte, page*4)
		q, x, acc, w := values(most*dim), values(most*cutRows), make([]float32, most*dim), make([]float32, weightsSize(most))
		z, parts := make([]float32, most*cutRows), make([]part, most)
		for _, lines := range []int{1, most} {
			for _, c := range []struct {
				name string
				f    func()
			}{
				{"scoreF32", func() { k.scoreF32(&x[0], &q[0], &cache[0], &cache[0], lines, dim) }},
				{"scoreF16", func() { k.scoreF16(&x[0], &q[0], &cache[0], &cache[0], lines, dim) }},
				{"scoreQ8", func() { k.scoreQ8(&x[0], &q[0], &cache[0], &cache[0], lines, dim) }},
				{"accumF32", func() { k.accumF32(&acc[0], &x[0], &cache[0], &cache[0], lines, backend.PageRows, dim) }},
				{"accumF16", func() { k.accumF16(&acc[0], &x[0], &cache[0], &cache[0], lines, backend.PageRows, dim) }},
				{"softmax", func() { k.softmax(&parts[0].most, &z[0], cutRows, lines) }},
				{"weigh", func() {
					for range dim / blockCols {
						k.weigh(&w[0], &x[0], &cache[0], lines, backend.PageRows)
					}
				}},
				{"accumQ8", func() {
					for i := range dim / blockCols {
						v := &cache[i*34*backend.PageRows]
						k.accumQ8(&acc[i*blockCols], &w[0], v, v, lines, dim)
					}
				}},
			} {
				b.Run(fmt.Sprintf("%s/%d", c.name, lines), func(b *testing.B) {
					fastest(b, 2*lines*page, "GOP/s", t.float32, timed(c.f))
				})
			}
		}
	})
}

// fill writes weights that are finite in every layout, and normal: an Intel core takes a
// hundred cycles where one is not.
func fill(w []byte, seed uint64) {
	quant.Random(quant.F32, w[:len(w)/2], seed, 1)
	copy(w[len(w)/2:], w[:len(w)/2])
	f := unsafe.Slice((*uint32)(unsafe.Pointer(&w[0])), len(w)/4)
	for i := range f {
		f[i] = f[i]&0x3fff3fff | 0x20002000
	}
}
