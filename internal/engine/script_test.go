package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// Requests that begin together go through the same batches, and take what their
// scripts say.
func TestScripts(t *testing.T) {
	m := fakeModel(1, 0, 400)
	e := open(t, m, &fakeDevice{}, Options{Context: 64, Sequences: 3, Pages: 6})
	scripts := [][]int32{{1, 2, 3, 4}, {9, 8, 7, 6, 5}, {0, 0, 0, 0}}
	var all []Request
	for _, s := range scripts {
		all = append(all, Request{Tokens: []int32{3}, Max: 4, Script: s})
	}
	got, err := e.GenerateAll(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if !slices.Equal(r.Tokens, scripts[i][:4]) || len(r.At) != 4 || !slices.IsSortedFunc(r.At, time.Time.Compare) {
			t.Errorf("request %d: %v at %v, want %v", i, r.Tokens, r.At, scripts[i][:4])
		}
	}
	if n := e.Stats(); n.Steps != 4 || n.Rows != 12 {
		t.Errorf("%d rows in %d batches, want 12 in 4", n.Rows, n.Steps)
	}
	for _, r := range []Request{{Tokens: []int32{3}, Max: 5, Script: scripts[0]}, {Tokens: []int32{3}, Max: -1, Script: scripts[0]},
		{Tokens: []int32{3}, Max: 1, Script: []int32{-1}}, {Max: 1, Script: scripts[0]}} {
		if _, err := e.GenerateAll(t.Context(), []Request{all[0], r}); err == nil {
			t.Errorf("%+v is taken", r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.GenerateAll(ctx, all); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before it began: %v", err)
	}
	if n := e.Stats(); n.Steps != 4 {
		t.Errorf("%d batches: what was refused ran", n.Steps)
	}
}
