//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import "drover/backend"

// weights binds the matrices of a product; a place that has none holds the first.
func (q *queue) weights(ms []*matrix) {
	for i := range 3 {
		m := ms[0]
		if i < len(ms) {
			m = ms[i]
		}
		q.bind(argWeights+i, q.s.segmentBuffers[m.segment], m.at)
	}
}

// embed writes the tile's rows of the hidden state.
func (q *queue) embed() {
	s, p := q.s, &q.s.pass
	q.bind(argWeights, s.segmentBuffers[s.layout.embed.segment], s.layout.embed.at)
	dispatch(q, s.kernels.weights[s.layout.embed.f].embed, embedLaunch(p.n, s.c.Dim),
		&Embed{X: s.hiddenRow(), Tokens: s.input(p.in.tokens), N: int32(p.n), Dim: int32(s.c.Dim), LdX: int32(s.ld.dim)})
}

// norm writes the tile's rows, normalised, unless mix has done it.
func (q *queue) norm(weight *vector) {
	s := q.s
	if q.normed {
		q.normed = false
		return
	}
	dispatch(q, s.kernels.norm, normLaunch(s.pass.n, s.c.Dim),
		&Norm{X: s.hiddenRow(), Out: s.in, Weight: weight.at, Dim: int32(s.c.Dim), LdX: int32(s.ld.dim), LdOut: int32(s.ld.dim), Eps: s.c.NormEps})
}

// router writes the tile's rows, normalised, and their products with the router: of
// few rows in one dispatch.
func (q *queue) router(w *blockProducts) {
	s, c, l := q.s, q.s.c, w.layer
	if s.pass.prompt || l.router.f.name != "f32" {
		q.norm(l.ffnNorm)
		q.multiply(w.router)
		return
	}
	q.weights([]*matrix{l.router})
	dispatch(q, s.kernels.router, routerLaunch(s.pass.n, c.Dim, c.Experts), &Router{X: s.hiddenRow(), Out: s.in, Weight: l.ffnNorm.at, Logits: s.routed,
		Dim: int32(c.Dim), LdX: int32(s.ld.dim), LdOut: int32(s.ld.dim), Experts: int32(c.Experts), LdL: int32(s.ld.experts), Eps: c.NormEps})
}

// multiply multiplies the tile's rows by every matrix.
func (q *queue) multiply(all products) {
	for i := range all {
		p := &all[i]
		args := q.arguments(p)
		q.weights(p.m)
		if !q.s.pass.prompt {
			dispatch(q, decodeKernel(p.k.matvec, q.s.pass.n), matvecLaunch(p.rows, q.active(p)), &args)
			continue
		}
		n, active := q.s.pass.n, q.active(p)
		mean := n
		if p.experts > 0 {
			mean = ceil(n*q.s.c.ExpertsUsed, active)
		}
		columns, l := matmulLaunch(p.rows, n, active, mean)
		k := p.k.matmul64
		if columns == 32 {
			k = p.k.matmul32
		}
		dispatch(q, k, l, &args)
	}
}

// arguments are those of a product for the tile's rows.
func (q *queue) arguments(p *product) Product {
	a, pass := p.args, &q.s.pass
	a.N = int32(pass.n)
	if p.hidden {
		a.M[0].Y += 4 * uint64(pass.lo) * uint64(a.M[0].LdY)
	}
	return a
}

// active is how many experts the tile's rows can choose; 1 without experts.
func (q *queue) active(p *product) int {
	if p.experts == 0 {
		return 1
	}
	return min(p.experts, q.s.pass.n*q.s.c.ExpertsUsed)
}

// activate writes silu(gate)*up of the rows' slots where gate lies.
func (q *queue) activate(w *blockProducts, slots int) {
	s, n := q.s, q.s.pass.n
	if p := &w.gateUp[0]; len(w.gateUp) == 1 && !s.pass.prompt {
		q.weights(p.m)
		dispatch(q, decodeKernel(p.k.gate, n), gateLaunch(s.c.FFN, q.active(p)), &Gate{Product: q.arguments(p), Act: s.gate, LdAct: int32(s.ld.ffn)})
		return
	}
	q.multiply(w.gateUp)
	dispatch(q, s.kernels.act, actLaunch(n*slots, s.c.FFN), &Act{Gate: s.gate, Up: s.up, Out: s.gate, Dim: int32(s.c.FFN), Ld: int32(s.ld.ffn)})
}

// rope turns queries and keys and writes keys and values to the cache.
func (q *queue) rope(l *layer) {
	s, c, in := q.s, q.s.c, &q.s.pass.in
	args := Rope{Values: l.values, Q: s.q, K: s.k, V: s.v, Pos: s.input(in.pos), Slot: s.input(in.slot), Cos: s.cos, Sin: s.sin,
		LdQ: int32(s.ld.q), LdKV: int32(s.ld.kv), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Dims: int32(c.Rope.Dims)}
	if c.Rope.Halves {
		args.Halves = 1
	}
	q.bind(argCache, s.caches[l], 0)
	dispatch(q, s.kernels.rope, ropeLaunch(s.pass.n, c.KVHeads), &args)
}

