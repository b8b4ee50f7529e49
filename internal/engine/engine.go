// Package engine runs a model on its stages: it owns the pages of the cache,
// cuts prompts into chunks, joins the rows of all live sequences into one
// batch, samples, and stops. It knows no device: stages come through backend,
// and detokenisation through Stream.
//
// One goroutine, the loop, owns the stages. Everything else is guarded by one
// mutex that the loop lets go of only during a forward pass. Callers' own
// functions run in the callers' goroutines, so that a slow one delays nobody
// else.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/backend"
)

// Engine is a loaded model. Its methods may be used by many goroutines.
type Engine struct {
	model   *backend.Model
	planner Planner
	plan    *Plan
	limits  backend.Limits
	stages  []backend.Stage
	runs    []run

	mu      sync.Mutex
	wake    sync.Cond // the loop sleeps here when there is nothing to run
	waiting []*sequence
	live    []*sequence // oldest first
	pages   *pages
	broken  error // the device is lost, or the engine closed: every request gets this
	stopped chan struct{}
	stats   Stats

	// the batch of the running step
	batch   backend.Batch
	logits  []float32 // (Outs, vocab)
	hidden  []float32 // (Rows, dim), where there is more than one run
	members []*sequence
	running bool
	step    context.Context // cancelled when nobody wants the running step
	cancel  context.CancelFunc
	chunk   int // prompt rows in a step, from the measured rate
}

// Stats counts what the engine did since it was loaded.
type Stats struct {
	Steps, Rows       int // forward passes, and rows in them
	Reused, Preempted int // prompt tokens found in the cache; sequences put back to wait
}

// Plan is what lies where.
func (e *Engine) Plan() *Plan { return e.plan }

// Context is the most positions of a sequence.
func (e *Engine) Context() int { return e.limits.Context }

// Stats is a copy of the counters.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// Close ends every request with an error, waits for the loop and frees the
// stages.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !errors.Is(e.broken, errClosed)
	e.broken = errClosed
	e.cancel()
	e.wake.Signal()
	e.mu.Unlock()
	<-e.stopped
	if !first {
		return nil
	}
	return errors.Join(closeStages(e.stages)...)
}

// forward sends the batch through every run in order.
func (e *Engine) forward(ctx context.Context, b *backend.Batch) error {
	for _, r := range e.runs {
		if err := e.stages[r.stage].Forward(ctx, r.index, b); err != nil {
			return fmt.Errorf("%s, blocks %d-%d: %w", e.plan.Stages[r.stage].Device, r.blocks.Lo, r.blocks.Hi, err)
		}
	}
	return nil
}

// loop runs steps until Close.
func (e *Engine) loop() {
	defer close(e.stopped)
	e.mu.Lock()
	for {
		if e.broken != nil {
			e.failAll(e.broken)
			if errors.Is(e.broken, errClosed) {
				e.cancel()
				e.mu.Unlock()
				return
			}
		}
		e.sweep()
		e.admit()
		if !e.schedule() {
			e.wake.Wait()
			continue
		}
		e.running = true
		e.mu.Unlock()
		began := time.Now()
		err := e.forward(e.step, &e.batch)
		now := time.Now()
		e.mu.Lock()
		e.running = false
		e.finish(now, now.Sub(began), err)
	}
}
