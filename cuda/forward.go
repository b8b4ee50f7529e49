//go:build (linux && cgo) || windows

package cuda

import (
	"context"
	"unsafe"

	"drover/backend"
)

// pass is one batch on its way through a run.
type pass struct {
	b      *backend.Batch
	r      backend.Range
	rows   int  // of the batch, or of its bucket
	outs   int  // likewise
	prompt bool // its class
	in     inputs

	// the tile under way: rows lo and on
	lo, n int
}

// Forward sends a batch through the blocks of a run.
func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	rows := len(b.Tokens)
	if err := ctx.Err(); err != nil || rows == 0 {
		return err
	}
	p := &s.pass
	*p = pass{b: b, r: s.runs[run], rows: rows, outs: len(b.Out), prompt: rows > decodeRows}
	if !p.prompt && b.Trace == nil {
		return s.decode(run)
	}
	p.in = newInputs(rows, len(b.Seqs), p.outs, s.maxPages)
	s.fillIn(p)
	if err := s.copyInputs(p); err != nil {
		return err
	}
	if err := s.blocks(ctx, p); err != nil {
		return s.drain(err)
	}
	if p.r.Hi < s.c.Blocks() {
		if err := s.stream.copyOut(bytesOf(s.hidden[:rows*s.ld.dim]), s.x); err != nil {
			return err
		}
	}
	if err := s.stream.sync(); err != nil {
		return err
	}
	s.takeHidden(p)
	return nil
}

// drain waits for what was queued before an error, which is what counts.
func (s *stage) drain(err error) error {
	s.stream.sync()
	return err
}

// fillIn writes the batch to pinned memory.
func (s *stage) fillIn(p *pass) {
	p.in.fill(s.words, p.b, p.rows, p.outs)
	if p.prompt {
		s.fillTiles(p)
	}
	if p.r.Lo == 0 {
		return
	}
	dim, ld := s.c.Dim, s.ld.dim
	for i := range p.b.Tokens {
		copy(s.hidden[i*ld:], p.b.Hidden[i*dim:(i+1)*dim])
	}
}

// tileList is the tiles of prompt attention of one tile of rows.
type tileList struct{ first, count int }

// fillTiles lists the tiles that prompt attention takes.
func (s *stage) fillTiles(p *pass) {
	next := 0
	for i := range ceil(p.rows, s.tile) {
		lo := i * s.tile
		n := s.prompts.tiles(s.words[p.in.tiles+next*tileWords:], p.b.Seqs, lo, min(s.tile, p.rows-lo))
		s.tiles[i] = tileList{next, n}
		next += n
	}
}

// copyInputs queues the copies to the card.
func (s *stage) copyInputs(p *pass) error {
	if err := s.stream.copyIn(s.inputs, bytesOf(s.words[:p.in.words])); err != nil {
		return err
	}
	if p.r.Lo > 0 {
		return s.stream.copyIn(s.x, bytesOf(s.hidden[:p.rows*s.ld.dim]))
	}
	return nil
}

// takeHidden gives the hidden state that came back to the batch.
func (s *stage) takeHidden(p *pass) {
	if p.r.Hi == s.c.Blocks() {
		return
	}
	dim, ld := s.c.Dim, s.ld.dim
	for i := range p.b.Tokens {
		copy(p.b.Hidden[i*dim:(i+1)*dim], s.hidden[i*ld:])
	}
}

// input is the address of one of the batch's parts, from the tile's first row on.
func (s *stage) input(at int) uint64 { return s.inputs + 4*uint64(at+s.pass.lo) }

// blocks queues the run's blocks; where a trace is wanted it waits after each.
func (s *stage) blocks(ctx context.Context, p *pass) error {
	for block := p.r.Lo; block < p.r.Hi; block++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.block(p, block); err != nil {
			return err
		}
	}
	return nil
}

