package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"drover/internal/demo"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/sample"
)

// crowd is n requests of 1 to `more` random tokens, every fourth after the whole text of
// the one four before it, up to longest. most says how many tokens each asks for.
func crowd(seed uint64, n, more, longest int, most func(r *rand.Rand) int) []engine.Request {
	requests := make([]engine.Request, n)
	r := rand.New(rand.NewPCG(seed, seed+1))
	for i := range requests {
		tokens := []int32{1}
		for range r.IntN(more) {
			tokens = append(tokens, int32(300+r.IntN(500)))
		}
		if i >= 4 && i%4 == 0 {
			tokens = append(slices.Clone(requests[i-4].Tokens), tokens...)
		}
		requests[i] = engine.Request{Tokens: tokens[:min(len(tokens), longest)], Max: most(r)}
	}
	return requests
}

// TestConcurrent runs 100 sequences of random lengths at once through the
// engine on the real processor, with too few pages for all of them: every text
// is the one that it gives alone.
func TestConcurrent(t *testing.T) {
	const sequences = 100
	file, err := model.OpenBytes(demo.Name, demo.File())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	requests := crowd(1, sequences, 90, 300, func(r *rand.Rand) int { return 1 + r.IntN(30) })
	run := func(e *engine.Engine, i int) []int32 {
		p := sample.Defaults()
		p.Seed = uint64(i)
		req := requests[i]
		req.Sampler = sample.New(p)
		result, err := e.Generate(context.Background(), req, nil)
		if err != nil {
			t.Errorf("sequence %d: %v", i, err)
		}
		return result.Tokens
	}
	load := func(sequences, pages, threads int) *engine.Engine {
		devices, err := device.Find("cpu", device.Options{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		e, err := engine.Load(context.Background(), file.Model, engine.Fixed(file.Model, engine.Whole(file.Model, devices[0]),
			engine.Options{Context: 512, Sequences: sequences, Pages: pages, K: quant.F16, V: quant.F16}), nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	alone := load(1, 0, 1)
	defer alone.Close()
	together := load(16, 40, 2)
	defer together.Close()
	got := make([][]int32, sequences)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i] = run(together, i) })
	}
	wg.Wait()
	for i := range got {
		if want := run(alone, i); !slices.Equal(got[i], want) {
			t.Errorf("sequence %d: %v among others, %v alone", i, got[i], want)
		}
	}
	if s := together.Stats(); s.Steps == 0 || s.Rows <= s.Steps {
		t.Errorf("%d rows in %d steps: nothing ran together", s.Rows, s.Steps)
	}
}