// attend writes what the rows attend to.
func (q *queue) attend(l *layer) {
	s, c, p := q.s, q.s.c, &q.s.pass
	if p.prompt && s.kernels.prompt != nil {
		q.attendPrompt(l)
		return
	}
	for lo := 0; lo < p.n; lo += decodeRows { // of the decode class, or heads that are not whole pieces of 8
		n := min(decodeRows, p.n-lo)
		first, cuts := s.cuts(p.lo+lo, n)
		row := 4 * uint64(lo)
		dispatch(q, s.kernels.attention, attentionLaunch(n, c.Group(), c.KVHeads, c.HeadDim, cuts), &Attention{Values: l.values, Q: s.q + row*uint64(s.ld.q),
			Pos: s.input(p.in.pos) + row, Seq: s.input(p.in.seq) + row, Pages: s.inputs + 4*uint64(p.in.pages), Partial: s.partial,
			FirstCut: int32(first), LdQ: int32(s.ld.q), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Window: int32(c.Window),
			MaxPages: int32(s.maxPages), MaxCuts: int32(s.maxCuts), Scale: attentionScale(c.HeadDim)})
		dispatch(q, s.kernels.combine, combineLaunch(n, c.Heads*c.HeadDim), &Combine{Partial: s.partial, Pos: s.input(p.in.pos) + row, Out: s.att + row*uint64(s.ld.q),
			Heads: int32(c.Heads), HeadDim: int32(c.HeadDim), Window: int32(c.Window), MaxCuts: int32(s.maxCuts), LdOut: int32(s.ld.q)})
	}
}

// cuts are those of the context that n rows from lo on see: the first, and how many.
func (s *stage) cuts(lo, n int) (first, count int) {
	first, end := s.maxCuts, 0
	for _, pos := range s.pass.b.Pos[lo : lo+n] {
		seen := 0
		if s.c.Window > 0 {
			seen = max(0, int(pos)+1-s.c.Window)
		}
		first, end = min(first, seen/cutRows), max(end, int(pos)/cutRows+1)
	}
	return first, end - first
}

// attendPrompt attends by tiles of rows.
func (q *queue) attendPrompt(l *layer) {
	s, c, p := q.s, q.s.c, &q.s.pass
	tiles := s.tiles[p.lo/s.tile]
	dispatch(q, s.kernels.prompt, s.prompts.launch(tiles.count, c.KVHeads), &PromptAttention{Values: l.values, Q: s.q, Pos: s.input(p.in.pos), Seq: s.input(p.in.seq),
		Pages: s.inputs + 4*uint64(p.in.pages), Tiles: s.inputs + 4*uint64(p.in.tiles+tiles.first*tileWords), Out: s.att,
		LdQ: int32(s.ld.q), LdOut: int32(s.ld.q), Heads: int32(c.Heads), KVHeads: int32(c.KVHeads), HeadDim: int32(c.HeadDim), Window: int32(c.Window),
		MaxPages: int32(s.maxPages), Sharing: int32(s.prompts.share), Scale: attentionScale(c.HeadDim)})
}

// route chooses the rows' experts and lists their slots.
func (q *queue) route() {
	s, c, n := q.s, q.s.c, q.s.pass.n
	args := &Route{Logits: s.routed, Weights: s.shares, Chosen: s.chosen, List: s.list, N: int32(n), Experts: int32(c.Experts), Used: int32(c.ExpertsUsed), LdL: int32(s.ld.experts)}
	l := routeLaunch(n)
	dispatch(q, s.kernels.route, l, args)
	if l.groups.w > 1 {
		dispatch(q, s.kernels.list, listLaunch(c.Experts), args)
	}
}

// mix adds the experts' results to the hidden state, and of few rows writes what the
// attention that follows in the run begins with.
func (q *queue) mix() {
	s, c, p := q.s, q.s.c, &q.s.pass
	args := &Mix{X: s.hiddenRow(), Y: s.mixed, Weights: s.shares, Used: int32(c.ExpertsUsed), Dim: int32(c.Dim), LdX: int32(s.ld.dim), LdY: int32(s.ld.dim)}
	next := q.block + 1
	if p.prompt || next == p.r.Hi || next == c.Blocks()-1 {
		dispatch(q, s.kernels.mix, mixLaunch(p.n, c.Dim), args)
		return
	}
	args.Out, args.Weight, args.LdOut, args.Eps = s.in, s.byBlock[next].layer.attnNorm.at, int32(s.ld.dim), c.NormEps
	dispatch(q, s.kernels.mixNorm, normLaunch(p.n, c.Dim), args)
	q.normed = true
}

// traced is what a block's trace has kept: tiles of rows go together.
type traced struct {
	layer  int
	points [backend.OpLogits + 1][]float32
}

// trace keeps the tile's rows of width values, ld apart, for flush.
func (q *queue) trace(layer int, op backend.Op, at uint64, ld, width int) {
	s := q.s
	if s.pass.b.Trace == nil {
		return
	}
	if q.finish(); q.err != nil {
		return
	}
	s.traced.layer = layer
	x := floats(s.scratchBuffer.data[at:])
	for i := range s.pass.n {
		s.traced.points[op] = append(s.traced.points[op], x[i*ld:][:width]...)
	}
}

// flush reports a block's trace, in the order of the ops.
func (s *stage) flush(p *pass) {
	if p.b.Trace == nil || s.queue.err != nil {
		return
	}
	for op, x := range s.traced.points {
		if len(x) > 0 {
			p.b.Trace(s.traced.layer, backend.Op(op), x)
			s.traced.points[op] = x[:0]
		}
	}
}
