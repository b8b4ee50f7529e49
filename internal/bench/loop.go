package bench

import (
	"context"

	"drover/backend"
)

// loop drives a stage itself, with random tokens: for a profile, so that nothing
// but the pass is in it. What it leaves in the cache makes no sense.
type loop struct {
	stage  backend.Stage
	vocab  int32
	rows   int       // most rows in a batch
	pages  [][]int32 // of each sequence, disjoint
	random uint64
	batch  backend.Batch
	logits []float32
}

func newLoop(stage backend.Stage, c *backend.Config, l backend.Limits, t Test) *loop {
	d := &loop{
		stage: stage, vocab: int32(c.Vocab), rows: l.Rows, random: 1,
		pages:  make([][]int32, t.Sequences),
		logits: make([]float32, l.Outs*c.Vocab),
		batch: backend.Batch{
			Tokens: make([]int32, 0, l.Rows), Pos: make([]int32, 0, l.Rows),
			Seqs: make([]backend.Seq, 0, l.Seqs), Out: make([]int32, 0, l.Outs),
		},
	}
	each := (t.positions() + backend.PageRows - 1) / backend.PageRows
	for s := range d.pages {
		for p := range each {
			d.pages[s] = append(d.pages[s], int32(s*each+p))
		}
	}
	return d
}

// fill puts what precedes the pass into the cache.
func (l *loop) fill(ctx context.Context, t Test) error {
	if t.Gen > 0 {
		return l.prompt(ctx, 0, t.Depth+1)
	}
	return l.prompt(ctx, 0, t.Depth)
}

// pass is one repeat of a test.
func (l *loop) pass(ctx context.Context, t Test) error {
	if t.Prompt > 0 {
		return l.prompt(ctx, t.Depth, t.Prompt)
	}
	for i := range t.Gen {
		l.clear()
		for s := range l.pages {
			l.add(s, t.Depth+1+i, 1, true)
		}
		if err := l.forward(ctx); err != nil {
			return err
		}
	}
	return nil
}

// prompt sends positions [lo, lo+n) of every sequence, batches filled with
// sequence after sequence; only a sequence's last row wants logits.
func (l *loop) prompt(ctx context.Context, lo, n int) error {
	l.clear()
	for s := range l.pages {
		for done := 0; done < n; {
			k := min(n-done, l.rows-len(l.batch.Tokens))
			l.add(s, lo+done, k, done+k == n)
			done += k
			if len(l.batch.Tokens) < l.rows && !(done == n && s == len(l.pages)-1) {
				continue
			}
			if err := l.forward(ctx); err != nil {
				return err
			}
			l.clear()
		}
	}
	return nil
}

func (l *loop) clear() {
	b := &l.batch
	b.Tokens, b.Pos, b.Seqs, b.Out = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Out[:0]
}

// add puts k rows of sequence s from position pos on into the batch; last says
// that the last of them wants logits.
func (l *loop) add(s, pos, k int, last bool) {
	b := &l.batch
	for i := range k {
		b.Tokens, b.Pos = append(b.Tokens, next(&l.random, l.vocab)), append(b.Pos, int32(pos+i))
	}
	pages := (pos + k + backend.PageRows - 1) / backend.PageRows
	b.Seqs = append(b.Seqs, backend.Seq{Rows: k, Pages: l.pages[s][:pages]})
	if last {
		b.Out = append(b.Out, int32(len(b.Tokens)-1))
	}
}

func (l *loop) forward(ctx context.Context) error {
	l.batch.Logits = l.logits[:len(l.batch.Out)*int(l.vocab)]
	return l.stage.Forward(ctx, 0, &l.batch)
}
