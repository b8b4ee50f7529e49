package engine

import (
	"context"
	"fmt"
	"time"

	"drover/backend"
)

// flight is one batch on its way through the runs, with the memory that it needs.
// There are as many as stages, so that each stage can work on one. The loop owns
// those on the ground; one in the air belongs to the stage whose run is next.
type flight struct {
	batch  backend.Batch
	logits []float32 // (Outs, vocab)
	hidden []float32 // (Rows, dim), where there is more than one run
	tables []int32   // with several flights: the sequences' pages as they were when it left
	parts  []part

	next  int // index of the run that it is in or waits for
	err   error
	began time.Time
	ended time.Time
	spent []time.Duration // by stage, in Forward

	ctx    context.Context // cancelled when nobody wants the batch any more
	cancel context.CancelFunc
}

// part is a sequence's part of a batch.
type part struct {
	s           *sequence
	first, rows int // positions [first, first+rows)
	outs        int // how many of them, the last ones, have logits
}

func newFlight(c *backend.Config, l backend.Limits, runs, stages int) *flight {
	f := &flight{
		logits: make([]float32, l.Outs*c.Vocab),
		parts:  make([]part, 0, l.Seqs),
		spent:  make([]time.Duration, stages),
		batch: backend.Batch{Tokens: make([]int32, 0, l.Rows), Pos: make([]int32, 0, l.Rows),
			Seqs: make([]backend.Seq, 0, l.Seqs), Out: make([]int32, 0, l.Outs)},
	}
	if runs > 1 {
		f.hidden = make([]float32, l.Rows*c.Dim)
	}
	if stages > 1 {
		f.tables = make([]int32, 0, l.Seqs*pagesOf(l.Context))
	}
	return f
}

// unwanted: it is in the air, and nobody waits for it.
func (f *flight) unwanted() bool {
	for _, p := range f.parts {
		if !p.s.gone() {
			return false
		}
	}
	return len(f.parts) > 0
}

// StageError is an error of Forward, and where it came from.
type StageError struct {
	Device string
	Blocks backend.Range
	Err    error
}

func (e *StageError) Error() string {
	return fmt.Sprintf("%s, blocks %d-%d: %v", e.Device, e.Blocks.Lo, e.Blocks.Hi, e.Err)
}

func (e *StageError) Unwrap() error { return e.Err }

// crew makes the flights, and a goroutine for each stage where there are several.
// With one stage the loop itself calls Forward: a token costs no change of
// goroutine then.
func (e *Engine) crew() {
	n := len(e.stages)
	e.flights, e.idle, e.landed, e.inbox = nil, nil, make([]*flight, 0, n), nil
	for range n {
		f := newFlight(&e.model.Config, e.limits, len(e.runs), n)
		f.ctx, f.cancel = context.WithCancel(e.life)
		e.flights, e.idle = append(e.flights, f), append(e.idle, f)
	}
	if n == 1 {
		return
	}
	for range n {
		e.inbox = append(e.inbox, make(chan *flight, n)) // sending never waits
	}
	for _, in := range e.inbox {
		go e.work(in)
	}
}

// dismiss ends the goroutines of the stages; nothing is in the air.
func (e *Engine) dismiss() {
	for _, in := range e.inbox {
		close(in)
	}
	e.inbox = nil
	for _, f := range e.flights {
		f.cancel()
	}
}

// inAir is how many flights have left and not been dealt with.
func (e *Engine) inAir() int { return len(e.flights) - len(e.idle) }

// send starts a flight. mu is held; with one stage it is let go of until the
// flight has landed.
func (e *Engine) send(f *flight) {
	f.next, f.err = 0, nil
	clear(f.spent)
	if e.inbox != nil {
		e.inbox[e.runs[0].stage] <- f
		return
	}
	e.mu.Unlock()
	for !e.fly(f) {
	}
	e.mu.Lock()
	e.landed = append(e.landed, f)
}

// work takes flights through the runs of one stage in the order of their coming.
// All flights take the same way, so that a run gets them in the order in which
// they left: the rows that a chunk of a prompt sees are written before it comes.
func (e *Engine) work(in <-chan *flight) {
	for f := range in {
		if !e.fly(f) {
			e.inbox[e.runs[f.next].stage] <- f
			continue
		}
		e.mu.Lock()
		e.landed = append(e.landed, f)
		e.wake.Signal()
		e.mu.Unlock()
	}
}

// fly takes a flight through its next run, and reports whether that was the last.
func (e *Engine) fly(f *flight) bool {
	r := &e.runs[f.next]
	began := time.Now()
	err := e.stages[r.stage].Forward(f.ctx, r.index, &f.batch)
	f.ended = time.Now()
	if f.next == 0 {
		f.began = began
	}
	f.spent[r.stage] += f.ended.Sub(began)
	if err != nil {
		f.err = &StageError{Device: e.plan.Stages[r.stage].Device, Blocks: r.blocks, Err: err}
	}
	f.next++
	return err != nil || f.next == len(e.runs)
}

// abandon cuts short the flights that nobody waits for any more.
func (e *Engine) abandon() {
	for _, f := range e.flights {
		if f.unwanted() {
			f.cancel()
		}
	}
}