// block queues one block, a tile of rows after the other.
func (s *stage) block(p *pass, block int) error {
	if block == s.c.Blocks()-1 {
		return s.head(p)
	}
	for p.lo = 0; p.lo < p.rows; p.lo += s.tile {
		p.n = min(s.tile, p.rows-p.lo)
		var err error
		switch w := &s.byBlock[block]; {
		case block == 0:
			err = s.embedding(p)
		case block%2 == 1:
			err = s.attention(p, w)
		case s.c.Experts > 0:
			err = s.mixture(p, w)
		default:
			err = s.feedForward(p, w)
		}
		if err != nil {
			return err
		}
	}
	p.lo = 0
	return s.flush(p)
}

// hiddenRow is the address of the tile's first row of the hidden state.
func (s *stage) hiddenRow() uint64 { return s.x + 4*uint64(s.pass.lo*s.ld.dim) }

// embedding is x = the tokens' rows of the embedding.
func (s *stage) embedding(p *pass) error {
	s.args.embed = Embed{W: s.embed.at, X: s.hiddenRow(), Tokens: s.input(p.in.tokens), N: int32(p.n), Dim: int32(s.c.Dim), LdX: int32(s.ld.dim)}
	if err := s.launch(s.embedK.embed, s.embed.f.embedLaunch(p.n, s.c.Dim), 0, unsafe.Pointer(&s.args.embed)); err != nil {
		return err
	}
	return s.trace(p, -1, backend.OpEmbed, s.hiddenRow(), s.ld.dim, s.c.Dim)
}

// attention is x += O(attend(rope(Q, K, V of norm(x)))).
func (s *stage) attention(p *pass, w *blockProducts) error {
	q := queue{s: s, p: p, layer: w.layer.index}
	// norm
	q.norm(w.layer.attnNorm, w.qkv)
	// q, k, v and their biases
	q.multiply(w.qkv, &s.in)
	// rope, cache write
	q.rope(w.layer)
	q.trace(backend.OpQ, s.q, s.ld.q, s.c.Heads*s.c.HeadDim)
	q.trace(backend.OpK, s.k, s.ld.kv, s.c.KVHeads*s.c.HeadDim)
	q.trace(backend.OpV, s.v, s.ld.kv, s.c.KVHeads*s.c.HeadDim)
	// attend
	q.attend(w.layer, w.o)
	q.trace(backend.OpAttention, s.att.plain, s.att.ld, s.att.cols)
	// output, bias, residual
	q.multiply(w.o, &s.att)
	q.trace(backend.OpAttnOut, s.hiddenRow(), s.ld.dim, s.c.Dim)
	return q.err
}

// feedForward is x += down(silu(gate) * up) of norm(x).
func (s *stage) feedForward(p *pass, w *blockProducts) error {
	q := queue{s: s, p: p, layer: w.layer.index}
	// norm
	q.norm(w.layer.ffnNorm, w.gateUp)
	// gate, up, silu * up
	act := q.activate(w, 1)
	q.trace(backend.OpAct, act, s.ld.ffn, s.c.FFN)
	// down, residual
	q.multiply(w.down, &s.act)
	q.trace(backend.OpFFNOut, s.hiddenRow(), s.ld.dim, s.c.Dim)
	return q.err
}

// mixture is x += the weighted sum of the experts that the router chose.
func (s *stage) mixture(p *pass, w *blockProducts) error {
	lo, n, step := p.lo, p.n, p.n
	if p.prompt && !w.prompts { // matvec has at most decodeRows columns of an expert
		step = decodeRows
	}
	for ; p.lo < lo+n; p.lo += step {
		p.n = min(step, lo+n-p.lo)
		q := queue{s: s, p: p, layer: w.layer.index}
		// norm
		q.norm(w.layer.ffnNorm, w.router, w.gateUp)
		// router
		q.multiply(w.router, &s.in)
		// choice of experts, their work list
		q.route()
		// gate, up, silu * up
		q.activate(w, s.c.ExpertsUsed)
		// down
		q.multiply(w.down, &s.act)
		// weighted sum, residual
		q.mix()
		if q.err != nil {
			return q.err
		}
	}
	p.lo, p.n = lo, n
	return s.trace(p, w.layer.index, backend.OpFFNOut, s.hiddenRow(), s.ld.dim, s.c.Dim)
}
