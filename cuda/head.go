//go:build (linux && cgo) || windows

package cuda

import (
	"math"
	"unsafe"

	"drover/backend"
)

// head makes the results of the rows of Out, headRows at a time.
func (s *stage) head(p *pass) error {
	b := p.b
	for lo := 0; lo < len(b.Out); lo += headRows {
		n := min(headRows, len(b.Out)-lo)
		if err := s.headTile(p, lo, n); err != nil {
			return err
		}
		for t := 0; b.Top > 0 && t < n; t += decodeRows {
			m := min(decodeRows, n-t)
			if err := s.largest(p, t, m); err != nil {
				return err
			}
			if err := s.stream.sync(); err != nil {
				return err
			}
			s.takeTop(b, lo+t, m)
		}
		if err := s.stream.sync(); err != nil {
			return err
		}
		s.takeLogits(b, lo, n)
	}
	return s.flush(p)
}

// headTile queues norm and logits of n rows of Out, from lo on, and the copies
// of both where they are wanted.
func (s *stage) headTile(p *pass, lo, n int) error {
	b := p.b
	p.lo, p.n = 0, n
	q := queue{s: s, p: p, layer: s.c.Layers}
	// norm
	to := q.wanted(&s.in, s.outputs)
	if b.Norm != nil || b.Trace != nil {
		to.Out = s.in.plain
	}
	s.args.norm = Norm{X: s.x, Weight: s.norm.at, Rows: s.inputs + 4*uint64(p.in.out+lo), Dim: int32(s.c.Dim), LdX: int32(s.ld.dim), Eps: s.c.NormEps, To: to}
	q.launch(s.kernels.ops.norm, rowLaunch(n, s.c.Dim), 0, unsafe.Pointer(&s.args.norm))
	q.trace(backend.OpNorm, s.in.plain, s.in.ld, s.c.Dim)
	if b.Norm != nil {
		q.copyOut(s.normResult(n), s.in.plain)
	}
	if b.Logits == nil && b.Top == 0 && b.Trace == nil {
		return q.err
	}
	// logits
	q.multiply(s.outputs, &s.in)
	q.trace(backend.OpLogits, s.logits, s.ld.vocab, s.c.Vocab)
	if b.Logits != nil {
		q.copyOut(s.results[:n*s.ld.vocab], s.logits)
	}
	return q.err
}

func (q *queue) copyOut(to []float32, from uint64) {
	if q.err == nil {
		q.err = q.s.stream.copyOut(bytesOf(to), from)
	}
}

// The parts of pinned results: logits, then normed rows, then of decodeRows rows
// the sums, the largest logits and their ids.
func (s *stage) normResult(n int) []float32 {
	return s.results[min(s.lim.Outs, headRows)*s.ld.vocab:][:n*s.ld.dim]
}
func (s *stage) topResult(n, top int) (sums, values, ids []float32) {
	rest := s.results[min(s.lim.Outs, headRows)*(s.ld.vocab+s.ld.dim):]
	return rest[:n], rest[n:][:n*top], rest[n+n*top:][:n*top]
}

// largest queues the search for the largest logits of n rows of the tile, from
// row t on, and their copies.
func (s *stage) largest(p *pass, t, n int) error {
	q := queue{s: s, p: p}
	top := min(p.b.Top, s.c.Vocab)
	parts, merge, kept := topLaunch(n, s.c.Vocab, top)
	s.args.top = Top{Logits: s.logits + 4*uint64(t*s.ld.vocab), Keys: s.keys, Stats: s.stats, IDs: s.topIDs, Values: s.topValues, LogSum: s.logSums,
		Vocab: int32(s.c.Vocab), LdL: int32(s.ld.vocab), Top: int32(top), Parts: int32(parts.grid[0]), Kept: int32(kept)}
	q.launch(s.kernels.ops.topParts, parts, 0, unsafe.Pointer(&s.args.top))
	q.launch(s.kernels.ops.topMerge, merge, 0, unsafe.Pointer(&s.args.top))
	sums, values, ids := s.topResult(n, top)
	q.copyOut(sums, s.logSums)
	q.copyOut(values, s.topValues)
	q.copyOut(ids, s.topIDs)
	return q.err
}

// takeLogits gives the results of n rows of Out, from lo on, to the batch.
func (s *stage) takeLogits(b *backend.Batch, lo, n int) {
	vocab, dim := s.c.Vocab, s.c.Dim
	for i := range n {
		if b.Logits != nil {
			copy(b.Logits[(lo+i)*vocab:][:vocab], s.results[i*s.ld.vocab:])
		}
		if b.Norm != nil {
			copy(b.Norm[(lo+i)*dim:][:dim], s.normResult(n)[i*s.ld.dim:])
		}
	}
}

// takeTop gives the largest logits of n rows, of m that were asked for; beyond
// the vocabulary ids are -1 and logits -Inf.
func (s *stage) takeTop(b *backend.Batch, lo, m int) {
	top := min(b.Top, s.c.Vocab)
	sums, values, ids := s.topResult(m, top)
	for i := lo; i < min(lo+m, len(b.Out)); i++ {
		b.LogSum[i] = sums[i-lo]
		to := b.TopIDs[i*b.Top:][:b.Top]
		for j := range to {
			if j < top {
				to[j], b.TopLogits[i*b.Top+j] = int32(math.Float32bits(ids[(i-lo)*top+j])), values[(i-lo)*top+j]
			} else {
				to[j], b.TopLogits[i*b.Top+j] = -1, float32(math.Inf(-1))
			}
		}
	}
}
