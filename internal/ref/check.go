package ref

import (
	"fmt"

	"drover/backend"
)

// check holds a batch to the contract. What it finds is the caller's mistake.
func (s *stage) check(r backend.Range, b *backend.Batch) {
	n, last := len(b.Tokens), s.c.Blocks()-1
	bug := func(wrong bool, format string, args ...any) {
		if wrong {
			panic("BUG: " + fmt.Sprintf(format, args...))
		}
	}
	bug(n == 0 || n > s.lim.Rows, "%d rows in a batch, limit %d", n, s.lim.Rows)
	bug(len(b.Pos) != n, "%d positions for %d rows", len(b.Pos), n)
	bug(len(b.Seqs) > s.lim.Seqs, "%d sequences in a batch, limit %d", len(b.Seqs), s.lim.Seqs)
	bug((r.Lo > 0 || r.Hi <= last) && len(b.Hidden) != n*s.c.Dim, "hidden state of %d values for %d rows", len(b.Hidden), n)
	for _, id := range b.Tokens {
		bug(r.Lo == 0 && (id < 0 || int(id) >= s.c.Vocab), "token %d, vocabulary %d", id, s.c.Vocab)
	}
	row := 0
	for _, seq := range b.Seqs {
		bug(row+seq.Rows > n, "sequences have more than %d rows", n)
		for i := range seq.Rows {
			p := int(b.Pos[row+i])
			bug(p < 0 || p >= s.lim.Context, "position %d, context %d", p, s.lim.Context)
			bug(i > 0 && p != int(b.Pos[row+i-1])+1, "position %d does not follow the one before it", p)
			bug(p/backend.PageRows >= len(seq.Pages), "position %d with %d pages", p, len(seq.Pages))
			bug(seq.Pages[p/backend.PageRows] < 0, "position %d has no page", p)
		}
		for _, page := range seq.Pages {
			bug(page < -1 || int(page) >= s.lim.Pages, "page %d, limit %d", page, s.lim.Pages)
		}
		row += seq.Rows
	}
	bug(row != n, "sequences have %d rows of %d", row, n)
	if r.Hi <= last {
		return
	}
	outs := len(b.Out)
	bug(outs > s.lim.Outs, "results of %d rows, limit %d", outs, s.lim.Outs)
	for i, o := range b.Out {
		bug(o < 0 || int(o) >= n, "results of row %d of %d", o, n)
		bug(i > 0 && o <= b.Out[i-1], "results of row %d out of order", o)
	}
	bug(b.Logits != nil && len(b.Logits) != outs*s.c.Vocab, "%d logits for %d rows", len(b.Logits), outs)
	bug(b.Norm != nil && len(b.Norm) != outs*s.c.Dim, "%d normed values for %d rows", len(b.Norm), outs)
	bug(b.Top < 0 || b.Top > s.c.Vocab, "the top %d of %d logits", b.Top, s.c.Vocab)
	bug(b.Top > 0 && (len(b.TopIDs) != outs*b.Top || len(b.TopLogits) != outs*b.Top || len(b.LogSum) != outs), "no room for the top %d of %d rows", b.Top, outs)
}
