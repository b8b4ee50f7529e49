//go:build (linux && cgo) || windows

package cuda

import (
	"unsafe"

	"drover/backend"
)

// queue puts the launches of a tile on the stage's stream, until one fails.
type queue struct {
	s     *stage
	p     *pass
	layer int
	err   error
}

func (s *stage) launch(k *kernel, l launch, shared uint32, args unsafe.Pointer) error {
	return s.stream.launch(k, l.grid, l.block, shared, args)
}

func (q *queue) launch(k *kernel, l launch, shared uint32, args unsafe.Pointer) {
	if q.err == nil {
		q.err = q.s.launch(k, l, shared, args)
	}
}

// wanted is the forms of `to` that products of a class read.
func (q *queue) wanted(to *forms, all ...products) Outputs {
	o := Outputs{LdOut: int32(to.ld), KPad: int32(to.kpad)}
	if !q.p.prompt {
		o.Lanes = 1
	}
	for _, ps := range all {
		for i := range ps {
			switch f := ps[i].k.f; {
			case !f.float:
				o.Half, o.Scale = to.half, to.scale
				if !q.p.prompt {
					o.Sums = to.sums
				}
			case q.p.prompt && f.multiplies(q.s.tier):
				o.BF16 = to.bf16
			default:
				o.Out = to.plain
			}
		}
	}
	return o
}

// norm writes the tile's rows, normalised, as the products take them.
func (q *queue) norm(weight *vector, all ...products) {
	s := q.s
	s.args.norm = Norm{X: s.hiddenRow(), Weight: weight.at, Dim: int32(s.c.Dim), LdX: int32(s.ld.dim), Eps: s.c.NormEps, To: q.wanted(&s.in, all...)}
	q.launch(s.kernels.ops.norm, rowLaunch(q.p.n, s.c.Dim), 0, unsafe.Pointer(&s.args.norm))
}

// multiply multiplies the rows of in by every matrix.
func (q *queue) multiply(all products, in *forms) {
	for i := range all {
		p := &all[i]
		if q.p.prompt && p.k.f.multiplies(q.s.tier) {
			q.tensorProduct(p, in)
			continue
		}
		for lo := 0; lo < q.p.n; lo += decodeRows {
			a := q.arguments(p, lo, min(decodeRows, q.p.n-lo))
			a.X = in.plain + 4*uint64(lo*in.ld)
			if !p.k.f.float { // of the decode class, so that lo is 0
				a.Half, a.Scale, a.Sums = in.half, in.scale, in.sums
			}
			q.decodeProduct(p)
		}
	}
}

// arguments are those of a product for n rows of the tile, from lo on, but for
// its input.
func (q *queue) arguments(p *product, lo, n int) *Product {
	a := &q.s.args.product
	*a = p.args
	a.N = int32(n)
	if p.hidden {
		lo += q.p.lo
	}
	for i := range a.M[:a.Matrices] {
		a.M[i].Y += 4 * uint64(lo) * uint64(a.M[i].LdY)
	}
	return a
}

// decodeProduct launches args.product.
func (q *queue) decodeProduct(p *product) {
	a, z := &q.s.args.product, q.active(p, int(q.s.args.product.N))
	tiles := p.k.f.tilesFor(p.total(), int(a.N))
	k := p.k.product
	if tiles == 2 {
		k = p.k.product2
	}
	q.launch(k, p.k.f.matvecLaunch(tiles, p.rows, int(a.Cols), z), 0, unsafe.Pointer(a))
}

// total is the rows of all matrices.
func (p *product) total() int {
	n := 0
	for _, r := range p.rows {
		n += r
	}
	return n
}

// active is how many experts n rows can choose; 1 without experts.
func (q *queue) active(p *product, n int) int {
	if p.args.Experts == 0 {
		return 1
	}
	return min(q.s.c.Experts, n*q.s.c.ExpertsUsed)
}

