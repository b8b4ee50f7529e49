// Package ref is the forward pass in plain scalar Go: the living definition
// that every device is held to. Read forward.go from top to bottom; the other
// devices use its words and its order.
//
// Arithmetic: weights are dequantised to float32, exactly. Inside a block all
// values are float64. The hidden state is rounded to float32 at the end of
// every block (so that cutting a model anywhere changes nothing), keys and
// values are rounded to the cache's format, results are float32.
//
// It knows nothing of files and is not meant to be fast.
package ref

import (
	"context"
	"fmt"
	"sync"
	"time"

	"drover/backend"
	"drover/internal/quant"
)

// Device is the reference as a device. The fields may be set before its first
// use.
type Device struct {
	// Memory is how much it pretends to have, in bytes; 0: 1 TiB.
	Memory uint64
	// Round, if not nil, rounds a row that goes into a matrix (routers, which
	// are F32, apart), in place, as some other device does: with it the
	// reference says what that device's rounding costs, and what it should give.
	Round func(x []float64)

	mu   sync.Mutex
	used uint64 // bytes held by open stages
}

// New is the reference with memory for everything.
func New() *Device { return &Device{} }

// Info describes the device; it counts only its own stages as used memory.
func (d *Device) Info() backend.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return backend.Info{ID: "ref", Kind: "ref", Name: "scalar reference", ISA: "scalar", Cores: 1, Total: d.total(), Free: d.total() - d.used}
}

func (d *Device) total() uint64 {
	if d.Memory == 0 {
		return 1 << 40
	}
	return d.Memory
}

// Measure times a matrix product of one row (reading) and of 64 rows
// (operations), about a quarter of a second each.
func (d *Device) Measure(ctx context.Context) (backend.Rates, error) {
	w := matrix{rows: 1024, cols: 4096, w: make([]float32, 1024*4096)}
	var r backend.Rates
	for _, rows := range []int{1, 64} {
		x, y := make([]float64, rows*w.cols), make([]float64, rows*w.rows)
		start, times := time.Now(), 0
		for time.Since(start) < 250*time.Millisecond {
			if err := ctx.Err(); err != nil {
				return backend.Rates{}, err
			}
			product(y, w, x)
			times++
		}
		perSecond := float64(times*len(w.w)) / time.Since(start).Seconds()
		if rows == 1 {
			r.Read, r.Copy = 4*perSecond, 4*perSecond
			r.Format = map[quant.Type]float64{quant.F32: r.Read}
		} else {
			r.Matrix = 2 * perSecond * float64(rows)
		}
	}
	return r, nil
}

// Sensors has none.
func (d *Device) Sensors() backend.Sensors { return backend.Sensors{} }

// Need counts weights and cache as float32, whatever their format. Errors:
// ErrUnsupported.
func (d *Device) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	c := &m.Config
	for _, t := range []quant.Type{l.K, l.V} {
		if t != quant.F32 && t != quant.F16 && (t != quant.Q8_0 || c.HeadDim%32 != 0) {
			return backend.Need{}, fmt.Errorf("a cache in %v with heads of %d: %w", t, c.HeadDim, backend.ErrUnsupported)
		}
	}
	var n backend.Need
	for _, t := range tensors(m, runs) {
		if !t.Type.Known() {
			return backend.Need{}, fmt.Errorf("%s in %v: %w", t.Name, t.Type, backend.ErrUnsupported)
		}
		n.Weights += 4 * uint64(t.Rows) * uint64(t.Cols)
	}
	row := 4 * 2 * uint64(c.KVHeads*c.HeadDim) // keys and values of one position
	n.Cache = uint64(attentions(m, runs)) * uint64(l.Pages) * backend.PageRows * row
	n.Scratch = scratchBytes(c, l)
	return n, nil
}

// Load dequantises the weights of the runs.
func (d *Device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	need, err := d.Need(m, runs, l)
	if err != nil {
		return nil, err
	}
	if err := d.take(need.Total()); err != nil {
		return nil, err
	}
	s, err := load(ctx, m, runs, l, progress)
	if err != nil {
		d.give(need.Total())
		return nil, err
	}
	s.round = d.Round
	s.close = sync.OnceFunc(func() { d.give(need.Total()) })
	return s, nil
}

func (d *Device) take(n uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if free := d.total() - d.used; n > free {
		return &backend.MemoryError{Device: "ref", Need: n, Free: free}
	}
	d.used += n
	return nil
}

func (d *Device) give(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used -= n
}

// tensors lists what the runs read, each tensor once.
func tensors(m *backend.Model, runs []backend.Range) []*backend.Tensor {
	var all []*backend.Tensor
	seen := map[*backend.Tensor]bool{}
	for _, r := range runs {
		for _, t := range m.Tensors(r) {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}

// attentions counts the attention blocks in the runs: each has a cache.
func attentions(m *backend.Model, runs []backend.Range) int {
	n := 0
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			if b%2 == 1 && b < m.Config.Blocks()-1 {
				n++
			}
		}
	}
	return n
}
