package bench

import (
	"drover/backend"
	"drover/internal/quant"
)

// DecodeBytes is what decoding one token at position pos reads, in bytes:
// every matrix except an untied embedding, of a mixture's experts only those
// used, and the cache of the positions that the token sees, itself included.
func DecodeBytes(m *backend.Model, pos int, k, v quant.Type) uint64 {
	return matrixBytes(m, whole(m)) + uint64(m.Config.Layers)*cacheBytes(&m.Config, pos, k, v)
}

// whole is all blocks of a model.
func whole(m *backend.Model) []backend.Range { return []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}} }

// matrixBytes is the weights' part of DecodeBytes in some of the blocks.
func matrixBytes(m *backend.Model, runs []backend.Range) uint64 {
	var sum uint64
	each(m, runs, func(t *backend.Tensor, expert, _ bool) {
		n := t.Bytes()
		if expert {
			n = n / uint64(m.Config.Experts) * uint64(m.Config.ExpertsUsed)
		}
		sum += n
	})
	return sum
}

// each visits every matrix of some blocks that decoding multiplies by; expert: it
// holds one part for each expert; head: it is the output matrix.
func each(m *backend.Model, runs []backend.Range, visit func(t *backend.Tensor, expert, head bool)) {
	for _, r := range runs {
		for b := max(r.Lo, 1); b < r.Hi; b++ { // block 0 is the embedding
			if b == m.Config.Blocks()-1 {
				visit(m.Output, false, true)
				continue
			}
			l := &m.Layers[(b-1)/2]
			one, expert := []*backend.Tensor{l.Q, l.K, l.V, l.O}, false
			if b%2 == 0 {
				if l.Router != nil {
					visit(l.Router, false, false)
				}
				one, expert = []*backend.Tensor{l.Gate, l.Up, l.Down}, m.Config.Experts > 0
			}
			for _, t := range one {
				if t != nil {
					visit(t, expert, false)
				}
			}
		}
	}
}

// attentions is how many of the blocks have attention, and so a cache.
func attentions(c *backend.Config, runs []backend.Range) (n int) {
	for _, r := range runs {
		for b := r.Lo; b < min(r.Hi, c.Blocks()-1); b++ {
			n += b % 2
		}
	}
	return n
}

// cacheBytes is the cache that a token at pos reads in a layer.
func cacheBytes(c *backend.Config, pos int, k, v quant.Type) uint64 {
	row := func(t quant.Type) uint64 { // one head's row, whole blocks
		blocks := (c.HeadDim + t.BlockElems() - 1) / t.BlockElems()
		return uint64(blocks * t.BlockBytes())
	}
	return uint64(seen(c, pos)) * uint64(c.KVHeads) * (row(k) + row(v))
}

// seen is the number of positions that a token at pos attends to.
func seen(c *backend.Config, pos int) int {
	if c.Window > 0 {
		return min(pos+1, c.Window)
	}
	return pos + 1
}

// stepBytes is the mean over a generation test's steps of the bytes that one
// step reads in some blocks: the weights once, and the cache of every sequence.
// Sequences are taken to choose the same experts, which makes it the least that can
// be read.
func stepBytes(m *backend.Model, runs []backend.Range, t Test, k, v quant.Type) float64 {
	var cache uint64
	for i := range t.Gen {
		cache += cacheBytes(&m.Config, t.Depth+1+i, k, v)
	}
	return float64(matrixBytes(m, runs)) + float64(t.Sequences*attentions(&m.Config, runs))*float64(cache)/float64(t.Gen)
}

// promptOps is the operations of one repeat of a prompt test in some blocks: each
// row through every matrix, the head for each sequence's last row only, and attention
// over the positions seen.
func promptOps(m *backend.Model, runs []backend.Range, t Test) backend.Work {
	row, head := rowOps(m, runs)
	one := row.Times(float64(t.Prompt)).Plus(head).Plus(backend.Work{Attention: attentionOps(m, runs, t.Depth, t.Prompt)})
	return one.Times(float64(t.Sequences))
}

// stepOps is the mean over a generation test's steps of the operations of one step.
func stepOps(m *backend.Model, runs []backend.Range, t Test) backend.Work {
	row, head := rowOps(m, runs)
	one := row.Plus(head).Plus(backend.Work{Attention: attentionOps(m, runs, t.Depth+1, t.Gen) / float64(t.Gen)})
	return one.Times(float64(t.Sequences))
}

// rowOps is the operations of a row's products with matrices, and apart those of the
// output matrix.
func rowOps(m *backend.Model, runs []backend.Range) (row, head backend.Work) {
	c := &m.Config
	each(m, runs, func(t *backend.Tensor, expert, isHead bool) {
		n := backend.Work{Quantised: 2 * float64(t.Rows) * float64(t.Cols)}
		if t.Type.IsFloat() {
			n = backend.Work{Float: n.Quantised}
		}
		switch {
		case isHead:
			head = n
		case expert:
			row = row.Plus(n.Times(float64(c.ExpertsUsed) / float64(c.Experts)))
		default:
			row = row.Plus(n)
		}
	})
	return row, head
}

// attentionOps is the operations of attention for n rows from position lo on:
// queries by keys and weights by values, 2 products of 2 operations each.
func attentionOps(m *backend.Model, runs []backend.Range, lo, n int) float64 {
	c := &m.Config
	var positions int
	for i := range n {
		positions += seen(c, lo+i)
	}
	return 4 * float64(positions) * float64(attentions(c, runs)*c.Heads*c.HeadDim)
}

// part is what one device carries, and its rates.
type part struct {
	kind  string // backend.Info.Kind
	runs  []backend.Range
	rates backend.Rates
}

// limit is the tokens/s that the measured rates allow, 0 where one was not
// measured: for decode those of reading, and of several sequences at once also those
// of arithmetic. One sequence decodes on one device after the other; several, and
// the chunks of prompts, may keep all of them at work, and the slowest decides.
func limit(m *backend.Model, parts []part, t Test, o *Options) float64 {
	var sum, most float64
	for _, p := range parts {
		seconds := 0.0
		if t.Prompt > 0 {
			seconds = p.rates.Seconds(p.kind, promptOps(m, p.runs, t))
		} else if bytes := stepBytes(m, p.runs, t, o.K, o.V); bytes > 0 {
			seconds = bytes / p.rates.Read
			if t.Sequences > 1 && p.rates.Matrix > 0 { // a weight that is read once serves them all
				seconds = max(seconds, p.rates.Seconds(p.kind, stepOps(m, p.runs, t)))
			}
			seconds *= float64(t.Gen)
		}
		sum, most = sum+seconds, max(most, seconds)
	}
	if t.Gen > 0 && t.Sequences == 1 {
		most = sum
	}
	return float64(t.tokens()) / most
}
