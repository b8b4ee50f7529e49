package engine

import (
	"slices"
	"time"

	"drover/backend"
)

// A step should stay under stepTime, so that a new sequence or a cancelled one
// waits no longer. Below leastChunk rows a prompt would read the weights too
// often for what it computes; while others decode, they wait less and the
// prompt accepts that. With several stages a prompt is cut into at least four pieces
// for each, so that all soon work, but none below pipedChunk, where GPUs become slower.
// An engine for one sequence has nobody who waits, and Forward minds cancellation itself.
const (
	stepTime    = 400 * time.Millisecond // of 0.5 s, since the next chunk sees a longer context
	firstChunk  = 64
	leastChunk  = 64
	sharedChunk = 16
	pipedChunk  = 256
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

// preempt puts live[i] back to wait. It keeps its tokens, which are read again
// later.
func (e *Engine) preempt(i int) {
	s := e.live[i]
	e.releaseAll(s)
	e.live = slices.Delete(e.live, i, i+1)
	at := 0 // those that were put back before it may be older
	for at < len(e.waiting) && e.waiting[at].queued.Before(s.queued) {
		at++
	}
	e.waiting = slices.Insert(e.waiting, at, s)
	e.stats.Preempted++
}

// schedule fills a flight: one row for each sequence that decodes, then chunks
// of prompts, the oldest first. It reports whether there are any rows.
func (e *Engine) schedule(f *flight) bool {
	decoding, ready, unread := 0, 0, 0
	for _, s := range e.live {
		s.rows = 0
		if !s.busy && s.left() <= 1 {
			decoding++
		}
		if s.runnable() {
			if s.left() == 1 {
				ready++
			} else {
				unread += s.left()
			}
		}
	}
	flights := len(e.flights)
	// the others are for the other flights
	ready = min(ready, (decoding+flights-1)/flights)
	least := leastChunk
	if decoding > 0 {
		least = sharedChunk
	}
	budget := min(max(e.chunk, least), e.limits.Rows-ready)
	if e.limits.Seqs == 1 {
		budget = e.limits.Rows - ready
	}
	if flights > 1 {
		budget = min(budget, max(pipedChunk, unread/(4*flights)))
	}
	outs := e.limits.Outs - len(e.live) + 1 // everybody else may want one
	for i := 0; i < len(e.live); i++ {      // preemption shortens live, and never before i
		s := e.live[i]
		if !s.runnable() {
			continue
		}
		decodes := s.left() == 1
		n := min(1, ready)
		if !decodes {
			n = min(s.left(), budget, max(s.from-s.sent, 0)+outs)
		}
		if n <= 0 {
			continue
		}
		if n = e.cover(i, n); n < 0 {
			break // for its pages; nobody younger may take them
		}
		if i == len(e.live) || e.live[i] != s {
			i-- // it was put back itself
			continue
		}
		s.rows = n
		if decodes {
			ready--
		} else {
			budget -= n
			outs -= max(0, s.sent+n-max(s.sent, s.from)-1)
		}
	}
	return e.join(f)
}

// cover makes sure of pages for the next row of live[i], putting younger
// sequences back if it must, and for as many of the n rows as there are free
// pages. It gives that number; 0 if live[i] itself had to wait; -1 if all that
// could give pages is in the air.
func (e *Engine) cover(i, n int) int {
	s := e.live[i]
	for s.sent >= len(s.pages)*backend.PageRows {
		page, ok := e.pages.take()
		if ok {
			s.pages = append(s.pages, page)
			continue
		}
		youngest := len(e.live) - 1
		for youngest >= i && e.live[youngest].flying > 0 {
			youngest--
		}
		if youngest < i || len(e.live) == 1 && e.inAir() > 0 {
			return -1
		}
		if len(e.live) == 1 {
			panic("BUG: no page for the only sequence")
		}
		e.preempt(youngest)
		if youngest == i {
			return 0
		}
	}
	for s.sent+n > len(s.pages)*backend.PageRows {
		page, ok := e.pages.take()
		if !ok {
			break
		}
		s.pages = append(s.pages, page)
	}
	return min(n, len(s.pages)*backend.PageRows-s.sent)
}

// join writes the scheduled rows into a flight's batch.
func (e *Engine) join(f *flight) bool {
	b := &f.batch
	b.Tokens, b.Pos, b.Seqs, b.Out = b.Tokens[:0], b.Pos[:0], b.Seqs[:0], b.Out[:0]
	f.tables = f.tables[:0]
	for _, prompts := range [2]bool{false, true} {
		for _, s := range e.live {
			if s.rows == 0 || (s.left() > 1) != prompts {
				continue
			}
			before := len(b.Out)
			for pos := s.sent; pos < s.sent+s.rows; pos++ {
				if pos >= s.from {
					b.Out = append(b.Out, int32(len(b.Tokens)))
				}
				b.Tokens = append(b.Tokens, s.tokens[pos])
				b.Pos = append(b.Pos, int32(pos))
			}
			pages := s.pages
			if len(e.flights) > 1 {
				at := len(f.tables)
				f.tables = append(f.tables, pages...)
				pages = f.tables[at:]
			}
			b.Seqs = append(b.Seqs, backend.Seq{Rows: s.rows, Pages: pages})
			f.parts = append(f.parts, part{s: s, first: s.sent, rows: s.rows, outs: len(b.Out) - before})
		}
	}
	for _, p := range f.parts { // after both rounds, which tell decoding by what is left
		p.s.sent += p.rows
		p.s.flying++
	}
	b.Logits = f.logits[:len(b.Out)*e.model.Config.Vocab]
	if f.hidden != nil {
		b.Hidden = f.hidden[:len(b.Tokens)*e.model.Config.Dim]
	}
	return len(f.parts) > 0
}
