package engine

import (
	"context"
	"errors"
	"time"

	"drover/backend"
)

// land deals with a flight that has come back and puts it on the ground. If it
// failed or was cancelled, none of its sequences has moved.
func (e *Engine) land(f *flight) {
	cancelled := f.ctx.Err() != nil
	var failure error // of all its sequences
	switch {
	case f.err == nil:
		e.count(f)
		e.learn(f)
	case errors.Is(f.err, backend.ErrLost):
		if e.lost == nil {
			e.lost = f.err
		}
	case !cancelled || !errors.Is(f.err, context.Canceled):
		failure = f.err
	}
	vocab := e.model.Config.Vocab
	logits := f.logits
	parts := f.parts
	f.parts = f.parts[:0] // on the ground, whatever abandon looks for
	for _, p := range parts {
		own := logits[:p.outs*vocab]
		logits = logits[len(own):]
		s := p.s
		s.flying--
		switch {
		case s.gone():
			if s.flying == 0 {
				e.releaseAll(s)
			}
		case failure != nil:
			e.leave(s, failure, f.ended)
		case f.err == nil && p.first == s.done: // else a chunk before it was lost
			e.arrive(&p, own, f.ended)
		}
	}
	clear(parts)
	if cancelled {
		f.ctx, f.cancel = context.WithCancel(e.life)
	}
	e.idle = append(e.idle, f)
}

// arrive takes over what a batch has computed for a sequence.
func (e *Engine) arrive(p *part, logits []float32, now time.Time) {
	s, vocab := p.s, e.model.Config.Vocab
	s.done = p.first + p.rows
	e.publish(s)
	over := false
	for pos := s.done - p.outs; pos < s.done && !over; pos++ {
		over = s.job.take(s, pos, logits[:vocab], now)
		logits = logits[vocab:]
		e.fruitful = true
	}
	if over || s.done == len(s.tokens) {
		e.fruitful = true
		e.leave(s, nil, now)
	} else {
		e.passWindow(s)
	}
}

// count keeps the figures of a flight that went well.
func (e *Engine) count(f *flight) {
	st := &e.stats
	st.Steps++
	st.Rows += len(f.batch.Tokens)
	decode := len(f.batch.Tokens) == len(f.batch.Seqs)
	if decode {
		st.DecodeSteps++
	}
	for i, d := range f.spent {
		st.Stages[i].Busy += d
		if decode {
			st.Stages[i].Decode += d
		}
	}
	// flights overlap: what is counted already is left out
	if from := later(f.began, e.counted); f.ended.After(from) {
		st.Flying += f.ended.Sub(from)
		e.counted = f.ended
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// learn fits the chunk to the measured rate: the time in the stages, without the
// time that a flight waited for them.
func (e *Engine) learn(f *flight) {
	rows := len(f.batch.Tokens)
	if rows < min(e.chunk, leastChunk) {
		return // decode steps say nothing of prompts
	}
	took := time.Duration(0)
	for _, d := range f.spent {
		took += d
	}
	fit := e.limits.Rows
	if took > 0 {
		fit = int(min(float64(rows)*float64(stepTime)/float64(took), float64(fit)))
	}
	e.chunk = min(max(fit, 1), 8*e.chunk, e.limits.Rows)
}
