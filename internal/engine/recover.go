package engine

import (
	"errors"
	"fmt"
	"slices"

	"drover/backend"
)

// A device that is lost takes its part of the cache with it. The tokens are here:
// with stages on what is left, every sequence is read again and goes on, samplers,
// stop strings and texts being where they were.

// replan frees the stages, asks for another plan and loads it. mu is held, but
// not while it plans and loads; nothing is in the air.
func (e *Engine) replan() {
	why := e.lost
	e.retreat()
	e.dismiss()
	stages := e.stages
	e.stages = nil
	again := e.stats.Replanned > 0 && !e.fruitful
	e.mu.Unlock()
	closeStages(stages) // a lost device may say once more that it is
	var p *Plan
	err := fmt.Errorf("lost again before any text went on: %w", why)
	if !again {
		p, stages, err = try(e.life, e.model, e.planner, why, nil)
		if err != nil && !errors.Is(err, why) {
			err = fmt.Errorf("%w; without it: %w", why, err)
		}
	}
	e.mu.Lock()
	e.lost = nil
	if err != nil {
		e.flights, e.idle = nil, nil
		if e.broken == nil {
			e.broken = err
		}
		return
	}
	e.stats.Replanned++
	e.stats.Lost = why
	e.install(p, stages)
	e.refit(why)
}

// retreat puts all live sequences back to wait, in their order.
func (e *Engine) retreat() {
	for _, s := range e.live {
		e.releaseAll(s)
		s.replanned++
	}
	e.waiting = slices.Insert(e.waiting, 0, e.live...)
	clear(e.live)
	e.live = e.live[:0]
}

// refit tells the waiting sequences the context that there is now. Those that
// are longer end.
func (e *Engine) refit(why error) {
	keep := e.waiting[:0]
	for _, s := range e.waiting {
		s.limit = e.limits.Context
		if len(s.tokens) > s.limit && !s.gone() {
			s.ended, s.err = true, fmt.Errorf("%w; without it: %w", why, &ContextError{len(s.tokens), s.limit})
			s.notify()
			continue
		}
		keep = append(keep, s)
	}
	clear(e.waiting[len(keep):])
	e.waiting = keep
}

// install makes loaded stages the engine's, with an empty cache.
func (e *Engine) install(p *Plan, stages []backend.Stage) {
	runs, err := order(e.model, p.Places)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	e.plan, e.limits, e.stages, e.runs = p, p.Limits, stages, runs
	e.pages = newPages(p.Limits.Pages)
	e.chunk = min(firstChunk, p.Limits.Rows)
	e.fruitful = false
	e.stats.Stages, e.stats.DecodeSteps, e.stats.Flying = make([]StageTime, len(stages)), 0, 0
	e.crew()
}
