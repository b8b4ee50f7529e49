package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"drover/backend"
)

// Planner places the model. why is nil at first; after a load or a run that failed it is the error,
// a *backend.MemoryError or one that wraps backend.ErrLost, and the next plan must mind it.
type Planner func(ctx context.Context, why error) (*Plan, error)

// Load plans, loads the stages and starts the loop. A load that found less memory
// than was planned with, or a device gone, is planned and tried once more.
// progress, if not nil, gets bytes done and in total; a second try begins again.
// Errors: those of planner and of Device.Load.
func Load(ctx context.Context, m *backend.Model, planner Planner, progress func(done, total uint64)) (*Engine, error) {
	p, stages, err := try(ctx, m, planner, nil, progress)
	if err != nil && p != nil && ctx.Err() == nil && (errors.Is(err, backend.ErrMemory) || errors.Is(err, backend.ErrLost)) {
		p, stages, err = try(ctx, m, planner, err, progress)
	}
	if err != nil {
		return nil, err
	}
	return start(m, planner, p, stages), nil
}

// try plans and loads. Where it is the load that failed the plan is there beside
// the error.
func try(ctx context.Context, m *backend.Model, planner Planner, why error, progress func(done, total uint64)) (*Plan, []backend.Stage, error) {
	p, err := planner(ctx, why)
	if err != nil {
		return nil, nil, err
	}
	if _, err := order(m, p.Places); err != nil {
		return nil, nil, err
	}
	stages, err := loadStages(ctx, m, p, progress)
	return p, stages, err
}

// loadStages loads every placement at once, or none: the first error cancels the
// others, and what was loaded is freed.
func loadStages(ctx context.Context, m *backend.Model, p *Plan, progress func(done, total uint64)) ([]backend.Stage, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stages := make([]backend.Stage, len(p.Places))
	sum := newSum(p, progress)
	var loading sync.WaitGroup
	for i, place := range p.Places {
		loading.Go(func() {
			stage, err := place.Device.Load(ctx, m, place.Runs, p.Limits, sum.of(i))
			if err != nil {
				cancel(fmt.Errorf("load on %s: %w", p.Stages[i].Device, err))
				return
			}
			stages[i] = stage
		})
	}
	loading.Wait()
	for _, s := range stages {
		if s == nil { // the first that failed is the cause
			return nil, errors.Join(append([]error{context.Cause(ctx)}, closeStages(stages)...)...)
		}
	}
	return stages, nil
}

// closeStages frees the stages that are loaded.
func closeStages(stages []backend.Stage) (errs []error) {
	for _, s := range stages {
		if s == nil {
			continue
		}
		if err := s.Close(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// sum adds up the progress of stages by their weights.
type sum struct {
	mu     sync.Mutex
	shares []uint64 // by stage, bytes
	done   []uint64 // of each share
	all    uint64
	report func(done, total uint64)
}

func newSum(p *Plan, report func(done, total uint64)) *sum {
	s := &sum{done: make([]uint64, len(p.Places)), report: report}
	for i := range p.Stages {
		s.shares = append(s.shares, p.Stages[i].Weights)
		s.all += p.Stages[i].Weights
	}
	return s
}

// of is where stage i reports; nil where nobody wants to know.
func (s *sum) of(i int) func(done, total uint64) {
	if s.report == nil {
		return nil
	}
	return func(done, total uint64) {
		if total == 0 {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.done[i] = max(s.done[i], uint64(float64(done)/float64(total)*float64(s.shares[i])))
		all := uint64(0)
		for _, d := range s.done {
			all += d
		}
		s.report(all, s.all)
	}
}
