package cuda

import "drover/backend"

// inputs is where the parts of a batch lie that go up in one copy: offsets in
// 32-bit words, for so many rows, sequences and outs.
type inputs struct {
	tokens, pos, slot, seq int // (rows)
	out                    int // (outs): row of x
	pages                  int // (seqs, maxPages)
	tiles                  int // of prompt attention
	words                  int
	maxPages               int
}

func newInputs(rows, seqs, outs, maxPages int) inputs {
	i := inputs{maxPages: maxPages}
	for _, part := range []struct{ at, n *int }{{&i.tokens, &rows}, {&i.pos, &rows}, {&i.slot, &rows}, {&i.seq, &rows}, {&i.out, &outs}} {
		*part.at = i.words
		i.words += *part.n
	}
	i.tiles = pad(i.words, 4)
	i.pages = i.tiles + tileWords*maxTiles(rows, seqs)
	i.words = i.pages + seqs*maxPages
	return i
}

// fill writes a batch to words. Rows beyond the batch's are padding: slot -1.
func (in inputs) fill(w []int32, b *backend.Batch, rows, outs int) {
	copy(w[in.tokens:], b.Tokens)
	copy(w[in.pos:], b.Pos)
	row := 0
	for i, s := range b.Seqs {
		copy(w[in.pages+i*in.maxPages:][:in.maxPages], s.Pages)
		for range s.Rows {
			pos := b.Pos[row]
			w[in.slot+row] = s.Pages[pos/backend.PageRows]*backend.PageRows + pos%backend.PageRows
			w[in.seq+row] = int32(i)
			row++
		}
	}
	for ; row < rows; row++ {
		w[in.tokens+row], w[in.pos+row], w[in.slot+row], w[in.seq+row] = 0, 0, -1, 0
	}
	for i := range outs {
		w[in.out+i] = b.Out[min(i, len(b.Out)-1)]
	}
}
