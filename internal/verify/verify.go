// Package verify holds the devices that carry a model to the reference, or to
// another device, through the contract alone: block by block on the same input, so
// that errors do not add up and what is wrong is named, then all blocks together as
// a model is run. It knows no device and no file.
//
// What is run is a model of some of the layers, one after the other, as the reference
// takes some seconds for each of a 7B. Full takes all.
package verify

import (
	"context"
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// Place is a device and the runs of the model's blocks that it carries.
type Place struct {
	Device backend.Device
	Runs   []backend.Range
}

// Options says how to verify.
type Options struct {
	Against backend.Device // what the devices are held to; nil: the reference
	Full    bool           // every layer
	Budget  float64        // multiply-adds for the layers, else; 0: Budget or DeviceBudget
	Seed    uint64         // of the tokens
	Context int            // most positions of a sequence
	Batch   int            // most rows in a batch
	K, V    quant.Type     // cache formats
	Memory  uint64         // bytes that the reference may take; 0: not known
	// Progress, if not nil, gets the bytes of weights that were compared, and all.
	Progress func(done, total uint64)
}

// verifier is a verification under way.
type verifier struct {
	o       Options
	script  *script
	m       *backend.Model // of the layers that were chosen
	layers  []int          // these, as the whole model counts them
	where   []int          // by block of m: the place
	places  []Place        // of m
	lim     backend.Limits
	report  *Report
	fed     [][]float32 // by step (rows, dim): the reference's hidden state before the next block
	chain   [][]float32 // the devices' own
	clear   [][]float64 // by step (rows): the least gap of a router so far
	want    [][]float32 // by step (outs, vocab): the reference's logits
	chained [][]float32 // the devices' own, block after block
}

// Run verifies the model as it lies on the places, which carry every block once.
// Errors: those of Load and Forward of the devices, and of the reference, whose
// device is "ref" in a *backend.MemoryError. What is wrong is in the report.
func Run(ctx context.Context, m *backend.Model, places []Place, o Options) (*Report, error) {
	where, err := carriers(m, places)
	if err != nil {
		return nil, err
	}
	first := promptRows
	if o.Against != nil {
		first = widePromptRows
	}
	v := &verifier{o: o, script: newScript(o.Seed, m.Config.Vocab, o.Context, o.Batch, first)}
	v.layers = sample(m, where, v.script.rows(), o)
	v.shrink(m, where, places)
	v.lim = backend.Limits{Pages: v.script.pages(), Rows: v.script.most(), Seqs: together, Context: v.script.context(), Outs: v.script.outs(), K: o.K, V: o.V}
	v.report = newReport(v, m)
	var done, total uint64
	blocks := v.m.Config.Blocks()
	for _, t := range v.m.Tensors(backend.Range{Lo: 0, Hi: blocks}) {
		total += t.Bytes()
	}
	for b := range blocks {
		if err := v.block(ctx, b); err != nil {
			return nil, err
		}
		for _, t := range v.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
			done += t.Bytes()
		}
		if o.Progress != nil {
			o.Progress(done, total)
		}
	}
	if err := v.whole(ctx); err != nil {
		return nil, err
	}
	v.report.judge()
	return v.report, nil
}

// carriers gives the place of each block.
func carriers(m *backend.Model, places []Place) ([]int, error) {
	where := make([]int, m.Config.Blocks())
	for b := range where {
		where[b] = -1
	}
	for i, p := range places {
		for _, r := range p.Runs {
			for b := r.Lo; b < r.Hi; b++ {
				if b < 0 || b >= len(where) || where[b] >= 0 {
					return nil, fmt.Errorf("placement: block %d of %d is carried twice or not there", b, len(where))
				}
				where[b] = i
			}
		}
	}
	for b, i := range where {
		if i < 0 {
			return nil, fmt.Errorf("placement: no device carries block %d", b)
		}
	}
	return where, nil
}

// shrink makes the model of the chosen layers, each block on the device that it has
// in the whole one.
func (v *verifier) shrink(m *backend.Model, where []int, places []Place) {
	small := *m
	small.Layers, small.Config.Layers = nil, len(v.layers)
	v.where = []int{where[0]}
	for _, l := range v.layers {
		small.Layers = append(small.Layers, m.Layers[l])
		v.where = append(v.where, where[1+2*l], where[2+2*l])
	}
	v.where = append(v.where, where[len(where)-1])
	v.m, v.places = &small, make([]Place, len(places))
	for i := range places {
		v.places[i].Device = places[i].Device
	}
	for b, i := range v.where {
		runs := v.places[i].Runs
		if n := len(runs); n > 0 && runs[n-1].Hi == b {
			runs[n-1].Hi++
			continue
		}
		v.places[i].Runs = append(runs, backend.Range{Lo: b, Hi: b + 1})
	}
}

// reference is what block b is held to: it rounds as the block's device does.
func (v *verifier) reference(b int) backend.Device {
	if v.o.Against != nil {
		return v.o.Against
	}
	d := &ref.Device{Memory: v.o.Memory}
	if v.rule(b).Rounds {
		d.Round = ref.Int8Blocks
	}
	return d
}

// rule is how a block's device computes, and is judged.
func (v *verifier) rule(b int) ref.Arithmetic {
	return ref.ArithmeticOf(v.places[v.where[b]].Device.Info().Kind, matrices(v.m, b), v.o.K, v.o.V, v.o.Against != nil)
}

// matrices are the formats of a block's matrices; routers are always F32.
func matrices(m *backend.Model, b int) []quant.Type {
	var types []quant.Type
	for _, t := range m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		if router := b > 0 && b%2 == 0 && t == m.Layers[(b-1)/2].Router; t.Rows > 1 && !router {
			types = append(types, t.Type)
		}
	}
	return types
}

// tiny keeps rows that are next to nothing from counting as much as others.
const tiny = 1e-2

// furthest is the largest NMSE of a row of width values, and which row it is; skip,
// if not nil, leaves rows out. A row of which a value is no number is furthest.
func furthest(got, want []float32, width int, skip func(row int) bool) (worst float64, at int) {
	rows := len(want) / width
	diffs, norms, mean := make([]float64, rows), make([]float64, rows), 0.0
	for r := range rows {
		for i := r * width; i < (r+1)*width; i++ {
			d := float64(got[i]) - float64(want[i])
			diffs[r] += d * d
			norms[r] += float64(want[i]) * float64(want[i])
		}
		mean += norms[r] / float64(rows)
	}
	for r, d := range diffs {
		if d == 0 || skip != nil && skip(r) {
			continue
		}
		if nmse := d / max(norms[r], tiny*mean); !(nmse <= worst) {
			worst, at = nmse, r
			if math.IsNaN(nmse) {
				return worst, at
			}
		}
	}
	return worst, at
}
