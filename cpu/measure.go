package cpu

import (
	"context"
	"time"

	"drover/backend"
)

// Measure reads memory and runs the prompt kernels with all workers, for about
// a second in all.
func (d *device) Measure(ctx context.Context) (backend.Rates, error) {
	p := newPool(d.options.Threads, choosePlaces(d.options.Threads))
	defer p.close()
	p.cpus.bind(0, false)
	defer p.cpus.free()
	mem, err := reserve(readBytes, true)
	if err != nil {
		return backend.Rates{}, err
	}
	defer release(mem)
	p.run(func(id int) { // first touch by the reader
		part := len(mem) / p.n
		for i := id * part; i < (id+1)*part; i += 4096 {
			mem[i+3] = 1 // a float32 that is not subnormal
		}
	})
	r := backend.Rates{}
	if r.Read, err = best(ctx, func() float64 { return d.readRate(p, mem) }); err != nil {
		return r, err
	}
	if r.Matrix, err = best(ctx, func() float64 { return d.matrixRate(p) }); err != nil {
		return r, err
	}
	if r.Float, err = best(ctx, func() float64 { return d.floatRate(p) }); err != nil {
		return r, err
	}
	r.Copy, err = best(ctx, func() float64 { return copyRate(p, mem) })
	r.Launch = launchCost(p)
	return r, err
}

// readBytes is more than any cache holds.
const readBytes = 512 << 20

// best is the fastest of the runs that fit in 0.3 s, at least five: a limit is
// what the machine can do, and others only ever slow it down.
func best(ctx context.Context, run func() float64) (float64, error) {
	most, start := 0.0, time.Now()
	for n := 0; n < 5 || time.Since(start) < 300*time.Millisecond; n++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		most = max(most, run())
	}
	return most, nil
}

// readRate is bytes/s of all workers reading a buffer as decode reads F32 weights,
// the most bytes for the least arithmetic.
func (d *device) readRate(p *pool, mem []byte) float64 {
	const cols = 4096
	stride := kindF32.groupBytes(cols)
	groups := len(mem) / p.n / stride
	act, dst := make([]float32, cols), make([]float32, p.n*groups*groupRows)
	start := time.Now()
	p.run(func(id int) {
		for g := id * groups; g < (id+1)*groups; g += floatGroups {
			d.k.gemv[kindF32](&dst[g*groupRows], &mem[g*stride], bytesOf(&act[0]), cols, min(floatGroups, (id+1)*groups-g), stride)
		}
	})
	return float64(p.n*groups*stride) / time.Since(start).Seconds()
}

func copyRate(p *pool, mem []byte) float64 {
	part := len(mem) / p.n / 2
	start := time.Now()
	p.run(func(id int) {
		m := mem[id*2*part : (id+1)*2*part]
		copy(m[:part], m[part:])
	})
	return float64(2*part*p.n) / time.Since(start).Seconds()
}

// matrixRate is operations/s of the product that serves Q4_0 and Q8_0 prompts,
// on data that stay in the cache.
func (d *device) matrixRate(p *pool) float64 {
	const n, size = 32, 4800 // 1024 columns, about so many rows
	rows := d.k.strip(n)
	rounds := size / rows
	type operands struct {
		a, b, act, ring []byte
		dst             []float32
	}
	all := make([]operands, p.n)
	p.run(func(id int) { // made and touched before time is taken
		weights := n * d.k.panelBytes(panel32)
		o := operands{make([]byte, weights), make([]byte, weights), make([]byte, n*d.k.recordBytes()*rows), make([]byte, tileRing), make([]float32, rows*2*groupRows)}
		zero := byte(128) // weights of 0: AVX2 multiplies small ones fastest
		if d.k.tiled() {
			zero = 0
		}
		for i := range o.a {
			o.a[i], o.b[i] = zero, zero
		}
		clear(o.act)
		clear(o.dst)
		all[id] = o
	})
	start := time.Now()
	p.run(func(id int) {
		o := &all[id]
		for range rounds {
			d.k.multiplyRows(panel32, &o.dst[0], 2*groupRows, &o.a[0], &o.b[0], &o.act[0], n, rows, &o.ring[0])
		}
	})
	return float64(p.n*rounds*2*rows*2*groupRows*n*blockCols) / time.Since(start).Seconds()
}

// floatRate is the same of the product that serves F32 prompts.
func (d *device) floatRate(p *pool) float64 {
	const cols, rounds = 64, 2000
	start := time.Now()
	p.run(func(int) {
		a, b := make([]byte, kindF32.groupBytes(cols)), make([]byte, kindF32.groupBytes(cols))
		act, dst := make([]byte, 4*cols*panelRows), make([]float32, panelRows*2*groupRows)
		for range rounds {
			d.k.gemmFloat[kindF32](&dst[0], 2*groupRows, &a[0], &b[0], &act[0], cols)
		}
	})
	return float64(p.n*rounds*2*panelRows*2*groupRows*cols) / time.Since(start).Seconds()
}

// launchCost is the seconds of one barrier.
func launchCost(p *pool) float64 {
	const rounds = 2000
	start := time.Now()
	for range rounds {
		p.run(func(int) {})
	}
	return time.Since(start).Seconds() / rounds
}
