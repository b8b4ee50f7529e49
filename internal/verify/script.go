package verify

import (
	"math/rand/v2"

	"drover/backend"
)

// sequences of a script, of which at most together are in a batch. The third begins
// far: its earlier positions are read from the first page of the first, again and
// again.
const sequences, together, far = 3, 2, 2

// farthest is where it begins at most: the angles of a rotary embedding whose base is
// 1 % off differ by too little in the first page to be told from rounding.
const farthest = 1024

// The first prompt takes the kernels for many rows. The reference's time is that of
// rows; another device has it for a prompt over several pages.
const promptRows, widePromptRows = 40, 200

// lastRows of a prompt are those whose logits are compared: the head is wide.
const lastRows = 8

// decodeRows is the most rows that go to the kernels of decoding.
const decodeRows = 8

// part is rows [lo, hi) of a sequence.
type part struct{ seq, lo, hi int }

// step is one batch: a part of one sequence or of both.
type step struct {
	name  string
	parts []part
}

// script is the batches that are sent, always the same for a seed: prompts alone and
// of two sequences, single rows, rows of both, rows over a page's end and beyond it,
// and rows at a far position.
type script struct {
	steps  []step
	tokens [sequences][]int32
	start  [sequences]int // the first position, a page's
}

// newScript is the script for models and limits of that size. Where the context is
// short the prompts are; where batches are small they are sent in several.
func newScript(seed uint64, vocab, context, batch, first int) *script {
	wanted := []struct {
		name string
		rows [sequences]int
	}{{"prompt", [3]int{first}}, {"two prompts", [3]int{19, 9}}, {"decode", [3]int{1}}, {"decode of two", [3]int{1, 1}},
		{"four rows", [3]int{4}}, {"decode of the second", [3]int{0, 1}}, {"decode beyond a page", [3]int{1}}, {"far row", [3]int{far: 1}}, {"far prompt", [3]int{far: 11}}}
	total := 0
	for _, w := range wanted {
		total += w.rows[0]
	}
	for i := range 2 { // the prompts are what can be shorter
		less := max(0, min(wanted[i].rows[0]-1, total-context))
		wanted[i].rows[0] -= less
		total -= less
	}
	s := &script{}
	limit := [sequences]int{context, context, 0}
	if total > backend.PageRows && context > 2*backend.PageRows {
		s.start[far] = min(farthest, (context-1)/backend.PageRows*backend.PageRows)
		limit[far] = context
	}
	at := s.start
	for _, w := range wanted {
		var parts []part
		rows := 0
		for q, n := range w.rows {
			for n = min(n, limit[q]-at[q]); n > 0; {
				now := min(n, batch-rows)
				if now > 0 {
					parts = append(parts, part{q, at[q], at[q] + now})
					at[q], rows, n = at[q]+now, rows+now, n-now
				}
				if n > 0 {
					s.steps, parts, rows = append(s.steps, step{w.name, parts}), nil, 0
				}
			}
		}
		if rows > 0 {
			s.steps = append(s.steps, step{w.name, parts})
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for q, n := range at {
		for range n - s.start[q] {
			s.tokens[q] = append(s.tokens[q], int32(random.IntN(vocab)))
		}
	}
	return s
}

// rows is how many there are in all.
func (s *script) rows() (n int) {
	for q := range s.tokens {
		n += len(s.tokens[q])
	}
	return n
}

// context is how many positions the longest sequence has.
func (s *script) context() (n int) {
	for q := range s.tokens {
		n = max(n, s.start[q]+len(s.tokens[q]))
	}
	return n
}

// most is the rows of the largest batch.
func (s *script) most() (most int) {
	for i := range s.steps {
		most = max(most, s.steps[i].rows())
	}
	return most
}

// outs is the most results of a batch.
func (s *script) outs() (most int) {
	for i := range s.steps {
		most = max(most, len(s.steps[i].out()))
	}
	return most
}

// pages is how many the sequences have together.
func (s *script) pages() (n int) {
	for q := range s.tokens {
		n += pagesOf(len(s.tokens[q]))
	}
	return n
}

func pagesOf(positions int) int { return (positions + backend.PageRows - 1) / backend.PageRows }

func (t *step) rows() (n int) {
	for _, p := range t.parts {
		n += p.hi - p.lo
	}
	return n
}

// out is the rows whose logits are compared: the last ones of prompts.
func (t *step) out() (out []int32) {
	for r := max(0, t.rows()-lastRows); r < t.rows(); r++ {
		out = append(out, int32(r))
	}
	return out
}

// at is where row r of the step is: its sequence and position.
func (t *step) at(r int) (seq, position int) {
	for _, p := range t.parts {
		if r < p.hi-p.lo {
			return p.seq, p.lo + r
		}
		r -= p.hi - p.lo
	}
	panic("BUG: a row that the step does not have")
}

// batch is step i without what goes in and comes out. Each pass gives the sequences
// other pages: a device that keeps an earlier table of pages reads what is stale.
func (s *script) batch(i, pass int) *backend.Batch {
	b := &backend.Batch{}
	for _, p := range s.steps[i].parts {
		b.Seqs = append(b.Seqs, backend.Seq{Rows: p.hi - p.lo, Pages: s.table(p.seq, pass)})
		b.Tokens = append(b.Tokens, s.tokens[p.seq][p.lo-s.start[p.seq]:p.hi-s.start[p.seq]]...)
		for at := p.lo; at < p.hi; at++ {
			b.Pos = append(b.Pos, int32(at))
		}
	}
	return b
}

// table is a sequence's pages.
func (s *script) table(seq, pass int) (table []int32) {
	for range s.start[seq] / backend.PageRows {
		table = append(table, s.page(0, pass))
	}
	first := 0
	for q := range seq {
		first += pagesOf(len(s.tokens[q]))
	}
	for j := range pagesOf(len(s.tokens[seq])) {
		table = append(table, s.page(first+j, pass))
	}
	return table
}

// page is the n-th of all pages, which are in other places in each pass.
func (s *script) page(n, pass int) int32 {
	all := s.pages()
	return int32((all - 1 - n + pass) % all)
}
