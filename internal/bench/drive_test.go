package bench

import (
	"testing"
	"time"

	"drover/internal/engine"
)

// What counts is the time in which all sequences decode.
func TestWindow(t *testing.T) {
	times := func(seconds ...float64) engine.Result {
		var r engine.Result
		for _, s := range seconds {
			r.At = append(r.At, at(s))
		}
		return r
	}
	for _, c := range []struct {
		name     string
		results  []engine.Result
		from, to float64
		took     time.Duration
	}{
		{"one", []engine.Result{times(1, 2, 3, 4)}, 1, 4, 3 * time.Second},
		{"in step", []engine.Result{times(1, 2, 3, 4), times(1, 2, 3, 4)}, 1, 4, 3 * time.Second},
		// in turns: 5 tokens in 2.5 s, so 6 take 3
		{"in turns", []engine.Result{times(1, 2, 3, 4), times(1.5, 2.5, 3.5, 4.5)}, 1.5, 4, 3 * time.Second},
		// a later one: 2 and 2 tokens in 2 s
		{"late", []engine.Result{times(1, 2, 3, 4), times(2, 3, 4, 5)}, 2, 4, 3 * time.Second},
		{"a clock that stands", []engine.Result{times(1, 1, 1, 1)}, 1, 1, 1},
	} {
		p := window(c.results, 3)
		if !p.from.Equal(at(c.from)) || !p.to.Equal(at(c.to)) || p.took != c.took {
			t.Errorf("%s: %v from %v to %v, want %v from %v to %v", c.name, p.took, p.from, p.to, c.took, at(c.from), at(c.to))
		}
	}
}

// Rows of the depth that are read again with a prompt count in proportion.
func TestScaled(t *testing.T) {
	for _, c := range []struct {
		took          time.Duration
		tokens, timed int
		want          time.Duration
	}{{time.Second, 20, 20, time.Second}, {time.Second, 20, 25, 800 * time.Millisecond}, {0, 3, 3, 1}, {0, 3, 0, 1}} {
		if got := scaled(c.took, c.tokens, c.timed); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// Pages that the cache has lost would be read again and timed: an error instead.
func TestLostDepth(t *testing.T) {
	d := driver{depth: 130}
	if err := d.reused(engine.Result{Reused: 128}); err != nil {
		t.Error(err)
	}
	if err := d.reused(engine.Result{Reused: 64}); err == nil {
		t.Errorf("got %v", err)
	}
}
