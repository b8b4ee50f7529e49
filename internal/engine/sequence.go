package engine

import (
	"context"
	"slices"
	"time"

	"drover/backend"
)

// sequence is one request on its way through the loop. All of it is guarded by
// Engine.mu.
type sequence struct {
	job    job
	tokens []int32 // known so far
	from   int     // first position whose logits are wanted
	limit  int     // most positions
	fresh  bool    // take nothing from the cache
	done   int     // tokens whose rows are in the cache
	sent   int     // tokens whose rows are there or in the air

	pages     []int32 // page i holds positions [i*PageRows, (i+1)*PageRows); -1: behind the window
	published int     // pages [0, published) are published
	chain     uint64  // serial of the last of these
	passed    int     // pages [0, passed) are behind the window
	reused    int     // prompt tokens found in the cache when it was admitted first

	rows      int           // in the batch being built
	flying    int           // batches in the air that it has rows in: its pages stay its own
	busy      bool          // a result waits for the caller: not scheduled
	cancelled bool          // the caller has gone
	ended     bool          // left the loop, with err
	err       error         // why, if it did not end by itself
	ready     chan struct{} // (1) a signal that something is there for the caller
	queued    time.Time
	admitted  time.Time // zero while it waits for the first time
	replanned int       // times that it began again because a device was lost
}

// job is what a sequence is run for.
type job interface {
	// take gets the logits of one wanted position in order. It reports whether
	// the sequence ends.
	take(s *sequence, pos int, logits []float32, now time.Time) (end bool)
	// end is called once after the last take, unless the sequence failed.
	end(s *sequence, now time.Time)
}

// left is how many tokens have still to be sent.
func (s *sequence) left() int { return len(s.tokens) - s.sent }

// runnable: has rows to compute.
func (s *sequence) runnable() bool { return !s.busy && s.left() > 0 }

// gone: nobody waits for it.
func (s *sequence) gone() bool { return s.cancelled || s.ended }

// held is how many pages it holds.
func (s *sequence) held() int { return len(s.pages) - s.passed }

// notify wakes the caller.
func (s *sequence) notify() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// submit queues sequences, all or none.
func (e *Engine) submit(all ...*sequence) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil {
		return e.broken
	}
	for _, s := range all {
		s.ready = make(chan struct{}, 1)
		s.limit = e.limits.Context
		if err := checkTokens(s.tokens, int32(e.model.Config.Vocab), s.limit); err != nil {
			return err
		}
		s.queued = time.Now()
	}
	e.waiting = append(e.waiting, all...)
	e.wake.Signal()
	return nil
}

// await returns, with e.mu locked, when there is something for the caller or
// ctx is done. In the second case the sequence is cancelled: its job is not
// touched any more, its pages go back when its batches have landed.
func (e *Engine) await(ctx context.Context, s *sequence) error {
	select {
	case <-s.ready:
		e.mu.Lock()
		return nil
	case <-ctx.Done():
		e.mu.Lock()
		e.drop(s)
		return ctx.Err()
	}
}

// drop cancels a sequence. A batch under way goes on as long as one of its
// sequences is wanted; otherwise it ends at the next block.
func (e *Engine) drop(s *sequence) {
	s.cancelled = true
	e.abandon()
	e.wake.Signal()
}

// sweep takes out the cancelled sequences.
func (e *Engine) sweep() {
	keep := e.live[:0]
	for _, s := range e.live {
		if s.cancelled {
			e.giveUp(s)
			continue
		}
		keep = append(keep, s)
	}
	clear(e.live[len(keep):])
	e.live = keep
	kept := e.waiting[:0]
	for _, s := range e.waiting {
		if !s.cancelled {
			kept = append(kept, s)
		}
	}
	clear(e.waiting[len(kept):])
	e.waiting = kept
}

// giveUp releases the pages of a sequence that is gone: those of one in the air
// when its last batch has landed.
func (e *Engine) giveUp(s *sequence) {
	if s.flying == 0 {
		e.releaseAll(s)
		return
	}
	e.abandon()
}

// leave ends a sequence and gives its pages back.
func (e *Engine) leave(s *sequence, err error, now time.Time) {
	if err == nil {
		err = s.err
	}
	if err == nil {
		s.job.end(s, now)
	}
	if i := slices.Index(e.live, s); i >= 0 {
		e.live = slices.Delete(e.live, i, i+1)
	}
	s.ended, s.err = true, err
	e.giveUp(s)
	s.notify()
}

// failAll ends every sequence.
func (e *Engine) failAll(err error) {
	for len(e.live) > 0 {
		e.leave(e.live[len(e.live)-1], err, time.Time{})
	}
	for _, s := range e.waiting {
		s.ended, s.err = true, err
		s.notify()
	}
	e.waiting = e.waiting[:0]
}

// releaseAll gives all pages back, the last first: the cache loses ends before
// beginnings.
func (e *Engine) releaseAll(s *sequence) {
	for i := len(s.pages) - 1; i >= s.passed; i-- {
		e.pages.release(s.pages[i])
	}
	s.pages, s.passed, s.published, s.chain, s.done, s.sent = s.pages[:0], 0, 0, 0, 0, 0
}

// reuse finds the longest prefix of full pages in the cache and holds it. The
// rows from s.from on must be computed, since their logits are wanted.
func (e *Engine) reuse(s *sequence) {
	if s.fresh {
		return
	}
	limit := min(s.from, len(s.tokens)-1)
	for (s.published+1)*backend.PageRows <= limit {
		at := s.published * backend.PageRows
		page, serial, ok := e.pages.find(s.chain, s.tokens[at:at+backend.PageRows])
		if !ok {
			break
		}
		e.pages.hold(page)
		s.pages = append(s.pages, page)
		s.chain = serial
		s.published++
	}
	s.done = s.published * backend.PageRows
	s.sent = s.done
	e.passWindow(s)
}

// passWindow gives back the pages that no row from s.done on will see.
func (e *Engine) passWindow(s *sequence) {
	window := e.model.Config.Window
	if window == 0 {
		return
	}
	for (s.passed+1)*backend.PageRows <= s.done-window+1 {
		e.pages.release(s.pages[s.passed])
		s.pages[s.passed] = -1
		s.passed++
	}
}

// publish makes the pages that are full now findable.
func (e *Engine) publish(s *sequence) {
	for (s.published+1)*backend.PageRows <= s.done {
		i := s.published
		if s.pages[i] < 0 {
			return // an earlier one could not be published
		}
		serial, ok := e.pages.publish(s.pages[i], s.chain, s.tokens[i*backend.PageRows:(i+1)*backend.PageRows])
		if !ok {
			return
		}
		s.chain = serial
		s.published++
	}
}
