package bench

import (
	"drover/backend"
	"drover/internal/quant"
)

// DecodeBytes is what decoding one token at position pos reads, in bytes:
// every matrix except an untied embedding, of a mixture's experts only those
// used, and the cache of the positions that the token sees, itself included.
func DecodeBytes(m *backend.Model, pos int, k, v quant.Type) uint64 {
	return matrixBytes(m) + cacheBytes(&m.Config, pos, k, v)
}

// matrixBytes is the weights' part of DecodeBytes.
func matrixBytes(m *backend.Model) uint64 {
	var sum uint64
	each(m, func(t *backend.Tensor, expert, _ bool) {
		n := t.Bytes()
		if expert {
			n = n / uint64(m.Config.Experts) * uint64(m.Config.ExpertsUsed)
		}
		sum += n
	})
	return sum
}

// each visits every matrix that decoding multiplies by; expert: it holds one
// part for each expert; head: it is the output matrix.
func each(m *backend.Model, visit func(t *backend.Tensor, expert, head bool)) {
	for i := range m.Layers {
		l := &m.Layers[i]
		for _, t := range []*backend.Tensor{l.Q, l.K, l.V, l.O, l.Router} {
			if t != nil {
				visit(t, false, false)
			}
		}
		for _, t := range []*backend.Tensor{l.Gate, l.Up, l.Down} {
			visit(t, m.Config.Experts > 0, false)
		}
	}
	visit(m.Output, false, true)
}

// cacheBytes is the cache that a token at pos reads in all layers.
func cacheBytes(c *backend.Config, pos int, k, v quant.Type) uint64 {
	row := func(t quant.Type) uint64 { // one head's row, whole blocks
		blocks := (c.HeadDim + t.BlockElems() - 1) / t.BlockElems()
		return uint64(blocks * t.BlockBytes())
	}
	return uint64(c.Layers) * uint64(seen(c, pos)) * uint64(c.KVHeads) * (row(k) + row(v))
}

// seen is the number of positions that a token at pos attends to.
func seen(c *backend.Config, pos int) int {
	if c.Window > 0 {
		return min(pos+1, c.Window)
	}
	return pos + 1
}

// stepBytes is the mean over a generation test's steps of the bytes that one
// step reads: the weights once, and the cache of every sequence. Sequences are
// taken to choose the same experts, which makes it the least that can be read.
func stepBytes(m *backend.Model, t Test, k, v quant.Type) float64 {
	var cache uint64
	for i := range t.Gen {
		cache += cacheBytes(&m.Config, t.Depth+i, k, v)
	}
	return float64(matrixBytes(m)) + float64(t.Sequences)*float64(cache)/float64(t.Gen)
}

// promptOps is the operations of one repeat of a prompt test, a multiply and an
// add being two: each row through every matrix, the head for each sequence's
// last row only, and attention over the positions seen.
func promptOps(m *backend.Model, t Test) float64 {
	c := &m.Config
	var row, head float64
	each(m, func(t *backend.Tensor, expert, isHead bool) {
		ops := 2 * float64(t.Rows) * float64(t.Cols)
		switch {
		case isHead:
			head = ops
		case expert:
			row += ops / float64(c.Experts) * float64(c.ExpertsUsed)
		default:
			row += ops
		}
	})
	var positions int
	for i := range t.Prompt {
		positions += seen(c, t.Depth+i)
	}
	// queries by keys and weights by values: 2 products, 2 operations each
	attention := 4 * float64(positions) * float64(c.Layers*c.Heads*c.HeadDim)
	return float64(t.Sequences) * (float64(t.Prompt)*row + attention + head)
}

// limit is the tokens/s that the measured rates allow, 0 where they were not
// measured.
func limit(m *backend.Model, t Test, o Options, rates backend.Rates) float64 {
	if t.Prompt > 0 {
		return rates.Matrix * float64(t.tokens()) / promptOps(m, t)
	}
	return rates.Read * float64(t.Sequences) / stepBytes(m, t, o.K, o.V)
}

// predict is the tokens/s to expect: as limit, but decoding reads each weight
// format at its own rate and launches every block. 0 where not measured.
func predict(m *backend.Model, t Test, o Options, rates backend.Rates) float64 {
	if t.Prompt > 0 || rates.Read == 0 {
		return limit(m, t, o, rates)
	}
	seconds := (stepBytes(m, t, o.K, o.V) - float64(matrixBytes(m))) / rates.Read
	each(m, func(w *backend.Tensor, expert, _ bool) {
		bytes, rate := float64(w.Bytes()), rates.Format[w.Type]
		if expert {
			bytes *= float64(m.Config.ExpertsUsed) / float64(m.Config.Experts)
		}
		if rate == 0 {
			rate = rates.Read
		}
		seconds += bytes / rate
	})
	seconds += float64(m.Config.Blocks()) * rates.Launch
	return float64(t.Sequences) / seconds
}