// tensorProduct is a product of the prompt class.
func (q *queue) tensorProduct(p *product, in *forms) {
	s, a := q.s, q.arguments(p, 0, q.p.n)
	a.Half, a.Scale = in.half, in.scale
	if p.k.f.name == "bf16" {
		a.Half, a.Scale = in.bf16, 0
	}
	active := q.active(p, q.p.n)
	mean := q.p.n
	if p.args.Experts != 0 {
		mean = ceil(q.p.n*s.c.ExpertsUsed, active)
	}
	i, l, shared := p.k.f.matmulLaunch(p.rows, q.p.n, active, mean, s.tier, s.d.multiprocessors)
	q.launch(p.k.prompt[i], l, shared, unsafe.Pointer(a))
}

// rope turns queries and keys and writes keys and values to the cache.
func (q *queue) rope(l *layer) {
	s, c := q.s, q.s.c
	s.args.rope = Rope{Q: s.q, K: s.k, V: s.v, Cos: s.cos, Sin: s.sin, Pos: s.input(q.p.in.pos), Slot: s.input(q.p.in.slot), Keys: l.keys, Values: l.values,
		LdQ: int32(s.ld.q), LdK: int32(s.ld.kv), LdV: int32(s.ld.kv), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Dims: int32(c.Rope.Dims)}
	if c.Rope.Halves {
		s.args.rope.Halves = 1
	}
	q.launch(s.kernels.cache.rope, ropeLaunch(q.p.n, c.KVHeads), 0, unsafe.Pointer(&s.args.rope))
}

// attend writes what the rows attend to, as the output matrix takes it.
func (q *queue) attend(l *layer, o products) {
	s, c, p := q.s, q.s.c, q.p
	to := q.wanted(&s.att, o)
	if p.prompt {
		q.attendPrompt(l, to)
		return
	}
	if p.b.Trace != nil {
		to.Out = s.att.plain
	}
	s.args.attention = Attention{Q: s.q, Keys: l.keys, Values: l.values, Pos: s.input(p.in.pos), Slot: s.input(p.in.slot), Seq: s.input(p.in.seq), Pages: s.inputs + 4*uint64(p.in.pages),
		Partial: s.partial, LdQ: int32(s.ld.q), N: int32(p.n), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Window: int32(c.Window),
		MaxPages: int32(s.maxPages), MaxCuts: int32(s.maxCuts), Scale: attentionScale(c.HeadDim)}
	shape, shared := attentionLaunch(p.n, c.Group(), c.KVHeads, c.HeadDim, s.maxCuts, s.d.multiprocessors)
	q.launch(s.kernels.cache.attention, shape, shared, unsafe.Pointer(&s.args.attention))
	s.args.combine = Combine{Partial: s.partial, Pos: s.input(p.in.pos), Slot: s.input(p.in.slot), To: to,
		Heads: int32(c.Heads), HeadDim: int32(c.HeadDim), Window: int32(c.Window), MaxCuts: int32(s.maxCuts)}
	q.launch(s.kernels.ops.combine, combineLaunch(p.n, c.Heads*c.HeadDim), 0, unsafe.Pointer(&s.args.combine))
}

// attendPrompt attends by tiles of rows.
func (q *queue) attendPrompt(l *layer, to Outputs) {
	s, c, p := q.s, q.s.c, q.p
	tiles := s.tiles[p.lo/s.tile]
	s.args.prompt = PromptAttention{Q: s.q, Keys: l.keys, Values: l.values, Pos: s.input(p.in.pos), Slot: s.input(p.in.slot), Seq: s.input(p.in.seq),
		Pages: s.inputs + 4*uint64(p.in.pages), Tiles: s.inputs + 4*uint64(p.in.tiles+tiles.first*tileWords), Out: s.att.plain,
		LdQ: int32(s.ld.q), LdOut: int32(s.att.ld), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Window: int32(c.Window),
		MaxPages: int32(s.maxPages), ShareHeads: int32(s.prompts.share), Scale: attentionScale(c.HeadDim)}
	q.launch(s.kernels.cache.prompt, s.prompts.launch(tiles.count, c.KVHeads), s.prompts.shared, unsafe.Pointer(&s.args.prompt))
	if to.Half|to.BF16 == 0 {
		return
	}
	to.Out = 0
	s.args.convert = Convert{X: s.att.plain, Dim: int32(s.att.cols), LdX: int32(s.att.ld), To: to}
	q.launch(s.kernels.ops.convert, rowLaunch(p.n, s.att.cols), 0, unsafe.Pointer(&s.args.convert))
}

