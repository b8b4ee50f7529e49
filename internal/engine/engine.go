// Package engine runs a model on its stages: it owns the pages of the cache,
// cuts prompts into chunks, joins the rows of live sequences into batches,
// samples, and stops. It knows no device: stages come through backend, and
// detokenisation through Stream.
//
// There are as many batches under way as stages. Each passes through the runs in
// order, so that while one stage works on a batch the others work on those before
// and behind it: chunks of a prompt follow each other, and the sequences that
// decode are divided among the batches. What a row gives does not depend on the
// batch that it is in.
//
// One goroutine, the loop, decides. A goroutine for each stage calls Forward, or
// the loop where there is one stage. Everything but a batch in the air is guarded
// by one mutex that nobody holds during Forward. Callers' own functions run in the
// callers' goroutines, so that a slow one delays nobody else.
//
// When a device is lost the stages are freed, one new plan is loaded, and every
// sequence goes on from its tokens.
package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"drover/backend"
)

// Engine is a loaded model. Its methods may be used by many goroutines.
type Engine struct {
	model   *backend.Model
	planner Planner
	life    context.Context // until Close
	quit    context.CancelFunc
	stopped chan struct{} // the loop has ended

	mu      sync.Mutex
	wake    sync.Cond // the loop sleeps here when there is nothing to send and nothing has landed
	waiting []*sequence
	live    []*sequence // oldest first
	pages   *pages
	broken  error // no device is left, or the engine closed: every request gets this
	stats   Stats
	counted time.Time // up to here Stats.Flying has counted

	// What lies where, changed only while nothing is in the air.
	plan   *Plan
	limits backend.Limits
	stages []backend.Stage
	runs   []run
	inbox  []chan *flight // by stage; nil where there is only one

	flights  []*flight
	idle     []*flight // on the ground
	landed   []*flight // not dealt with yet
	chunk    int       // prompt rows in a step, from the measured rate
	lost     error     // a device is: nothing is sent until there is another plan
	fruitful bool      // a sequence got further since the stages were loaded
}

// Stats counts what the engine did since it was loaded.
type Stats struct {
	Steps, Rows       int // batches that went through all stages, and rows in them
	Reused, Preempted int // prompt tokens found in the cache; sequences put back to wait

	Replanned int   // times that a device was lost and the model loaded again without it
	Lost      error // the last such loss

	// Since the model was loaded, or loaded again:
	Stages      []StageTime   // as in Plan
	DecodeSteps int           // batches of one row a sequence
	Flying      time.Duration // while at least one batch was under way
}

// StageTime is how long a stage worked.
type StageTime struct {
	Busy   time.Duration
	Decode time.Duration // of that, on batches of one row a sequence
}

func start(m *backend.Model, planner Planner, p *Plan, stages []backend.Stage) *Engine {
	e := &Engine{model: m, planner: planner, stopped: make(chan struct{})}
	e.wake.L = &e.mu
	e.life, e.quit = context.WithCancel(context.Background())
	e.install(p, stages)
	go e.loop()
	return e
}

// Plan is what lies where.
func (e *Engine) Plan() *Plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.plan
}

// Context is the most positions of a sequence. It may be less once a device was
// lost.
func (e *Engine) Context() int { return e.bounds().Context }

func (e *Engine) bounds() backend.Limits {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.limits
}

// Stats is a copy of the counters.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Stages = slices.Clone(s.Stages)
	return s
}

// Close ends every request with an error, waits for the loop and frees the
// stages.
func (e *Engine) Close() error {
	e.mu.Lock()
	first := !errors.Is(e.broken, errClosed)
	e.broken = errClosed
	e.quit()
	e.wake.Signal()
	e.mu.Unlock()
	<-e.stopped
	if !first {
		return nil
	}
	e.dismiss()
	return errors.Join(closeStages(e.stages)...)
}

// loop deals with what has landed and sends what is ready, until Close.
func (e *Engine) loop() {
	defer close(e.stopped)
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		for _, f := range e.landed {
			e.land(f)
		}
		e.landed = e.landed[:0]
		if e.broken != nil {
			e.failAll(e.broken)
			if errors.Is(e.broken, errClosed) && e.inAir() == 0 {
				return
			}
		} else if e.lost != nil && e.inAir() == 0 {
			e.replan()
			continue
		}
		e.sweep()
		if f := e.next(); f != nil {
			e.send(f)
		} else if len(e.landed) == 0 {
			e.wake.Wait()
		}
	}
}

// next is the next flight to send, or nil.
func (e *Engine) next() *flight {
	if len(e.idle) == 0 || e.lost != nil || e.broken != nil {
		return nil
	}
	e.admit()
	f := e.idle[len(e.idle)-1]
	if !e.schedule(f) {
		return nil
	}
	e.idle = e.idle[:len(e.idle)-1]
	return f
}
