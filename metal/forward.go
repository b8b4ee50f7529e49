//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"context"

	"drover/backend"
)

// pass is one batch on its way through a run.
type pass struct {
	b      *backend.Batch
	r      backend.Range
	rows   int
	prompt bool // its class
	in     parts
	cuts   int // of the context, that some row of a decode batch sees, from firstCut on
	first  int // firstCut

	// the tile under way: rows lo and on
	lo, n int
}

// tileList is the tiles of prompt attention of one tile of rows.
type tileList struct{ first, count int }

// Forward sends a batch through the blocks of a run.
func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) (err error) {
	if err := ctx.Err(); err != nil || len(b.Tokens) == 0 {
		return err
	}
	rows := len(b.Tokens)
	s.pass = pass{b: b, r: s.runs[run], rows: rows, prompt: rows > decodeRows, in: newParts(rows, len(b.Seqs), len(b.Out), s.maxPages)}
	s.fillIn(&s.pass)
	pooled(func() { err = s.forward(ctx) })
	return err
}

// fillIn writes the batch to the scratch.
func (s *stage) fillIn(p *pass) {
	words := ints(s.scratchBuffer.data[s.inputs:])[:s.inputWords]
	p.in.fill(words, p.b)
	if p.prompt {
		next := 0
		for i := range ceil(p.rows, s.tile) {
			lo := i * s.tile
			n := s.prompts.tiles(words[p.in.tiles+next*tileWords:], p.b.Seqs, lo, min(s.tile, p.rows-lo))
			s.tiles[i] = tileList{next, n}
			next += n
		}
	}
	if p.r.Lo == 0 {
		return
	}
	x := floats(s.scratchBuffer.data[s.x:])
	for i := range p.b.Tokens {
		copy(x[i*s.ld.dim:], p.b.Hidden[i*s.c.Dim:(i+1)*s.c.Dim])
	}
}

// takeHidden gives the hidden state to the batch.
func (s *stage) takeHidden(p *pass) {
	x := floats(s.scratchBuffer.data[s.x:])
	for i := range p.b.Tokens {
		copy(p.b.Hidden[i*s.c.Dim:(i+1)*s.c.Dim], x[i*s.ld.dim:])
	}
}

// input is the place of one of the batch's parts, from the tile's first row on.
func (s *stage) input(at int) uint64 { return s.inputs + 4*uint64(at+s.pass.lo) }

// forward writes the run's blocks, and waits for them.
func (s *stage) forward(ctx context.Context) error {
	p, q := &s.pass, &s.queue
	*q = queue{s: s}
	q.bind(argScratch, s.scratchBuffer, 0)
	q.bind(argConstants, s.constantsBuffer, 0)
	for block := p.r.Lo; block < p.r.Hi && q.err == nil; block++ {
		if err := ctx.Err(); err != nil {
			q.err = err
			break
		}
		q.block = block
		s.block(p, block)
	}
	q.finish()
	if q.err == nil && p.r.Hi < s.c.Blocks() {
		s.takeHidden(p)
	}
	return q.err
}

// block writes one block, a tile of rows after the other.
func (s *stage) block(p *pass, block int) {
	if block == s.c.Blocks()-1 {
		s.head(p)
		return
	}
	for p.lo = 0; p.lo < p.rows; p.lo += s.tile {
		p.n = min(s.tile, p.rows-p.lo)
		switch w := &s.byBlock[block]; {
		case block == 0:
			s.embedding(p)
		case block%2 == 1:
			s.attention(p, w)
		case s.c.Experts > 0:
			s.mixture(p, w)
		default:
			s.feedForward(p, w)
		}
		if p.prompt {
			s.queue.worked(float64(p.n))
		}
	}
	p.lo = 0
	s.flush(p)
}

// hiddenRow is the place of the tile's first row of the hidden state.
func (s *stage) hiddenRow() uint64 { return s.x + 4*uint64(s.pass.lo*s.ld.dim) }

// embedding is x = the tokens' rows of the embedding.
func (s *stage) embedding(p *pass) {
	q := &s.queue
	// embed
	q.embed()
	q.trace(-1, backend.OpEmbed, s.hiddenRow(), s.ld.dim, s.c.Dim)
}

// attention is x += O(attend(rope(Q, K, V of norm(x)))).
func (s *stage) attention(p *pass, w *blockProducts) {
	q, l, c := &s.queue, w.layer, s.c
	// norm
	q.norm(l.attnNorm)
	// q, k, v and their biases
	q.multiply(w.qkv)
	// rope, cache write
	q.rope(l)
	q.trace(l.index, backend.OpQ, s.q, s.ld.q, c.Heads*c.HeadDim)
	q.trace(l.index, backend.OpK, s.k, s.ld.kv, c.KVHeads*c.HeadDim)
	q.trace(l.index, backend.OpV, s.v, s.ld.kv, c.KVHeads*c.HeadDim)
	// attend
	q.attend(l)
	q.trace(l.index, backend.OpAttention, s.att, s.ld.q, c.Heads*c.HeadDim)
	// output, bias, residual
	q.multiply(w.o)
	q.trace(l.index, backend.OpAttnOut, s.hiddenRow(), s.ld.dim, c.Dim)
}

// feedForward is x += down(silu(gate) * up) of norm(x).
func (s *stage) feedForward(p *pass, w *blockProducts) {
	q, l := &s.queue, w.layer
	// norm
	q.norm(l.ffnNorm)
	// gate, up, silu * up
	q.activate(w, 1)
	q.trace(l.index, backend.OpAct, s.gate, s.ld.ffn, s.c.FFN)
	// down, residual
	q.multiply(w.down)
	q.trace(l.index, backend.OpFFNOut, s.hiddenRow(), s.ld.dim, s.c.Dim)
}

// mixture is x += the weighted sum of the experts that the router chose.
func (s *stage) mixture(p *pass, w *blockProducts) {
	q, l := &s.queue, w.layer
	// norm, router
	q.router(w)
	// choice of experts, their work list
	q.route()
	// gate, up, silu * up
	q.activate(w, s.c.ExpertsUsed)
	// down
	q.multiply(w.down)
	// weighted sum, residual; norm of the attention that follows
	q.mix()
	q.trace(l.index, backend.OpFFNOut, s.hiddenRow(), s.ld.dim, s.c.Dim)
}