// activate writes silu(gate)*up of the rows' slots, as down takes it, and gives
// where the f32 values lie if there is a trace.
func (q *queue) activate(w *blockProducts, slots int) (at uint64) {
	s, c := q.s, q.s.c
	to := q.wanted(&s.act, w.down)
	if w.gate != nil && (!q.p.prompt || c.Experts > 0 && !w.prompts && w.gate.k.f.float && to.Half|to.BF16 == 0) {
		return q.gate(w.gate, to)
	}
	if q.p.b.Trace != nil && to.Out == 0 {
		to.Out, to.LdOut = s.gate, int32(s.ld.ffn)
	}
	q.multiply(w.gateUp, &s.in)
	// out may be gate: a thread reads a value before it writes there
	s.args.act = Act{Gate: s.gate, Up: s.up, LdGate: int32(s.ld.ffn), LdUp: int32(s.ld.ffn), Dim: int32(c.FFN), To: to}
	q.launch(s.kernels.ops.act, rowLaunch(q.p.n*slots, c.FFN), 0, unsafe.Pointer(&s.args.act))
	return to.Out
}

// gate is gate, up and the activation in one launch.
func (q *queue) gate(p *product, to Outputs) (at uint64) {
	s, a := q.s, &q.s.args.gate
	if q.p.b.Trace != nil && to.Out == 0 {
		to.Out, to.LdOut = s.gate, int32(s.ld.ffn)
	}
	*a = Gate{Product: p.args, To: to}
	a.N, a.X = int32(q.p.n), s.in.plain
	if !p.k.f.float {
		a.Half, a.Scale, a.Sums = s.in.half, s.in.scale, s.in.sums
	}
	q.launch(p.k.gate, p.k.f.gateLaunch(s.c.FFN, s.c.Dim, q.active(p, q.p.n)), 0, unsafe.Pointer(a))
	return to.Out
}

// route chooses the rows' experts and lists their slots.
func (q *queue) route() {
	s, c := q.s, q.s.c
	s.args.route = Route{Logits: s.routed, Slot: s.input(q.p.in.slot), Weights: s.shares, Chosen: s.chosen, List: s.list,
		N: int32(q.p.n), Experts: int32(c.Experts), Used: int32(c.ExpertsUsed), LdL: int32(s.ld.experts)}
	l := routeLaunch(q.p.n)
	q.launch(s.kernels.ops.route, l, 0, unsafe.Pointer(&s.args.route))
	if l.grid[0] > 1 {
		q.launch(s.kernels.ops.list, listLaunch(c.Experts), 0, unsafe.Pointer(&s.args.route))
	}
}

// mix adds the experts' results to the hidden state.
func (q *queue) mix() {
	s, c := q.s, q.s.c
	s.args.mix = Mix{X: s.hiddenRow(), Y: s.mixed, Weights: s.shares, Slot: s.input(q.p.in.slot), Used: int32(c.ExpertsUsed), Dim: int32(c.Dim), LdX: int32(s.ld.dim), LdY: int32(s.ld.dim)}
	q.launch(s.kernels.ops.mix, mixLaunch(q.p.n, c.Dim), 0, unsafe.Pointer(&s.args.mix))
}

// trace keeps n rows of width values, ld apart, for flush.
func (q *queue) trace(op backend.Op, at uint64, ld, width int) {
	if q.err == nil {
		q.err = q.s.trace(q.p, q.layer, op, at, ld, width)
	}
}
