package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"drover/backend"
	"drover/internal/engine"
)

// driver runs a test's passes through the engine, as requests with random tokens
// that all begin at one moment.
type driver struct {
	engine *engine.Engine
	vocab  int32
	random uint64

	depth  int
	prefix [][]int32 // (sequences, depth + 1)
}

// pass is one run of a test. Its time is that of the tokens it is credited with.
type pass struct {
	from, to time.Time
	took     time.Duration // of Test.tokens
	first    time.Duration // to the first token, the mean of all sequences; prompts only
}

// begin fills the cache to the depth of t and of tests like it. Whole pages stay there
// from pass to pass; what is left of the depth is read again each time.
func (d *driver) begin(ctx context.Context, t Test) error {
	d.depth, d.prefix = t.Depth, make([][]int32, t.Sequences)
	for s := range d.prefix {
		d.prefix[s] = d.tokens(t.Depth + 1)
	}
	if d.whole() == 0 {
		return nil
	}
	var all []engine.Request
	for s := range d.prefix {
		all = append(all, engine.Request{Tokens: d.prefix[s][:d.whole()]})
	}
	if _, err := d.engine.GenerateAll(ctx, all); err != nil {
		return fmt.Errorf("fill the cache to depth %d: %w", t.Depth, err)
	}
	return nil
}

// whole is the positions of the depth that fill pages.
func (d *driver) whole() int { return d.depth / backend.PageRows * backend.PageRows }

// run is one pass of the test with so many tokens of prompt or generation.
func (d *driver) run(ctx context.Context, t Test) (pass, error) {
	if t.Prompt > 0 {
		return d.prompt(ctx, t.Prompt)
	}
	return d.generate(ctx, t.Gen)
}

// prompt reads n tokens a sequence, up to the first token that follows. Where the
// depth is no multiple of a page, up to 63 tokens of it are read with them: the
// time counts in proportion.
func (d *driver) prompt(ctx context.Context, n int) (pass, error) {
	var all []engine.Request
	for s := range d.prefix {
		tokens := append(slices.Clone(d.prefix[s][:d.depth]), d.tokens(n)...)
		all = append(all, engine.Request{Tokens: tokens, Max: 1, Script: d.tokens(1)})
	}
	began := time.Now()
	got, err := d.engine.GenerateAll(ctx, all)
	if err != nil {
		return pass{}, err
	}
	p, rows := pass{from: began, to: began}, 0
	for _, r := range got {
		if err := d.reused(r); err != nil {
			return pass{}, err
		}
		rows += r.PromptTokens - r.Reused
		p.first += r.At[0].Sub(began) / time.Duration(len(got))
		if r.At[0].After(p.to) {
			p.to = r.At[0]
		}
	}
	p.took = scaled(p.to.Sub(p.from), n*len(got), rows)
	return p, nil
}

// generate decodes n tokens of each sequence after the first one, which comes of
// the prompt and is not timed. What is left of the depth is read as a prompt, but
// by several sequences token by token, so that they keep in step.
func (d *driver) generate(ctx context.Context, n int) (pass, error) {
	skip, prompt := 0, d.depth+1
	if len(d.prefix) > 1 {
		skip, prompt = d.depth-d.whole(), d.whole()+1
	}
	var all []engine.Request
	for s := range d.prefix {
		tokens := skip + 1 + n
		all = append(all, engine.Request{Tokens: d.prefix[s][:prompt], Max: tokens, Script: d.tokens(tokens)})
	}
	got, err := d.engine.GenerateAll(ctx, all)
	if err != nil {
		return pass{}, err
	}
	for i, r := range got {
		if err := d.reused(r); err != nil {
			return pass{}, err
		}
		got[i].At = r.At[skip:]
	}
	return window(got, n), nil
}

// window is the time in which every sequence decodes: from the last one's first
// token to the first one's last. Batches that take turns on several devices end at
// different moments: the tokens in between count.
func window(got []engine.Result, n int) pass {
	p := pass{from: got[0].At[0], to: got[0].At[n]}
	for _, r := range got {
		if r.At[0].After(p.from) {
			p.from = r.At[0]
		}
		if r.At[n].Before(p.to) {
			p.to = r.At[n]
		}
	}
	tokens := 0
	for _, r := range got {
		for _, at := range r.At {
			if at.After(p.from) && !at.After(p.to) {
				tokens++
			}
		}
	}
	p.took = scaled(p.to.Sub(p.from), n*len(got), tokens)
	return p
}

// scaled is the time of so many tokens where others were timed. A clock too coarse
// to see them still saw something.
func scaled(took time.Duration, tokens, timed int) time.Duration {
	if tokens != timed && timed > 0 {
		took = time.Duration(float64(took) * float64(tokens) / float64(timed))
	}
	return max(1, took)
}

// reused holds a pass to what begin has put into the cache.
func (d *driver) reused(r engine.Result) error {
	if r.Reused != d.whole() {
		return fmt.Errorf("%d of %d positions of depth were in the cache", r.Reused, d.whole())
	}
	return nil
}

func (d *driver) tokens(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = next(&d.random, d.vocab)
	}
	return list
}

// next is the next pseudo-random token (Marsaglia's xorshift64).
func next(state *uint64, vocab int32) int32 {
	*state ^= *state << 13
	*state ^= *state >> 7
	*state ^= *state << 17
	return int32(*state % uint64(vocab))
}
