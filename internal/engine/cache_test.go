package engine

import (
	"context"
	"slices"
	"sync"
	"testing"

	"drover/internal/sample"
)

func TestReuse(t *testing.T) {
	m := fakeModel(2, 0, 400)
	d := &fakeDevice{}
	e := open(t, m, d, Options{Context: 400})
	prompt := requests(m, 1, 50, 6)[0].prompt
	for len(prompt) < 200 {
		prompt = append(prompt, int32(len(prompt)%fakeVocab))
	}
	prompt = prompt[:200]
	ask := func(tokens []int32, fresh bool) Result {
		t.Helper()
		got, err := e.Generate(context.Background(), Request{Tokens: tokens, Max: 8, Fresh: fresh}, nil)
		if want := newOracle(m).text(tokens, 8, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
			t.Fatalf("%v: got %v, want %v", err, got.Tokens, want)
		}
		return got
	}
	first := ask(prompt, false)
	if first.Reused != 0 {
		t.Errorf("nothing was there, reused %d", first.Reused)
	}
	if got := ask(prompt, false).Reused; got != 192 {
		t.Errorf("the same again: reused %d, want 192", got)
	}
	if got := ask(prompt, true).Reused; got != 0 {
		t.Errorf("fresh: reused %d", got)
	}
	if got := ask(prompt[:192], false).Reused; got != 128 {
		t.Errorf("of 192 tokens the last must be computed: reused %d, want 128", got)
	}
	other := slices.Clone(prompt)
	other[70]++
	other[70] %= fakeVocab
	if got := ask(other, false).Reused; got != 64 {
		t.Errorf("another second page: reused %d, want 64", got)
	}
	// a conversation goes on: prompt, answer, more
	longer := append(append(slices.Clone(prompt), first.Tokens...), make([]int32, 100)...)
	if got := ask(longer, false).Reused; got != 192 {
		t.Errorf("conversation: reused %d, want 192", got)
	}
	// the same tokens after another beginning, or elsewhere, are other pages
	one, two := prompt[:64], prompt[64:128]
	ask(slices.Concat(two, two, one), false)
	if got := ask(slices.Concat(two, one, two), false).Reused; got != 64 {
		t.Errorf("known pages in another order: reused %d, want 64", got)
	}
	if got := ask(slices.Concat(one, one, two), false).Reused; got != 64 {
		t.Errorf("known pages in another order: reused %d, want 64", got)
	}
}

// With a window a sequence holds only the pages that it still sees.
func TestWindowRelease(t *testing.T) {
	m := fakeModel(1, 80, 1000)
	e := open(t, m, &fakeDevice{}, Options{Context: 1000, Pages: 4, Batch: 32})
	if e.Context() != 1000 {
		t.Fatalf("context %d", e.Context())
	}
	prompt := requests(m, 1, 50, 8)[0].prompt
	max := 900 - len(prompt)
	got, err := e.Generate(context.Background(), Request{Tokens: prompt, Max: max}, nil)
	if want := newOracle(m).text(prompt, max, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
		t.Errorf("%v: got %v, want %v", err, got.Tokens, want)
	}
}

// All pages of a small cache are the beginning of a prompt: those behind the
// window make room for the rest.
func TestWindowReuse(t *testing.T) {
	m := fakeModel(1, 80, 1000)
	e := open(t, m, &fakeDevice{}, Options{Context: 1000, Pages: 4})
	prompt := make([]int32, 266)
	for i := range prompt {
		prompt[i] = int32(i * 7 % fakeVocab)
	}
	for _, c := range []struct{ tokens, reused int }{{256, 0}, {266, 256}} {
		got, err := e.Generate(context.Background(), Request{Tokens: prompt[:c.tokens], Max: 1}, nil)
		if want := newOracle(m).text(prompt[:c.tokens], 1, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) || got.Reused != c.reused {
			t.Errorf("%d tokens: %v, got %v, want %v; reused %d, want %d", c.tokens, err, got.Tokens, want, got.Reused, c.reused)
		}
	}
}

// Sequences wait until there are pages for their prompts; nobody is put back.
func TestAdmission(t *testing.T) {
	m := fakeModel(1, 0, 400)
	var e *Engine
	d := &fakeDevice{before: crowd(&e, 5)}
	e = open(t, m, d, Options{Context: 400, Sequences: 6, Pages: 10})
	var wg sync.WaitGroup
	for i := range 6 {
		prompt := slices.Repeat([]int32{int32(i)}, 250) // 4 pages
		wg.Go(func() {
			got, err := e.Generate(context.Background(), Request{Tokens: prompt, Max: 4}, nil)
			if want := newOracle(m).text(prompt, 4, sample.Greedy()); err != nil || !slices.Equal(got.Tokens, want) {
				t.Errorf("%v: got %v, want %v", err, got.Tokens, want)
			}
		})
	}
	wg.Wait()
	if n := e.Stats().Preempted; n != 0 || d.most.Load() != 2 {
		t.Errorf("%d sequences put back; %d at once, want 2", n, d.most.Load())
	}
}
