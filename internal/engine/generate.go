package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"drover/internal/sample"
)

// Stream turns ids into text. Push gives the text that an id completes, only
// whole UTF-8 sequences; Flush what is left at the end.
type Stream interface {
	Push(id int32) string
	Flush() string
}

// Request is a prompt and how to go on from it.
type Request struct {
	Tokens  []int32             // the prompt, used exactly; not changed
	Max     int                 // most tokens to generate; < 0: to the end of the context; 0: only read the prompt
	Sampler *sample.Sampler     // nil: greedy. The engine tells it the prompt. One request's at a time
	IsEnd   func(id int32) bool // ids that end the text; nil: none (--ignore-eos). Called from the loop
	Stop    []string            // texts that end the text and are not part of it; need Stream
	Stream  Stream              // nil: ids without text. Called from the loop
	Fresh   bool                // compute every row, whatever the cache knows (benchmarks)

	// Script, if not nil, is the ids to take, at least Max of them, instead of
	// sampling: a benchmark's. Result.At says when each could have been chosen.
	Script []int32
}

// Why a text ended.
const (
	StopLength = "length" // Max, or the context
	StopEOS    = "eos"    // an id of IsEnd
	StopText   = "stop"   // a stop string
)

// Result is what a request made.
type Result struct {
	Tokens       []int32 // generated; the end token, or the last one of a stop string, included
	Text         string  // of Tokens, without end token and stop string
	Stop         string  // StopLength, StopEOS or StopText
	ContextEnd   bool    // StopLength because the context is full
	PromptTokens int
	Reused       int // prompt tokens that were in the cache
	Replanned    int // times that it was read again because a device was lost
	Timings      Timings
	At           []time.Time // by token, with Script: when the batch with its logits had landed
}

// Timings is where a request's time went.
type Timings struct {
	Queued time.Duration // waiting for room
	Prompt time.Duration // from then to the first token (or the prompt's end)
	Decode time.Duration // from then to the last token: len(Tokens)-1 steps
}

// generation is the job of Generate.
type generation struct {
	req     *Request
	sampler *sample.Sampler
	stop    stopper
	events  []event // not yet seen by the caller
	count   int
	result  Result // Stop, ContextEnd, Timings
	first   time.Time
}

type event struct {
	id   int32
	text string
	at   time.Time
}

// Generate reads the prompt and generates. emit, if not nil, is called for
// every token, in the caller's goroutine, with the text that may be shown so
// far ("" while a character or a possible stop string is incomplete); an error
// from it ends the request. Errors: a *ContextError for a prompt longer than
// the context, ctx's error, emit's error, the device's. With an error from
// ctx or emit the Result holds what was emitted.
func (e *Engine) Generate(ctx context.Context, r Request, emit func(id int32, text string) error) (Result, error) {
	g, s, err := e.newGeneration(&r)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = e.submit(s)
	}
	if err != nil {
		return Result{PromptTokens: len(r.Tokens)}, err
	}
	return e.deliver(ctx, g, s, emit)
}

// GenerateAll is Generate for several requests that begin together: the first
// batch has rows of as many of them as it can. Errors: as Generate's, the first one;
// the others are cancelled then.
func (e *Engine) GenerateAll(ctx context.Context, requests []Request) ([]Result, error) {
	jobs, seqs := make([]*generation, len(requests)), make([]*sequence, len(requests))
	for i := range requests {
		var err error
		if jobs[i], seqs[i], err = e.newGeneration(&requests[i]); err != nil {
			return nil, err
		}
	}
	err := ctx.Err()
	if err == nil {
		err = e.submit(seqs...)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]Result, len(requests))
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			var err error
			if results[i], err = e.deliver(ctx, jobs[i], seqs[i], nil); err != nil {
				cancel(err) // the first is the cause
			}
		})
	}
	all.Wait()
	return results, context.Cause(ctx)
}

