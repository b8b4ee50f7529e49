package engine

import (
	"context"
	"errors"
	"slices"
	"testing"

	"drover/backend"
)

// Stages together give what the model gives in one piece.
func TestTogether(t *testing.T) {
	m, a, b, places := halves()
	plan, err := Fixed(m, places, Options{})(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Together(t.Context(), m, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := newOracle(m)
	for pos, id := range []int32{5, 9, 2} {
		batch := &backend.Batch{Tokens: []int32{id}, Pos: []int32{int32(pos)}, Seqs: []backend.Seq{{Rows: 1, Pages: []int32{0}}}, Out: []int32{0}, Logits: make([]float32, fakeVocab)}
		if err := s.Forward(t.Context(), 0, batch); err != nil {
			t.Fatal(err)
		}
		if want := o.push(id); !slices.Equal(batch.Logits, want) || batch.Hidden != nil {
			t.Errorf("token %d: %v, want %v", pos, batch.Logits, want)
		}
	}
	if err := s.Close(); err != nil || a.open.Load()+b.open.Load() != 0 {
		t.Errorf("%v, %d and %d stages left open", err, a.open.Load(), b.open.Load())
	}
	b.failure = errTest
	if _, err := Together(context.Background(), m, plan, nil); !errors.Is(err, errTest) || a.open.Load() != 0 {
		t.Errorf("%v, %d stages left open", err, a.open.Load())
	}
	for _, d := range []*fakeDevice{a, b} {
		for _, f := range d.faults {
			t.Error("contract: " + f)
		}
	}
}
