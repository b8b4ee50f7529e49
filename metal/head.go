//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"math"

	"drover/backend"
)

// head makes the results of the rows of Out, headRows at a time.
func (s *stage) head(p *pass) {
	b, q := p.b, &s.queue
	for lo := 0; lo < len(b.Out) && q.err == nil; lo += headRows {
		n := min(headRows, len(b.Out)-lo)
		s.headTile(p, lo, n)
		if b.Top == 0 || n > decodeRows {
			q.finish()
		}
		for t := 0; b.Top > 0 && t < n && q.err == nil; t += decodeRows {
			m := min(decodeRows, n-t)
			s.largest(p, t, m)
			if q.finish(); q.err == nil {
				s.takeTop(b, lo+t, m)
			}
		}
		if q.err == nil {
			s.takeLogits(b, lo, n)
		}
	}
	s.flush(p)
}

// headTile writes norm and logits of n rows of Out, from lo on.
func (s *stage) headTile(p *pass, lo, n int) {
	b, q := p.b, &s.queue
	p.lo, p.n = 0, n
	// norm
	dispatch(q, s.kernels.norm, normLaunch(n, s.c.Dim), &Norm{X: s.x, Out: s.in, Weight: s.norm.at, Rows: s.inputs + 4*uint64(p.in.out+lo),
		Dim: int32(s.c.Dim), LdX: int32(s.ld.dim), LdOut: int32(s.ld.dim), Eps: s.c.NormEps})
	q.trace(s.c.Layers, backend.OpNorm, s.in, s.ld.dim, s.c.Dim)
	if b.Logits == nil && b.Top == 0 && b.Trace == nil {
		return
	}
	// logits
	q.multiply(s.outputs)
	q.trace(s.c.Layers, backend.OpLogits, s.logits, s.ld.vocab, s.c.Vocab)
}

// largest writes the search for the largest logits of n rows of the tile, from row
// t on.
func (s *stage) largest(p *pass, t, n int) {
	top := min(p.b.Top, s.c.Vocab)
	parts, merge, kept := topLaunch(n, s.c.Vocab, top)
	args := &Top{Logits: s.logits + 4*uint64(t*s.ld.vocab), Keys: s.keys, Stats: s.stats, IDs: s.topIDs, Values: s.topValues, LogSum: s.logSums,
		Vocab: int32(s.c.Vocab), LdL: int32(s.ld.vocab), Top: int32(top), Parts: int32(parts.groups.w), Kept: int32(kept)}
	dispatch(&s.queue, s.kernels.topParts, parts, args)
	dispatch(&s.queue, s.kernels.topMerge, merge, args)
}

// takeLogits gives the results of n rows of Out, from lo on, to the batch.
func (s *stage) takeLogits(b *backend.Batch, lo, n int) {
	vocab, dim := s.c.Vocab, s.c.Dim
	logits, norm := floats(s.scratchBuffer.data[s.logits:]), floats(s.scratchBuffer.data[s.in:])
	for i := range n {
		if b.Logits != nil {
			copy(b.Logits[(lo+i)*vocab:][:vocab], logits[i*s.ld.vocab:])
		}
		if b.Norm != nil {
			copy(b.Norm[(lo+i)*dim:][:dim], norm[i*s.ld.dim:])
		}
	}
}

// takeTop gives the largest logits of n rows, from lo of Out on, to the batch; beyond
// the vocabulary ids are -1 and logits -Inf.
func (s *stage) takeTop(b *backend.Batch, lo, n int) {
	top := min(b.Top, s.c.Vocab)
	ids, values, sums := ints(s.scratchBuffer.data[s.topIDs:]), floats(s.scratchBuffer.data[s.topValues:]), floats(s.scratchBuffer.data[s.logSums:])
	for i := range n {
		b.LogSum[lo+i] = sums[i]
		to, logits := b.TopIDs[(lo+i)*b.Top:][:b.Top], b.TopLogits[(lo+i)*b.Top:][:b.Top]
		for j := range to {
			if j < top {
				to[j], logits[j] = ids[i*top+j], values[i*top+j]
			} else {
				to[j], logits[j] = -1, float32(math.Inf(-1))
			}
		}
	}
}
