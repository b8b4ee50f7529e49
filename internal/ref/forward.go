package ref

import (
	"context"
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// Forward sends a batch through one run of blocks.
func (s *stage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	r, last := s.runs[run], s.c.Blocks()-1
	s.check(r, b)
	s.place(b)
	if r.Lo > 0 {
		copy(s.x, b.Hidden)
	}
	for block := r.Lo; block < r.Hi; block++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case block == 0:
			s.embed(b)
		case block == last:
			s.head(b)
		case block%2 == 1:
			s.attention(b, (block-1)/2)
		default:
			s.feedForward(b, (block-1)/2)
		}
	}
	if r.Hi <= last {
		copy(b.Hidden, s.x[:len(b.Tokens)*s.c.Dim])
	}
	return nil
}

// embed looks up the tokens' rows.
func (s *stage) embed(b *backend.Batch) {
	dim := s.c.Dim
	for i, id := range b.Tokens {
		copy(s.x[i*dim:(i+1)*dim], s.embedW.row(int(id)))
	}
	trace(b, -1, backend.OpEmbed, s.x[:len(b.Tokens)*dim])
}

// attention is the first block of a layer.
func (s *stage) attention(b *backend.Batch, layer int) {
	c, l, n := &s.c, &s.layers[layer], len(b.Tokens)
	dim, heads, kv := c.Dim, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	x, h, q, k, v, att, out := s.x[:n*dim], s.h[:n*dim], s.q[:n*heads], s.k[:n*kv], s.v[:n*kv], s.att[:n*heads], s.out[:n*dim]

	// norm
	norm(h, x, l.attnNorm.w, c.NormEps)
	s.input(h, dim)
	// queries, keys, values
	product(q, l.q, h)
	product(k, l.k, h)
	product(v, l.v, h)
	addBias(q, l.qBias.w)
	addBias(k, l.kBias.w)
	addBias(v, l.vBias.w)
	// rope
	s.rope(q, heads)
	s.rope(k, kv)
	trace(b, layer, backend.OpQ, q)
	trace(b, layer, backend.OpK, k)
	trace(b, layer, backend.OpV, v)
	// cache write
	s.write(l.keys, k, s.lim.K)
	s.write(l.values, v, s.lim.V)
	// attend
	row := 0
	for _, seq := range b.Seqs {
		for range seq.Rows {
			s.attend(att[row*heads:(row+1)*heads], q[row*heads:(row+1)*heads], l, seq.Pages, int(b.Pos[row]))
			row++
		}
	}
	trace(b, layer, backend.OpAttention, att)
	// output, residual
	s.input(att, heads)
	product(out, l.o, att)
	addBias(out, l.oBias.w)
	addResidual(x, out)
	trace(b, layer, backend.OpAttnOut, x)
}

// attend is one row's attention: dst, q (heads*headDim), at position pos. It
// reads keys and values only from the cache, its own too.
func (s *stage) attend(dst, q []float64, l *layer, pages []int32, pos int) {
	c := &s.c
	kv, lo := c.KVHeads*c.HeadDim, 0
	if c.Window > 0 {
		lo = max(0, pos-c.Window+1)
	}
	at := func(p, head int) int { // where position p of a key/value head lies
		page := pages[p/backend.PageRows]
		if page < 0 {
			panic(fmt.Sprintf("BUG: position %d reads position %d, whose page was released", pos, p))
		}
		return (int(page)*backend.PageRows+p%backend.PageRows)*kv + head*c.HeadDim
	}
	score, scale := s.score[:pos+1-lo], 1/math.Sqrt(float64(c.HeadDim))
	for h := range c.Heads {
		qh, out, kvHead := q[h*c.HeadDim:(h+1)*c.HeadDim], dst[h*c.HeadDim:(h+1)*c.HeadDim], h/c.Group()
		for i := range score {
			k := at(lo+i, kvHead)
			score[i] = dot(l.keys[k:k+c.HeadDim], qh) * scale
		}
		softmax(score)
		clear(out)
		for i, weight := range score {
			v := at(lo+i, kvHead)
			for j, value := range l.values[v : v+c.HeadDim] {
				out[j] += weight * float64(value)
			}
		}
	}
}

// feedForward is the second block of a layer.
func (s *stage) feedForward(b *backend.Batch, layer int) {
	c, l, n := &s.c, &s.layers[layer], len(b.Tokens)
	x, h, gate, up, out := s.x[:n*c.Dim], s.h[:n*c.Dim], s.gate[:n*c.FFN], s.up[:n*c.FFN], s.out[:n*c.Dim]

	// norm
	norm(h, x, l.ffnNorm.w, c.NormEps)
	if c.Experts > 0 {
		for i := range n {
			s.experts(out[i*c.Dim:(i+1)*c.Dim], h[i*c.Dim:(i+1)*c.Dim], l)
		}
	} else {
		// gate, up
		s.input(h, c.Dim)
		product(gate, l.gate, h)
		product(up, l.up, h)
		// activation
		swiglu(gate, up)
		trace(b, layer, backend.OpAct, gate)
		// down
		s.input(gate, c.FFN)
		product(out, l.down, gate)
	}
	// residual
	addResidual(x, out)
	trace(b, layer, backend.OpFFNOut, x)
}

