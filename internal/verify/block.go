package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"drover/backend"
	"drover/internal/ref"
)

// The passes of a block's steps. Fused is as a model is run; traced may take other
// kernels, and names the op; chained goes on from what the devices made themselves.
const (
	fused = iota
	traced
	chained
)

// wanted is what the reference gives for a step.
type wanted struct {
	in     []float32 // (rows, dim); nil for the embedding
	hidden []float32 // (rows, dim); nil for the head
	logits []float32 // (outs, vocab); of the head
	points []ref.Point
	skip   func(row int) bool // rows that are not compared; nil: none
}

// block holds block b to the reference: every step on the same input.
func (v *verifier) block(ctx context.Context, b int) (err error) {
	run := []backend.Range{{Lo: b, Hi: b + 1}}
	dev := v.places[v.where[b]].Device
	against, err := v.reference(b).Load(ctx, v.m, run, v.lim, nil)
	if err != nil {
		return fmt.Errorf("load %v for the reference: %w", v.name(b), err)
	}
	defer func() { err = errors.Join(err, against.Close()) }()
	stage, err := dev.Load(ctx, v.m, run, v.lim, nil)
	if err != nil {
		return fmt.Errorf("load %v on %s: %w", v.name(b), dev.Info().ID, err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()

	r := v.report.block(v, b)
	want, err := v.ask(ctx, against, b)
	if err != nil {
		return fmt.Errorf("%v on the reference: %w", v.name(b), err)
	}
	if err := v.experts(ctx, against, b, &want); err != nil {
		return fmt.Errorf("%v on the reference: %w", v.name(b), err)
	}
	for _, pass := range []int{fused, traced} {
		for i := range want {
			if err := v.compare(ctx, stage, b, i, pass, &want[i], r); err != nil {
				return fmt.Errorf("%v on %s: %w", v.name(b), dev.Info().ID, err)
			}
		}
	}
	for i := range v.script.steps {
		batch := v.batch(b, i, chained, v.input(v.chain, b, i))
		if err := stage.Forward(ctx, 0, batch); err != nil {
			return fmt.Errorf("%v on %s: %w", v.name(b), dev.Info().ID, err)
		}
		v.keep(b, i, batch, &v.chain, &v.chained)
		if i < len(want) {
			v.keep(b, i, &backend.Batch{Hidden: want[i].hidden, Logits: want[i].logits}, &v.fed, &v.want)
		}
	}
	return nil
}

// name is a block for people.
func (v *verifier) name(b int) string { return blockName(v.m, v.layers, b) }

// input is what goes into block b in step i.
func (v *verifier) input(from [][]float32, b, i int) []float32 {
	if b == 0 {
		return nil
	}
	return from[i]
}

// keep takes what comes out of block b in step i.
func (v *verifier) keep(b, i int, batch *backend.Batch, hidden, logits *[][]float32) {
	to, x := hidden, batch.Hidden
	if b == v.m.Config.Blocks()-1 {
		to, x = logits, batch.Logits
	}
	if len(*to) <= i {
		*to = append(*to, nil)
	}
	(*to)[i] = x
}

// batch is step i for block b alone; beyond the script's steps it is rows without a
// text, of which there are as many as in has.
func (v *verifier) batch(b, i, pass int, in []float32) *backend.Batch {
	c := &v.m.Config
	var batch *backend.Batch
	if i < len(v.script.steps) {
		batch = v.script.batch(i, pass)
	} else {
		batch = v.script.batch(0, pass)
		n := len(in) / c.Dim
		batch.Tokens, batch.Pos, batch.Seqs[0].Rows = batch.Tokens[:n], batch.Pos[:n], n
	}
	if b == c.Blocks()-1 {
		batch.Out = v.script.steps[i].out()
		batch.Logits = make([]float32, len(batch.Out)*c.Vocab)
	}
	batch.Hidden = slices.Clone(in)
	if b == 0 {
		batch.Hidden = make([]float32, len(batch.Tokens)*c.Dim)
	}
	return batch
}

// ask runs the steps of block b on the reference.
func (v *verifier) ask(ctx context.Context, against backend.Stage, b int) ([]wanted, error) {
	var all []wanted
	for i := range v.script.steps {
		w, err := v.askOne(ctx, against, b, i, v.input(v.fed, b, i))
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (v *verifier) askOne(ctx context.Context, against backend.Stage, b, i int, in []float32) (wanted, error) {
	w := wanted{in: in}
	batch := v.batch(b, i, fused, in)
	batch.Trace = ref.Record(&w.points)
	if err := against.Forward(ctx, 0, batch); err != nil {
		return w, err
	}
	w.hidden, w.logits = batch.Hidden, batch.Logits
	if w.logits != nil {
		w.hidden = nil
	}
	return w, nil
}

// compare runs step i of block b on the device and holds it to what is wanted.
func (v *verifier) compare(ctx context.Context, stage backend.Stage, b, i, pass int, w *wanted, r *Block) error {
	batch := v.batch(b, i, pass, w.in)
	var points []ref.Point
	if pass == traced {
		batch.Trace = ref.Record(&points)
	}
	if err := stage.Forward(ctx, 0, batch); err != nil {
		return err
	}
	where := v.place(i)
	if pass == fused {
		got, want, last := batch.Hidden, w.hidden, w.points[len(w.points)-1]
		if w.logits != nil {
			got, want = batch.Logits, w.logits
		}
		v.point(r, ref.Point{Layer: last.Layer, Op: last.Op, X: got}, want, false, w, where)
		return nil
	}
	for _, p := range points {
		at := slices.IndexFunc(w.points, func(q ref.Point) bool { return q.Op == p.Op })
		if at < 0 || len(w.points[at].X) != len(p.X) {
			return fmt.Errorf("its trace gives %v with %d values, which the reference does not", p.Op, len(p.X))
		}
		v.point(r, p, w.points[at].X, true, w, where)
	}
	return nil
}

// place tells where row r of step i, or its result out, is.
func (v *verifier) place(i int) func(op backend.Op, r int) (step string, seq, position int) {
	return func(op backend.Op, r int) (string, int, int) {
		if i >= len(v.script.steps) {
			return expertRows, 0, r
		}
		s := &v.script.steps[i]
		if op == backend.OpNorm || op == backend.OpLogits {
			r = int(s.out()[r])
		}
		seq, position := s.at(r)
		return s.name, seq, position
	}
}

// point compares one point. Of the hidden state it is what the block adds: beside
// all that came before, a block's mistake would look small.
func (v *verifier) point(r *Block, got ref.Point, want []float32, isTraced bool, w *wanted, where func(backend.Op, int) (string, int, int)) {
	x := got.X
	if got.Op == backend.OpAttnOut || got.Op == backend.OpFFNOut {
		x, want = less(x, w.in), less(want, w.in)
	}
	width := len(want) / rowsOf(got.Op, w, v.m.Config.Dim, v.m.Config.Vocab)
	nmse, row := furthest(x, want, width, w.skip)
	o := r.op(got.Op, isTraced)
	o.Rows += len(want) / width
	if o.Where == "" || !(nmse <= o.NMSE) {
		step, seq, position := where(got.Op, row)
		o.NMSE, o.Where = nmse, fmt.Sprintf("%s, sequence %d, position %d", step, seq, position)
	}
}

// rowsOf is how many rows a point of op has.
func rowsOf(op backend.Op, w *wanted, dim, vocab int) int {
	switch {
	case w.logits != nil:
		return len(w.logits) / vocab
	default:
		return len(w.hidden) / dim
	}
}

// less is x without y.
func less(x, y []float32) []float32 {
	out := make([]float32, len(x))
	for i := range x {
		out[i] = float32(float64(x[i]) - float64(y[i]))
	}
	return out
}
