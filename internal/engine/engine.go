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
	model  *backend.Model
	plan   *Plan
	limits backend.Limits
	stages []backend.Stage
	runs   []run

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

// Load plans, loads the stages and starts the loop. progress, if not nil, gets
// bytes done and in total. Errors: a *backend.MemoryError if it does not fit,
// and those of Device.Load.
func Load(ctx context.Context, m *backend.Model, places []Placement, o Options, progress func(done, total uint64)) (*Engine, error) {
	runs, err := order(m, places)
	if err != nil {
		return nil, err
	}
	p, err := plan(m, places, o, 0)
	if err != nil {
		return nil, err
	}
	stages, err := loadStages(ctx, m, places, p, progress)
	var short *backend.MemoryError
	if errors.As(err, &short) && short.Free > 0 && o.Context == 0 && !o.FitOff {
		// what was free has gone meanwhile: once more with the true figure
		if p, err = plan(m, places, o, short.Free); err == nil {
			stages, err = loadStages(ctx, m, places, p, progress)
		}
	}
	if err != nil {
		return nil, err
	}
	return start(m, p, stages, runs), nil
}

func start(m *backend.Model, p *Plan, stages []backend.Stage, runs []run) *Engine {
	l := p.Limits
	e := &Engine{
		model: m, plan: p, limits: l, stages: stages, runs: runs,
		pages: newPages(l.Pages), stopped: make(chan struct{}), chunk: min(firstChunk, l.Rows),
		logits:  make([]float32, l.Outs*m.Config.Vocab),
		members: make([]*sequence, 0, l.Seqs),
		batch: backend.Batch{Tokens: make([]int32, 0, l.Rows), Pos: make([]int32, 0, l.Rows),
			Seqs: make([]backend.Seq, 0, l.Seqs), Out: make([]int32, 0, l.Outs)},
	}
	if len(runs) > 1 {
		e.hidden = make([]float32, l.Rows*m.Config.Dim)
	}
	e.wake.L = &e.mu
	e.step, e.cancel = context.WithCancel(context.Background())
	go e.loop()
	return e
}

// loadStages loads every placement, or none.
func loadStages(ctx context.Context, m *backend.Model, places []Placement, p *Plan, progress func(done, total uint64)) (stages []backend.Stage, err error) {
	var before, all uint64 // the shares of the stages, by their planned weights
	for i := range p.Stages {
		all += p.Stages[i].Weights
	}
	for i, place := range places {
		var report func(done, total uint64)
		if share := p.Stages[i].Weights; progress != nil {
			report = func(done, total uint64) {
				if total > 0 {
					progress(before+uint64(float64(done)/float64(total)*float64(share)), all)
				}
			}
		}
		stage, err := place.Device.Load(ctx, m, place.Runs, p.Limits, report)
		if err != nil {
			return nil, errors.Join(append([]error{fmt.Errorf("load on %s: %w", p.Stages[i].Device, err)}, closeStages(stages)...)...)
		}
		stages = append(stages, stage)
		before += p.Stages[i].Weights
	}
	return stages, nil
}

func closeStages(stages []backend.Stage) (errs []error) {
	for _, s := range stages {
		if err := s.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
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