// experts is one row through a mixture of experts: dst, h (dim).
func (s *stage) experts(dst, h []float64, l *layer) {
	c := &s.c
	route, gate, up, out := s.route, s.gate[:c.FFN], s.up[:c.FFN], s.rowOut
	// router, the experts with the largest logits, softmax over these
	product(route, l.router, h)
	chosen := top(route, c.ExpertsUsed)
	weights := make([]float64, len(chosen))
	for i, e := range chosen {
		weights[i] = route[e]
	}
	softmax(weights)
	// each expert in the order of its rank: gate, up, activation, down
	s.input(h, c.Dim)
	clear(dst)
	for i, e := range chosen {
		product(gate, l.gate.expert(e, c.FFN), h)
		product(up, l.up.expert(e, c.FFN), h)
		swiglu(gate, up)
		s.input(gate, c.FFN)
		product(out, l.down.expert(e, c.Dim), gate)
		for j, v := range out {
			dst[j] += weights[i] * v
		}
	}
}

// head makes the results of the rows of b.Out.
func (s *stage) head(b *backend.Batch) {
	c, n := &s.c, len(b.Out)
	h, wide, logits := s.rowIn, s.wide, s.logits[:n*c.Vocab]
	for i, row := range b.Out {
		// norm
		norm(h, s.x[int(row)*c.Dim:(int(row)+1)*c.Dim], s.normW.w, c.NormEps)
		narrow(s.normed[i*c.Dim:(i+1)*c.Dim], h)
		// logits
		s.input(h, c.Dim)
		product(wide, s.output, h)
		narrow(logits[i*c.Vocab:(i+1)*c.Vocab], wide)
	}
	if n > 0 {
		trace(b, c.Layers, backend.OpNorm, s.normed[:n*c.Dim])
		trace(b, c.Layers, backend.OpLogits, logits)
	}
	copy(b.Norm, s.normed[:n*c.Dim])
	copy(b.Logits, logits)
	for i := range n {
		if b.Top == 0 {
			break
		}
		row := logits[i*c.Vocab : (i+1)*c.Vocab]
		for j, id := range top(row, b.Top) {
			b.TopIDs[i*b.Top+j], b.TopLogits[i*b.Top+j] = int32(id), row[id]
		}
		b.LogSum[i] = float32(logSum(row))
	}
}

// rope turns each head of x (rows, width) by its row's position.
func (s *stage) rope(x []float64, width int) {
	r := &s.c.Rope
	for at := 0; at < len(x); at += s.c.HeadDim {
		row := at / width
		for i := range r.Dims / 2 {
			a, b := at+2*i, at+2*i+1
			if r.Halves {
				a, b = at+i, at+i+r.Dims/2
			}
			cos, sin := s.cos[row*r.Dims/2+i], s.sin[row*r.Dims/2+i]
			x[a], x[b] = x[a]*cos-x[b]*sin, x[a]*sin+x[b]*cos
		}
	}
}

// write rounds x (rows, kvHeads*headDim) to the cache's format t and puts each
// row in its place.
func (s *stage) write(cache []float32, x []float64, t quant.Type) {
	kv := len(s.rowCache)
	for i := range len(x) / kv {
		narrow(s.rowCache, x[i*kv:(i+1)*kv])
		block := s.blockCache[:t.RowBytes(kv)]
		if err := quant.Quantize(t, block, s.rowCache); err != nil {
			panic(fmt.Sprintf("BUG: a cache in %v: %v", t, err))
		}
		quant.Dequantize(t, cache[int(s.pos[i])*kv:int(s.pos[i]+1)*kv], block)
	}
}

// place finds where each row goes in a cache, and its angles.
func (s *stage) place(b *backend.Batch) {
	row, n := 0, len(s.freq)
	for _, seq := range b.Seqs {
		for range seq.Rows {
			p := int(b.Pos[row])
			s.pos[row] = seq.Pages[p/backend.PageRows]*backend.PageRows + int32(p%backend.PageRows)
			for i, f := range s.freq {
				sin, cos := math.Sincos(float64(p) * f)
				s.cos[row*n+i], s.sin[row*n+i] = cos*s.mscale, sin*s.mscale
			}
			row++
		}
	}
}

// input rounds the rows (., cols) that go into a matrix as the device that is
// imitated would, if one is.
func (s *stage) input(x []float64, cols int) {
	if s.round == nil {
		return
	}
	for ; len(x) > 0; x = x[cols:] {
		s.round(x[:cols])
	}
}

// trace gives a point of the forward pass to who asked for it.
func trace[F float32 | float64](b *backend.Batch, layer int, op backend.Op, x []F) {
	if b.Trace == nil {
		return
	}
	y := make([]float32, len(x))
	narrow(y, x)
	b.Trace(layer, op, y)
}