func (e *Engine) newGeneration(r *Request) (*generation, *sequence, error) {
	if err := checkStops(r.Stop); err != nil {
		return nil, nil, err
	}
	if len(r.Stop) > 0 && r.Stream == nil {
		return nil, nil, errors.New("stop strings need text: no detokeniser given")
	}
	context := e.Context()
	if err := checkTokens(r.Tokens, int32(e.model.Config.Vocab), context); err != nil {
		return nil, nil, err
	}
	if r.Script != nil {
		if r.Max < 0 || len(r.Script) < r.Max {
			return nil, nil, fmt.Errorf("a script of %d ids for %d", len(r.Script), r.Max)
		}
		if err := checkIDs(r.Script, int32(e.model.Config.Vocab)); err != nil {
			return nil, nil, fmt.Errorf("script: %w", err)
		}
	}
	g := &generation{req: r, sampler: r.Sampler, stop: stopper{stops: r.Stop}}
	if g.sampler == nil {
		g.sampler = sample.New(sample.Greedy())
	}
	for _, id := range r.Tokens {
		g.sampler.Accept(id)
	}
	most := context + 1
	if r.Max >= 0 {
		most = min(most, len(r.Tokens)+r.Max)
	}
	s := &sequence{job: g, fresh: r.Fresh, from: len(r.Tokens) - 1}
	s.tokens = append(make([]int32, 0, most), r.Tokens...)
	s.pages = make([]int32, 0, pagesOf(min(most, context)))
	if r.Max == 0 {
		s.from = len(r.Tokens)
	}
	return g, s, nil
}

// checkTokens refuses prompts that no sequence can have.
func checkTokens(tokens []int32, vocab int32, context int) error {
	if len(tokens) == 0 {
		return errors.New("no tokens: the prompt is empty")
	}
	if len(tokens) > context {
		return &ContextError{len(tokens), context}
	}
	return checkIDs(tokens, vocab)
}

func checkIDs(tokens []int32, vocab int32) error {
	for i, id := range tokens {
		if id < 0 || id >= vocab {
			return fmt.Errorf("token %d at position %d: the vocabulary has %d", id, i, vocab)
		}
	}
	return nil
}

// deliver passes events on until the sequence has ended.
func (e *Engine) deliver(ctx context.Context, g *generation, s *sequence, emit func(id int32, text string) error) (Result, error) {
	var (
		text   strings.Builder
		tokens []int32
		at     []time.Time
		spare  []event
	)
	result := func() Result {
		r := g.result
		r.Tokens, r.Text, r.At = tokens, text.String(), at
		r.PromptTokens, r.Reused, r.Replanned = len(g.req.Tokens), s.reused, s.replanned
		return r
	}
	for {
		err := e.await(ctx, s)
		events, ended, failed := g.events, s.ended, s.err
		g.events = spare[:0]
		e.mu.Unlock()
		if err != nil {
			return result(), err
		}
		for _, ev := range events {
			tokens = append(tokens, ev.id)
			text.WriteString(ev.text)
			if g.req.Script != nil {
				at = append(at, ev.at)
			}
			if emit == nil {
				continue
			}
			if err := emit(ev.id, ev.text); err != nil {
				e.mu.Lock()
				e.drop(s)
				e.mu.Unlock()
				return result(), err
			}
		}
		spare = events
		if ended {
			return result(), failed
		}
	}
}

// take samples the next token and decides whether it is the last.
func (g *generation) take(s *sequence, pos int, logits []float32, now time.Time) bool {
	if g.count == 0 {
		g.first = now
	}
	var id int32
	if g.req.Script != nil {
		id = g.req.Script[g.count]
	} else if id = g.sampler.Sample(logits); id < 0 {
		s.err = fmt.Errorf("position %d: the model gave no finite logit", pos)
		return true
	}
	g.sampler.Accept(id)
	s.tokens = append(s.tokens, id)
	s.from = len(s.tokens) - 1
	g.count++
	text, found := "", false
	if g.req.IsEnd != nil && g.req.IsEnd(id) {
		g.result.Stop = StopEOS
	} else if g.req.Stream != nil {
		if text, found = g.stop.push(g.req.Stream.Push(id)); found {
			g.result.Stop = StopText
		}
	}
	switch {
	case g.result.Stop != "":
	case g.req.Max >= 0 && g.count >= g.req.Max:
		g.result.Stop = StopLength
	case len(s.tokens) > s.limit: // no position is left for this one's row
		g.result.Stop, g.result.ContextEnd = StopLength, true
	}
	if g.result.Stop != "" && !found {
		text += g.rest()
	}
	g.events = append(g.events, event{id, text, now})
	s.notify()
	return g.result.Stop != ""
}

// rest is the text that was waiting for more, once no more will come.
func (g *generation) rest() string {
	if g.req.Stream == nil {
		return ""
	}
	text, found := g.stop.push(g.req.Stream.Flush())
	if found {
		return text
	}
	return text + g.stop.flush()
}

// end fills in the times.
func (g *generation) end(s *sequence, now time.Time) {
	if g.count == 0 { // Max is 0
		g.first, g.result.Stop = now, StopLength
	}
	g.result.Timings = Timings{Queued: s.admitted.Sub(s.queued), Prompt: g.first.Sub(s.admitted), Decode: now.Sub(g.first)}
}
