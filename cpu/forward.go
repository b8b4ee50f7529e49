package cpu

import (
	"context"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// tasks are the bodies that workers run, bound once so that Forward allocates
// nothing. Each handles units [lo, hi) of what its name says.
type tasks struct {
	prep, rope, attend, results, gather func(worker, lo, hi int)
	claim, multiply                     func(worker int)
}

// prepare binds what Forward needs once the memory is there.
func (s *stage) prepare(threads int, cpus places) {
	s.pool, s.bands, s.parts = newPool(threads, cpus), 1, 1
	s.tasks = tasks{s.prepRows, s.ropeRows, s.attendUnits, s.resultRows, s.gatherRows, s.claimUnits, s.multiplyShares}
	s.freq, s.mscale = s.config.Rope.Frequencies()
	s.attnScale = float32(1 / math.Sqrt(float64(s.config.HeadDim)))
	page := backend.PageRows * s.config.HeadDim
	s.score, s.accum = s.k.scoreF32, s.k.accumF32
	switch s.limits.K {
	case quant.F16:
		s.score, s.widenKeys = s.k.scoreF16, func(dst *float32, k *byte) { s.k.widenF16(dst, k, page) }
	case quant.Q8_0:
		s.score = s.k.scoreQ8
	}
	if s.limits.V == quant.F16 {
		s.accum, s.widenValues = s.k.accumF16, func(dst *float32, v *byte) { s.k.widenF16(dst, v, page) }
	}
	s.layersByBlock()
	s.pool.ahead = s.ahead
}

// Forward sends a batch through the blocks of a run.
func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	s.b = b
	r := s.runs[run]
	dim, rows := s.config.Dim, len(b.Tokens)
	if rows == 0 {
		return ctx.Err()
	}
	s.profile.begin(s.pool)
	s.pool.begin(rows <= fewRows)
	defer s.pool.end()
	s.locate()
	if r.Lo > 0 {
		copy(s.x, b.Hidden[:rows*dim])
	}
	s.mark(opPlaces, rows)
	for block := r.Lo; block < r.Hi; block++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case block == 0:
			if err := s.embedRows(); err != nil {
				return err
			}
		case block == s.config.Blocks()-1:
			s.head()
		case block%2 == 1:
			s.attention(s.byBlock[block])
		default:
			s.feedForward(s.byBlock[block])
		}
	}
	if r.Hi < s.config.Blocks() {
		copy(b.Hidden[:rows*dim], s.x)
	}
	return nil
}

// embedRows makes x (rows, dim) of the tokens.
func (s *stage) embedRows() error {
	dim := s.config.Dim
	for i, id := range s.b.Tokens {
		if err := s.embed.Read(s.row, int(id), int(id)+1); err != nil {
			return err
		}
		quant.Dequantize(s.embed.Type, s.x[i*dim:(i+1)*dim], s.row)
		if i%64 == 63 { // a prompt would leave the whole table resident
			s.embed.Source.Drop(0, s.embed.Rows)
		}
	}
	s.mark(opEmbed, len(s.b.Tokens))
	s.trace(backend.OpEmbed, s.x, dim, dim, len(s.b.Tokens))
	s.flush(-1)
	return nil
}

// attention is x += O(attend(rope(Q, K, V of norm(x)))). Rows see earlier rows
// only through the cache, so tiles may follow one another.
func (s *stage) attention(l *layer) {
	for s.lo = 0; s.lo < len(s.b.Tokens); s.lo += passRows {
		s.attentionTile(l, min(passRows, len(s.b.Tokens)-s.lo))
	}
	s.flush(l.index)
}

