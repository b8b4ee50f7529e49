package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// Callers that go away at any moment disturb nobody and leave nothing.
func TestCancelAnywhere(t *testing.T) {
	m := fakeModel(2, 0, 400)
	all := requests(m, 60, 50, 2)
	d := &fakeDevice{}
	e := open(t, m, d, Options{Context: 400, Sequences: 8, Batch: 64, Pages: 24})
	r := rand.New(rand.NewPCG(2, 2))
	var wg sync.WaitGroup
	for i, q := range all {
		after, how := r.IntN(q.max+1), i%4
		wait := time.Duration(r.IntN(20000)) * time.Microsecond
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if how == 1 {
				stop := time.AfterFunc(wait, cancel)
				defer stop.Stop()
			}
			n := 0
			got, err := e.Generate(ctx, q.request(), func(id int32, _ string) error {
				n++
				switch {
				case how == 2 && n > after:
					cancel()
				case how == 3 && n > after:
					return errTest
				}
				return nil
			})
			if how == 0 && err != nil || err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errTest) {
				t.Errorf("request %d: %v", i, err)
			}
			if len(got.Tokens) > len(q.want) || !slices.Equal(got.Tokens, q.want[:len(got.Tokens)]) || err == nil && len(got.Tokens) != len(q.want) {
				t.Errorf("request %d, way %d: got %v, want %v", i, how, got.Tokens, q.want)
			}
		})
	}
	wg.Wait()
}

// A forward pass that nobody waits for any more is cut short, and what it had
// written is written again.
func TestCancelTheOnlySequence(t *testing.T) {
	m := fakeModel(2, 0, 400)
	q := requests(m, 1, 50, 3)[0]
	entered := make(chan struct{}, 1)
	hang := make(chan bool, 1)
	hang <- true
	d := &fakeDevice{before: func(ctx context.Context) error {
		select {
		case <-hang:
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		default:
			return nil
		}
	}}
	e := open(t, m, d, Options{Context: 400})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := e.Generate(ctx, q.request(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	got, err := e.Generate(context.Background(), q.request(), nil)
	if err != nil || !slices.Equal(got.Tokens, q.want) {
		t.Errorf("after cancellation: %v, got %v, want %v", err, got.Tokens, q.want)
	}
}

// While one of two sequences is still wanted, cancelling the other does not
// cost the running pass.
func TestCancelOneOfTwo(t *testing.T) {
	m := fakeModel(1, 0, 400)
	q := requests(m, 2, 50, 4)
	third, go3 := make(chan struct{}), make(chan struct{})
	entered, gate := make(chan struct{}), make(chan struct{})
	passes, met := 0, false
	d := &fakeDevice{}
	d.before = func(ctx context.Context) error {
		if passes++; passes == 3 {
			close(third)
			<-go3
		}
		if d.most.Load() == 2 && !met {
			met = true
			close(entered)
			<-gate
		}
		return ctx.Err()
	}
	e := open(t, m, d, Options{Context: 400, Sequences: 2})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone, kept := make(chan error), make(chan error)
	pushed := new(counter)
	go func() {
		_, err := e.Generate(ctx, Request{Tokens: q[1].prompt, Max: -1, Stream: pushed}, nil)
		gone <- err
	}()
	<-third
	go func() {
		got, err := e.Generate(context.Background(), q[0].request(), nil)
		if err == nil && !slices.Equal(got.Tokens, q[0].want) {
			err = fmt.Errorf("got %v, want %v", got.Tokens, q[0].want)
		}
		kept <- err
	}()
	waitFor(e, func() bool { return len(e.waiting) == 1 })
	close(go3)
	<-entered
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) { // it returns although the pass it is in still runs
		t.Errorf("the cancelled one: %v", err)
	}
	before := *pushed
	close(gate)
	if err := <-kept; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if got := e.Stats().Steps; got != passes {
		t.Errorf("%d of %d passes counted: one was lost", got, passes)
	}
	if *pushed != before {
		t.Error("the cancelled one was given a token after Generate had returned")
	}
}

// counter is a Stream that counts.
type counter int

func (c *counter) Push(int32) string { *c++; return "" }
func (c *counter) Flush() string     { return "" }

// A caller that does not read its tokens keeps nobody waiting.
func TestSlowCaller(t *testing.T) {
	m := fakeModel(1, 0, 400)
	q := requests(m, 2, 50, 5)
	e := open(t, m, &fakeDevice{}, Options{Context: 400, Sequences: 2})
	blocked, gate, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		first := true
		got, err := e.Generate(context.Background(), q[0].request(), func(int32, string) error {
			if first {
				first = false
				close(blocked)
				<-gate
			}
			return nil
		})
		if err == nil && !slices.Equal(got.Tokens, q[0].want) {
			err = fmt.Errorf("got %v, want %v", got.Tokens, q[0].want)
		}
		done <- err
	}()
	<-blocked
	got, err := e.Generate(context.Background(), q[1].request(), nil)
	if err != nil || !slices.Equal(got.Tokens, q[1].want) {
		t.Errorf("beside a slow caller: %v, got %v, want %v", err, got.Tokens, q[1].want)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
