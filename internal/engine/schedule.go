package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"drover/backend"
)

// A step should stay under stepTime, so that a new sequence or a cancelled one
// waits no longer. Below leastChunk rows a prompt would read the weights too
// often for what it computes; while others decode, they wait less and the
// prompt accepts that.
const (
	stepTime    = 400 * time.Millisecond // of 0.5 s, since the next chunk sees a longer context
	firstChunk  = 64
	leastChunk  = 64
	sharedChunk = 16
)

// admit moves sequences from waiting to live, in order, while there is room in
// the batch and pages for all of their tokens.
func (e *Engine) admit() {
	for len(e.waiting) > 0 && len(e.live) < e.limits.Seqs {
		s := e.waiting[0]
		e.reuse(s)
		// what the live ones will still take, and one more page each, so that a
		// sequence is not put back at once
		owed := len(e.live)
		for _, l := range e.live {
			owed += max(0, e.wants(l)-l.held())
		}
		if len(e.live) > 0 && e.pages.available()-owed < e.wants(s)-s.held() {
			e.releaseAll(s)
			return
		}
		if s.admitted.IsZero() {
			s.admitted, s.reused = time.Now(), s.done
			e.stats.Reused += s.done
		}
		e.live = append(e.live, s)
		e.waiting = slices.Delete(e.waiting, 0, 1)
	}
}

// wants is how many pages a sequence needs at once for the tokens it has and
// one more.
func (e *Engine) wants(s *sequence) int {
	return holding(e.model.Config.Window, min(len(s.tokens)+1, e.limits.Context))
}

// preempt puts the youngest sequence back to wait. It keeps its tokens, which
// are read again later.
func (e *Engine) preempt() {
	last := len(e.live) - 1
	s := e.live[last]
	e.releaseAll(s)
	e.live[last] = nil
	e.live = e.live[:last]
	e.waiting = slices.Insert(e.waiting, 0, s)
	e.stats.Preempted++
}

// schedule builds the next batch: one row for each sequence that decodes, then
// chunks of prompts, the oldest first. It reports whether there are any rows.
func (e *Engine) schedule() bool {
	decoding := 0
	for _, s := range e.live {
		s.rows = 0
		if s.runnable() && s.left() == 1 {
			decoding++
		}
	}
	least := leastChunk
	if decoding > 0 {
		least = sharedChunk
	}
	budget := min(max(e.chunk, least), e.limits.Rows-decoding)
	outs := e.limits.Outs - len(e.live) + 1 // everybody else may want one
	for i := 0; i < len(e.live); i++ {      // preemption shortens live, and only behind i
		s := e.live[i]
		if !s.runnable() {
			continue
		}
		n := 1
		if s.left() > 1 {
			n = min(s.left(), budget, max(s.from-s.done, 0)+outs)
		}
		if n > 0 {
			n = e.cover(s, n)
		}
		if i >= len(e.live) {
			break // it was the youngest itself
		}
		if s.rows = n; s.left() > 1 {
			budget -= n
			outs -= max(0, s.done+n-max(s.done, s.from)-1)
		}
	}
	return e.join()
}

// cover makes sure of pages for the next row of s, putting younger sequences
// back if it must, and for as many of the n rows as there are free pages. It
// gives that number, 0 if s itself had to wait.
func (e *Engine) cover(s *sequence, n int) int {
	for s.done >= len(s.pages)*backend.PageRows {
		page, ok := e.pages.take()
		if ok {
			s.pages = append(s.pages, page)
			continue
		}
		youngest := e.live[len(e.live)-1]
		if youngest == s && len(e.live) == 1 {
			panic("BUG: no page for the only sequence")
		}
		e.preempt()
		if youngest == s {
			return 0
		}
	}
	for s.done+n > len(s.pages)*backend.PageRows {
		page, ok := e.pages.take()
		if !ok {
			break
		}
		s.pages = append(s.pages, page)
	}
	return min(n, len(s.pages)*backend.PageRows-s.done)
}

// join writes the scheduled rows into the batch.
func (e *Engine) join() bool {
	b := &e.batch
	b.Tokens, b.Pos, b.Seqs, b.Out = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Out[:0]
	e.members = e.members[:0]
	for _, prompts := range [2]bool{false, true} {
		for _, s := range e.live {
			if s.rows == 0 || (s.left() > 1) != prompts {
				continue
			}
			for pos := s.done; pos < s.done+s.rows; pos++ {
				if pos >= s.from {
					b.Out = append(b.Out, int32(len(b.Tokens)))
				}
				b.Tokens = append(b.Tokens, s.tokens[pos])
				b.Pos = append(b.Pos, int32(pos))
			}
			b.Seqs = append(b.Seqs, backend.Seq{Rows: s.rows, Pages: s.pages})
			e.members = append(e.members, s)
		}
	}
	b.Logits = e.logits[:len(b.Out)*e.model.Config.Vocab]
	if e.hidden != nil {
		b.Hidden = e.hidden[:len(b.Tokens)*e.model.Config.Dim]
	}
	return len(e.members) > 0
}

// finish hands out the results of a step. If the step failed or was cancelled,
// no sequence has moved: the next batch writes the same rows again.
func (e *Engine) finish(now time.Time, took time.Duration, err error) {
	unwanted := e.step.Err() != nil
	if unwanted && e.broken == nil {
		e.step, e.cancel = context.WithCancel(context.Background())
	}
	if err != nil {
		if !unwanted || !errors.Is(err, context.Canceled) {
			e.failed(err, now)
		}
		return // unwanted: sweep takes its sequences out
	}
	rows := len(e.batch.Tokens)
	e.stats.Steps++
	e.stats.Rows += rows
	e.learn(rows, took)
	vocab := e.model.Config.Vocab
	logits := e.logits
	for _, s := range e.members {
		first, end := max(s.done, s.from), s.done+s.rows
		own := logits[:max(0, end-first)*vocab]
		logits = logits[len(own):]
		if s.cancelled {
			continue // its tokens may have changed; sweep takes it out
		}
		s.done = end
		e.publish(s)
		over := false
		for pos := first; pos < end && !over; pos++ {
			over = s.job.take(s, pos, own[:vocab], now)
			own = own[vocab:]
		}
		if over || s.left() == 0 {
			e.leave(s, nil, now)
		} else {
			e.passWindow(s)
		}
	}
}

// failed deals with a step that gave an error. A lost device ends the engine;
// any other error ends the sequences that were in the batch.
func (e *Engine) failed(err error, now time.Time) {
	if errors.Is(err, backend.ErrLost) && e.broken == nil {
		e.broken = err
	}
	for _, s := range e.members {
		if !s.cancelled {
			e.leave(s, err, now)
		}
	}
}

// learn fits the chunk to the measured rate.
func (e *Engine) learn(rows int, took time.Duration) {
	if rows < min(e.chunk, leastChunk) {
		return // decode steps say nothing of prompts
	}
	fit := e.limits.Rows
	if took > 0 {
		fit = int(min(float64(rows)*float64(stepTime)/float64(took), float64(fit)))
	}
	e.chunk = min(max(fit, 1), 8*e.chunk, e.limits.Rows)
}
