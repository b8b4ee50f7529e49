package verify

import (
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// Report is what a verification found.
type Report struct {
	Seed      uint64
	Layers    []int // that were verified, in ascending order
	Of        int   // layers of the model
	Rows      int   // in all batches
	Positions int   // of the longer sequence
	Blocks    []*Block
	Logits    Logits
	Notes     []string // what was not verified, or differently
	First     *Finding // the first wrong one; nil: none
	Worst     *Finding // the one nearest to its limit, or furthest beyond
	OK        bool
}

// Block is one block on the reference's input.
type Block struct {
	Block      int    // of the whole model
	Layer      int    // -1: the embedding; the model's layers: the head
	Name       string // "layer 3 attention"
	Device     string
	Arithmetic string // how the device rounds, which the reference then does too
	Ops        []*Op
	OK         bool
}

// Op is one point of a block.
type Op struct {
	Op      backend.Op
	Traced  bool     // op by op; false: as the block is run, where kernels are fused
	Tensors []string // weights that it is made with, beside what is made before
	Types   []quant.Type
	Rows    int
	NMSE    float64 // of the row that is furthest off
	Limit   float64
	Where   string // that row
	OK      bool
}

// Finding is an op of a block.
type Finding struct {
	Block *Block
	Op    *Op
}

func newReport(v *verifier, whole *backend.Model) *Report {
	r := &Report{Seed: v.o.Seed, Layers: v.layers, Of: whole.Config.Layers, Rows: v.script.rows(), Positions: v.script.context()}
	if r.Positions <= backend.PageRows {
		r.note("the context is %d: no position lies beyond the first page of the cache, which has %d", v.o.Context, backend.PageRows)
	}
	if v.o.Batch <= decodeRows {
		r.note("batches of %d rows: the kernels for prompts are not verified", v.o.Batch)
	}
	have := map[quant.Type]bool{}
	for _, t := range v.m.Tensors(backend.Range{Lo: 0, Hi: v.m.Config.Blocks()}) {
		have[t.Type] = true
	}
	for _, t := range whole.Tensors(backend.Range{Lo: 0, Hi: whole.Config.Blocks()}) {
		if !have[t.Type] {
			have[t.Type] = true
			r.note("%v is in none of these layers: --full verifies it", t.Type)
		}
	}
	return r
}

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// block begins the report of block b.
func (r *Report) block(v *verifier, b int) *Block {
	device := v.places[v.where[b]].Device
	k := &Block{Name: v.name(b), Device: device.Info().ID, Arithmetic: v.rule(b).Name}
	switch last := v.m.Config.Blocks() - 1; b {
	case 0:
		k.Layer = -1
	case last:
		k.Layer, k.Block = r.Of, 2*r.Of+1
	default:
		k.Layer = v.layers[(b-1)/2]
		k.Block = 1 + 2*k.Layer + (b-1)%2
	}
	rule := v.rule(b)
	ops := blockOps(v.m, b)
	for _, traced := range []bool{true, false} {
		for i, op := range ops {
			if !traced && i < len(ops)-1 {
				continue
			}
			o := &Op{Op: op, Traced: traced, Limit: rule.Block(op, b == 1).NMSE}
			for _, t := range tensors(v.m, b, op) {
				o.Tensors, o.Types = append(o.Tensors, t.Name), append(o.Types, t.Type)
			}
			k.Ops = append(k.Ops, o)
		}
	}
	r.Blocks = append(r.Blocks, k)
	return k
}

// op is the block's entry for an op.
func (k *Block) op(op backend.Op, traced bool) *Op {
	for _, o := range k.Ops {
		if o.Op == op && o.Traced == traced {
			return o
		}
	}
	panic(fmt.Sprintf("BUG: %s has no %v", k.Name, op))
}

// blockOps are the points of a block, in their order.
func blockOps(m *backend.Model, b int) []backend.Op {
	switch {
	case b == 0:
		return []backend.Op{backend.OpEmbed}
	case b == m.Config.Blocks()-1:
		return []backend.Op{backend.OpNorm, backend.OpLogits}
	case b%2 == 1:
		return []backend.Op{backend.OpQ, backend.OpK, backend.OpV, backend.OpAttention, backend.OpAttnOut}
	case m.Config.Experts > 0:
		return []backend.Op{backend.OpFFNOut}
	}
	return []backend.Op{backend.OpAct, backend.OpFFNOut}
}

// tensors are those that an op reads itself.
func tensors(m *backend.Model, b int, op backend.Op) []*backend.Tensor {
	if op == backend.OpEmbed {
		return []*backend.Tensor{m.Embed}
	} else if op == backend.OpNorm {
		return []*backend.Tensor{m.Norm}
	} else if op == backend.OpLogits {
		return []*backend.Tensor{m.Output}
	}
	l := &m.Layers[(b-1)/2]
	switch {
	case op == backend.OpQ:
		return []*backend.Tensor{l.Q}
	case op == backend.OpK:
		return []*backend.Tensor{l.K}
	case op == backend.OpV:
		return []*backend.Tensor{l.V}
	case op == backend.OpAttnOut:
		return []*backend.Tensor{l.O}
	case op == backend.OpAct:
		return []*backend.Tensor{l.Gate, l.Up}
	case op == backend.OpFFNOut && m.Config.Experts > 0:
		return []*backend.Tensor{l.Router, l.Gate, l.Up, l.Down}
	case op == backend.OpFFNOut:
		return []*backend.Tensor{l.Down}
	}
	return nil // attention reads the cache
}

// blockName is a block for people; layers are those of the whole model.
func blockName(m *backend.Model, layers []int, b int) string {
	switch {
	case b == 0:
		return "embedding"
	case b == m.Config.Blocks()-1:
		return "head"
	case b%2 == 1:
		return fmt.Sprintf("layer %d attention", layers[(b-1)/2])
	}
	return fmt.Sprintf("layer %d feed-forward", layers[(b-1)/2])
}

// judge finds what is beyond its limit.
func (r *Report) judge() {
	r.OK = true
	worst := -1.0
	for _, k := range r.Blocks {
		k.OK = true
		var seen []*Op
		for _, o := range k.Ops {
			if o.Rows > 0 {
				seen = append(seen, o)
			}
		}
		k.Ops = seen // a device need not have every point
		for _, o := range k.Ops {
			o.OK = o.NMSE <= o.Limit
			k.OK = k.OK && o.OK
			if !o.OK && r.First == nil {
				r.First = &Finding{k, o}
			}
			if share := o.NMSE / o.Limit; !(share <= worst) && !math.IsNaN(worst) {
				worst, r.Worst = share, &Finding{k, o}
			}
		}
		r.OK = r.OK && k.OK
	}
	l := &r.Logits
	same := l.NMSE <= l.Limit && (l.Diverges == nil || l.Diverges.Gap <= l.Diverges.Tie)
	l.OK = l.Together <= l.TogetherLimit && l.Greedy == "" && (same || l.Unclear > 0 && !math.IsNaN(l.NMSE))
	r.OK = r.OK && l.OK
}

// Wrong says in a line what is wrong first; empty: nothing is.
func (r *Report) Wrong() string {
	l := &r.Logits
	switch {
	case r.OK:
		return ""
	case r.First != nil:
		k, o := r.First.Block, r.First.Op
		text := fmt.Sprintf("%s on %s is wrong from %v on", k.Name, k.Device, o.Op)
		if !o.Traced {
			text += " (op by op it is right: a fused kernel)"
		}
		return text + fmt.Sprintf(": NMSE %.1e, at most %.0e, in %s", o.NMSE, o.Limit, o.Where)
	case !(l.Together <= l.TogetherLimit):
		return fmt.Sprintf("every block alone is right, and together they are not: NMSE %.1e, at most %.0e", l.Together, l.TogetherLimit)
	case l.Greedy != "":
		return l.Greedy
	case !(l.NMSE <= l.Limit):
		return fmt.Sprintf("the logits are wrong: NMSE %.1e, at most %.0e", l.NMSE, l.Limit)
	}
	d := l.Diverges
	return fmt.Sprintf("another token is chosen in %s: %d instead of %d, whose logits are %.2g apart, and %.2g would be a near tie", d.Where, d.Got, d.Want, d.Gap, d.Tie)
}
