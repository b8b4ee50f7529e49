//go:build (linux && cgo) || windows

package cuda

import (
	"context"
	"errors"
	"fmt"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// bench is what Measure runs on: memory, a stream, events.
type bench struct {
	d        *device
	s        *stream
	from, to *event
	data     uint64
	size     uint64
	pinned   []byte
	err      error
}

// measured is about how long each thing is timed, in seconds; the best of
// several readings counts, since a limit is what the card can do.
const measured, readings = 0.02, 5

// Measure times the card for about a second. It takes up to 1 GiB of its memory,
// which is more than any cache, and gives it back.
func (d *device) Measure(ctx context.Context) (backend.Rates, error) {
	found, err := d.compile("ops")
	if err != nil {
		return backend.Rates{}, err
	}
	f := finder{m: found[0]}
	read, rate, nothing := f.kernel("read"), f.kernel("matrix_rate"), f.kernel("nothing")
	if f.err != nil {
		return backend.Rates{}, f.err
	}
	b, err := d.bench()
	if err != nil {
		return backend.Rates{}, errors.Join(err, b.close())
	}
	var r backend.Rates
	for _, step := range []func(){
		func() { r.Launch = b.launches(nothing) },
		func() { r.Matrix = b.matrixRate(rate) },
		func() { r.Read = b.readRate(read) },
		func() { r.Copy = b.copyRate() },
		func() { r.Link = b.linkRate() },
		func() { r.Format = b.formatRates() },
	} {
		if b.err == nil {
			b.err = ctx.Err()
		}
		if b.err == nil {
			step()
		}
	}
	return r, errors.Join(b.err, b.close())
}

func (d *device) bench() (*bench, error) {
	const most, least, pinned = 1 << 30, 1 << 20, 32 << 20
	b := &bench{d: d}
	free, _, err := d.memory()
	if err != nil {
		return b, err
	}
	for b.size = most; b.size > free/2 && b.size > least; {
		b.size /= 2
	}
	if b.data, err = d.alloc(b.size); err != nil {
		return b, fmt.Errorf("measure: %w", err)
	}
	if b.s, err = d.stream(); err != nil {
		return b, err
	}
	if b.from, err = d.event(); err != nil {
		return b, err
	}
	if b.to, err = d.event(); err != nil {
		return b, err
	}
	if b.pinned, err = d.hostAlloc(int(min(pinned, b.size/2))); err != nil {
		return b, err
	}
	return b, nil
}

func (b *bench) close() error {
	var errs []error
	if b.pinned != nil {
		errs = append(errs, b.d.hostFree(b.pinned))
	}
	for _, e := range []*event{b.from, b.to} {
		if e != nil {
			errs = append(errs, e.close())
		}
	}
	if b.s != nil {
		errs = append(errs, b.s.close())
	}
	if b.data != 0 {
		errs = append(errs, b.d.free(b.data))
	}
	return errors.Join(errs...)
}

// time is the seconds that n rounds of work take.
func (b *bench) time(n int, work func() error) float64 {
	step := func(err error) {
		if b.err == nil {
			b.err = err
		}
	}
	step(b.s.record(b.from))
	for range n {
		if b.err == nil {
			step(work())
		}
	}
	step(b.s.record(b.to))
	step(b.s.sync())
	if b.err != nil {
		return 0
	}
	seconds, err := b.to.since(b.from)
	step(err)
	return seconds
}

// best is the shortest time of one round: rounds are doubled until they take
// `measured`, then read again.
func (b *bench) best(work func() error) float64 {
	n := 1
	t := b.time(n, work) // the first may wake the card
	for t = b.time(n, work); b.err == nil && t < measured && n < 1<<16; t = b.time(n, work) {
		n *= 2
	}
	least := t
	for range readings - 1 {
		if t > measured*readings { // slow enough to be exact
			break
		}
		least = min(least, b.time(n, work))
	}
	return least / float64(n)
}

// rate is units a second of work(n), where n is doubled from 1 to most, or until
// once takes long: a slow device is not asked for what a fast one needs to show
// its speed.
func (b *bench) rate(most uint64, work func(n uint64) error) float64 {
	n := uint64(1)
	for n < most && b.err == nil && b.time(1, func() error { return work(n) }) < measured/4 {
		n = min(2*n, most)
	}
	return float64(n) / b.best(func() error { return work(n) })
}

// launches is the seconds a launch takes beside those before and after it.
func (b *bench) launches(k *kernel) float64 {
	args := new(Nothing)
	return b.best(func() error { return b.s.launch(k, [3]uint32{1, 1, 1}, 32, 0, unsafe.Pointer(args)) })
}

// matrixRate is in operations a second, of f16 products with sums in f32.
func (b *bench) matrixRate(k *kernel) float64 {
	const perWarp, warps = 8 * 4096, 8 // operations of a round, warps of a block
	blocks := uint32(4 * b.d.multiprocessors)
	for uint64(blocks)*256*4 > b.size {
		blocks /= 2
	}
	args := &MatrixRate{Out: b.data}
	return perWarp * warps * float64(blocks) * b.rate(1<<14, func(n uint64) error {
		args.Rounds = int32(n)
		return b.s.launch(k, [3]uint32{blocks, 1, 1}, 256, 0, unsafe.Pointer(args))
	})
}

// readRate is in bytes a second, over memory that no cache holds.
func (b *bench) readRate(k *kernel) float64 {
	blocks := uint64(8 * b.d.multiprocessors)
	unit := func() uint64 { return 8 * 256 * 16 * blocks } // what the blocks read in one round
	for blocks > 1 && unit() > b.size/2 {
		blocks /= 2
	}
	args := &Read{Data: b.data, Out: b.data + b.size - 4*blocks}
	return float64(unit()) * b.rate((b.size-4*blocks)/unit(), func(n uint64) error {
		args.Words = n * unit() / 16
		return b.s.launch(k, [3]uint32{uint32(blocks), 1, 1}, 256, 0, unsafe.Pointer(args))
	})
}

// copyRate is bytes read plus bytes written a second.
func (b *bench) copyRate() float64 {
	const unit = 64 << 10
	half := b.size / 2
	return 2 * unit * b.rate(half/unit, func(n uint64) error { return b.s.copyOn(b.data, b.data+half, n*unit) })
}

// linkRate is bytes a second from pinned memory.
func (b *bench) linkRate() float64 {
	const unit = 64 << 10
	return unit * b.rate(uint64(len(b.pinned)/unit), func(n uint64) error { return b.s.copyIn(b.data, b.pinned[:n*unit]) })
}

// formatRates is bytes of weights a second in products by one row, in the
// formats that models are mostly in.
func (b *bench) formatRates() map[quant.Type]float64 {
	rates := map[quant.Type]float64{}
	for _, t := range []quant.Type{quant.F16, quant.Q8_0, quant.Q4_0, quant.Q4_K, quant.Q6_K} {
		f := formatOf(t)
		found, err := b.d.compile(f.module())
		if err != nil {
			b.err = err
			return nil
		}
		look := finder{m: found[0]}
		k := look.kernel(f.matvecName(1))
		if b.err = look.err; b.err != nil {
			return nil
		}
		// a unit is 256 rows; activations and results lie in the last bytes
		const cols, unit, inputs = 4096, 256, 1 << 16
		act := b.data + b.size - inputs
		p := &Product{Matrices: 1, Cols: cols, N: 1, KPad: cols, LdX: cols, Half: act, Scale: act + 2*cols, Sums: act + 4*cols, X: act}
		most := (b.size - inputs) / (f.packedBytes(unit, cols) + 4*unit)
		rows := make([]int, 1)
		rate := b.rate(max(1, min(most, 1<<9)), func(n uint64) error {
			rows[0] = int(n * unit)
			p.M[0] = Matrix{W: b.data, Y: act - 4*n*unit, Rows: int32(rows[0]), LdY: int32(rows[0])}
			l := f.matvecLaunch(1, rows, cols, 1)
			return b.s.launch(k, l.grid, l.block, 0, unsafe.Pointer(p))
		})
		if b.err != nil {
			return nil
		}
		rates[t] = rate * unit * float64(t.RowBytes(cols))
	}
	return rates
}