func (s *stage) attentionTile(l *layer, rows int) {
	c := s.config
	heads, kv, x := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim, s.x[s.lo*c.Dim:]
	s.layer = l
	// norm, quantise
	s.input(input{x: x, ld: c.Dim, cols: c.Dim, rows: rows, norm: l.attnNorm}, l.q, l.k, l.v)
	s.mark(opAttnNorm, rows)
	// q, k, v
	s.multiply(l.o, product{m: l.q, dst: s.queries, ld: s.ld.q}, product{m: l.k, dst: s.keys, ld: s.ld.kv}, product{m: l.v, dst: s.values, ld: s.ld.kv})
	s.mark(opQKV, rows)
	attended := input{x: s.attended, ld: heads, cols: heads, rows: rows}
	if s.attending.makes = s.b.Trace == nil && !l.o.kind.float() && heads/c.KVHeads%blockCols == 0; s.attending.makes {
		attended.tile, attended.quant = s.tileOf(rows, false), true
		s.products.in, s.products.act = attended, s.act
	}
	attend := opTurned
	if !s.attending.turns {
		// bias, rope, cache write
		s.each(s.tasks.rope, rows, ropeStep)
		s.mark(opRope, rows)
		s.trace(backend.OpQ, s.queries, s.ld.q, heads, rows)
		s.trace(backend.OpK, s.keys, s.ld.kv, kv, rows)
		s.trace(backend.OpV, s.values, s.ld.kv, kv, rows)
		attend = opAttend
	}
	// bias, rope and cache write where not done, attend, quantise
	s.attend(rows)
	s.mark(attend, rows)
	s.trace(backend.OpAttention, s.attended, heads, heads, rows)
	if !s.attending.makes {
		// quantise
		s.input(attended, l.o)
		s.mark(opAttended, rows)
	}
	// output, bias, residual
	s.multiply(l.afterAttention(), product{m: l.o, dst: s.out, ld: s.ld.dim, sum: x, bias: l.oBias})
	s.mark(opOutput, rows)
	s.trace(backend.OpAttnOut, x, c.Dim, c.Dim, rows)
}

// feedForward is x += down(silu(gate) * up) of norm(x).
func (s *stage) feedForward(l *layer) {
	for s.lo = 0; s.lo < len(s.b.Tokens); s.lo += passRows {
		if rows := min(passRows, len(s.b.Tokens)-s.lo); s.config.Experts > 0 {
			s.mixtureTile(l, rows)
		} else {
			s.feedForwardTile(l, rows)
		}
	}
	s.flush(l.index)
}

func (s *stage) feedForwardTile(l *layer, rows int) {
	c := s.config
	x := s.x[s.lo*c.Dim:]
	// norm, quantise
	s.input(input{x: x, ld: c.Dim, cols: c.Dim, rows: rows, norm: l.ffnNorm}, l.gate, l.up)
	s.mark(opFFNNorm, rows)
	if s.gates(l) {
		// gate, up, silu * up, quantise
		s.gated(l)
		s.mark(opGated, rows)
		s.feed()
	} else {
		// gate, up
		s.multiply(l.down, product{m: l.gate, dst: s.gate, ld: s.ld.ffn}, product{m: l.up, dst: s.up, ld: s.ld.ffn})
		s.mark(opGateUp, rows)
		// silu * up, quantise
		s.input(input{x: s.gate, ld: s.ld.ffn, cols: c.FFN, rows: rows, silu: true}, l.down)
		s.mark(opAct, rows)
		s.trace(backend.OpAct, s.gate, s.ld.ffn, c.FFN, rows)
	}
	// down, residual
	s.multiply(s.firstOf(l.index+1), product{m: l.down, dst: s.out, ld: s.ld.dim, sum: x})
	s.mark(opDown, rows)
	s.trace(backend.OpFFNOut, x, c.Dim, c.Dim, rows)
}

// firstOf is the matrix that a layer, or the head behind the last, begins with; nil where
// it is another device's.
func (s *stage) firstOf(layer int) *matrix {
	if layer == s.config.Layers {
		return s.output
	}
	if l := s.byBlock[1+2*layer]; l != nil {
		return l.q
	}
	return nil
}

// afterAttention is the one that a layer's feed-forward begins with.
func (l *layer) afterAttention() *matrix {
	if l.router != nil {
		return l.router
	}
	return l.gate
}

// trace keeps a tile's rows of width values that lie ld apart.
func (s *stage) trace(op backend.Op, x []float32, ld, width, rows int) {
	if s.b.Trace == nil {
		return
	}
	for i := range rows {
		s.traced[op] = append(s.traced[op], x[i*ld:][:width]...)
	}
}

// flush reports what trace has kept, in the order of the ops.
func (s *stage) flush(layer int) {
	if s.b.Trace == nil {
		return
	}
	for op, x := range s.traced {
		if len(x) > 0 {
			s.b.Trace(layer, backend.Op(op), x)
			s.traced[op] = x[:0]
		}
	}
}
