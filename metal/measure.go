//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"context"
	"errors"
	"time"

	"drover/backend"
	"drover/internal/quant"
)

// Measurement is kernels/measure.metal's: Rounds of each thread, results at Out.
type Measurement struct {
	Out, Apart uint64
	Rounds     uint32
	_          uint32
}

// meter is what Measure runs on.
type meter struct {
	d    *device
	data buffer
	ctx  context.Context
	err  error
}

// measured is about how long each thing is timed, in seconds; the best of several
// readings counts, since a limit is what the GPU can do.
const measured, readings = 0.02, 5

// Measure times the GPU for about a second. It takes up to 1 GiB of memory, which is
// more than any cache, and gives it back.
func (d *device) Measure(ctx context.Context) (backend.Rates, error) {
	var read, copied, rate, nothing *pipeline
	s := &set{source: text("outputs", "measure")}
	s.add("read", 256, &read)
	s.add("copy", 256, &copied)
	s.add("matrix_rate", 256, &rate)
	s.add("nothing", 256, &nothing)
	if err := d.fill(s); err != nil {
		return backend.Rates{}, err
	}
	const most, least = 1 << 30, 1 << 20
	size := uint64(most)
	for free := d.free(); size > free/2 && size > least; {
		size /= 2
	}
	data, err := d.take(size)
	if err != nil {
		return backend.Rates{}, err
	}
	defer data.release()
	b := &meter{d: d, data: data, ctx: ctx}
	var r backend.Rates
	for _, step := range []func(){
		func() { r.Launch = b.launches(nothing) },
		func() { r.Matrix = b.matrixRate(rate) },
		func() { r.Read = b.memoryRate(read, 1) },
		func() { r.Copy = b.memoryRate(copied, 2) },
		func() { r.Format = b.formatRates() },
	} {
		if b.err = errors.Join(b.err, ctx.Err()); b.err != nil {
			return backend.Rates{}, b.err
		}
		step()
	}
	return r, b.err
}

// time is the seconds that the GPU takes for what write writes.
func (b *meter) time(write func(e encoder)) (seconds float64) {
	pooled(func() {
		if b.err != nil {
			return
		}
		e := b.d.begin("measure")
		e.bind(argScratch, b.data, 0)
		e.bind(argConstants, b.data, 0)
		write(e)
		seconds, b.err = e.finish("measure")
	})
	return seconds
}

// rate is units a second of work of n units, where n is doubled from 1 to most or
// until once takes long: a slow device is not asked for what a fast one needs to show
// its speed.
func (b *meter) rate(most uint64, write func(e encoder, n uint64)) float64 {
	n := uint64(1)
	for n < most && b.err == nil && b.time(func(e encoder) { write(e, n) }) < measured {
		n = min(2*n, most)
	}
	least := 0.
	for i := range readings {
		if t := b.time(func(e encoder) { write(e, n) }); i == 0 || t < least {
			least = t
		}
		if least > measured*readings || b.err != nil { // slow enough to be exact
			break
		}
	}
	return float64(n) / least
}

func (e encoder) measure(p *pipeline, m Measurement, groups, threads uintptr) {
	args := m
	e.constants(argArgs, bytesFrom(&args))
	e.dispatch(*p, size{groups, 1, 1}, size{threads, 1, 1})
}

// launches is the seconds that a dispatch takes beside those before and after it,
// the messages that write it among them.
func (b *meter) launches(k *pipeline) float64 {
	n := 1
	for b.err == nil {
		began := time.Now()
		b.time(func(e encoder) {
			for range n {
				e.measure(k, Measurement{Rounds: 1}, 1, 32)
			}
		})
		if t := time.Since(began).Seconds(); t > measured || n == 1<<14 {
			return t / float64(n)
		}
		n *= 2
	}
	return 0
}

// matrixRate is in operations a second, of half products with sums in float.
func (b *meter) matrixRate(k *pipeline) float64 {
	const perRound, simds = 8 * 1024, 8 // operations of a simdgroup's round, simdgroups of a threadgroup
	groups := uintptr(256)
	if simulated {
		groups = 4
	}
	return perRound * simds * float64(groups) * b.rate(1<<14, func(e encoder, n uint64) {
		e.measure(k, Measurement{Rounds: uint32(n)}, groups, 32*simds)
	})
}

// memoryRate is in bytes a second, over memory that no cache holds; ways is 1 to
// read, 2 to write as well.
func (b *meter) memoryRate(k *pipeline, ways uint64) float64 {
	groups := uint64(1024)
	unit := func() uint64 { return 256 * 16 * groups } // what the threads read in one round
	for groups > 1 && unit() > uint64(len(b.data.data))/8 {
		groups /= 2
	}
	if simulated {
		groups = 4
	}
	half := uint64(len(b.data.data)) / 2
	return float64(ways*unit()) * b.rate(half/unit(), func(e encoder, n uint64) {
		e.measure(k, Measurement{Out: half, Apart: half, Rounds: uint32(n)}, uintptr(groups), 256)
	})
}

// formatRates is bytes of weights a second in products by one row, in the formats
// that models are mostly in.
func (b *meter) formatRates() map[quant.Type]float64 {
	const cols, unit, inputs = 4096, 256, 1 << 16 // a unit is 256 rows; activations and results lie last
	rates := map[quant.Type]float64{}
	for _, t := range []quant.Type{quant.F16, quant.Q8_0, quant.Q4_0, quant.Q4_K, quant.Q6_K} {
		w := &weightKernels{f: formatOf(t)}
		if err := b.d.fill(w.set()); err != nil {
			b.err = err
			return nil
		}
		row := uint64(w.f.rowBytes(cols))
		x := uint64(len(b.data.data)) - inputs
		most := min(x/(unit*(row+4)), 1<<9)
		clear(floats(b.data.data[x:]))
		rate := b.rate(most, func(e encoder, n uint64) {
			p := Product{X: x, Matrices: 1, Cols: cols, N: 1, LdX: cols}
			p.M[0] = Matrix{Y: (x - 4*n*unit) &^ 255, Rows: int32(n * unit), LdY: int32(n * unit)}
			for i := range 3 {
				e.bind(argWeights+i, b.data, 0)
			}
			e.constants(argArgs, bytesFrom(&p))
			l := matvecLaunch([]int{int(n * unit)}, 1)
			e.dispatch(*w.matvec[0], l.groups, l.threads)
		})
		if b.err != nil {
			return nil
		}
		rates[t] = rate * unit * float64(row)
	}
	return rates
}
