package metal

import "drover/backend"

// parts is where the parts of a batch lie among the stage's inputs: offsets in
// 32-bit words, for so many rows, sequences and outs.
type parts struct {
	tokens, pos, slot, seq int // (rows)
	out                    int // (outs): row of x
	tiles                  int // of prompt attention: (first row, rows) each
	pages                  int // (seqs, maxPages)
	words                  int
	maxPages               int
}

func newParts(rows, seqs, outs, maxPages int) parts {
	i := parts{maxPages: maxPages}
	tiles, pages := tileWords*rows, seqs*maxPages // a tile has a row or more
	for _, part := range []struct {
		at *int
		n  int
	}{{&i.tokens, rows}, {&i.pos, rows}, {&i.slot, rows}, {&i.seq, rows}, {&i.out, outs}, {&i.tiles, tiles}, {&i.pages, pages}} {
		*part.at = i.words
		i.words += part.n
	}
	return i
}

// fill writes a batch to words, but for its tiles.
func (in parts) fill(w []int32, b *backend.Batch) {
	copy(w[in.tokens:], b.Tokens)
	copy(w[in.pos:], b.Pos)
	copy(w[in.out:], b.Out)
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
}

// tileWords is the 32-bit words of a tile of prompt attention, promptLines the
// (row, head) that a threadgroup attends with.
const tileWords, promptLines = 2, 32

// promptShape is how prompt attention shares out a group's query heads. No choice
// changes the bits of a row.
type promptShape struct {
	share int // query heads that a threadgroup takes together
	parts int // threadgroups that a group takes
	rows  int // of a tile, at most
}

func newPromptShape(group int) promptShape {
	const most = 8
	s := promptShape{parts: ceil(group, most)}
	s.share = ceil(group, s.parts)
	s.rows = promptLines / s.share
	return s
}

// tiles writes the tiles of rows lo..lo+n of a batch to w, as seen from row lo, and
// gives their number. A tile has rows of one sequence.
func (s promptShape) tiles(w []int32, seqs []backend.Seq, lo, n int) int {
	count, begin := 0, 0
	for i := range seqs {
		end := begin + seqs[i].Rows
		for row := max(begin, lo); row < min(end, lo+n); row += s.rows {
			w[count*tileWords] = int32(row - lo)
			w[count*tileWords+1] = int32(min(s.rows, min(end, lo+n)-row))
			count++
		}
		begin = end
	}
	return count
}
