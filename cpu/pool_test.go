package cpu

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// TestPool runs pools of several sizes, with pauses so that workers park, and
// counts that every worker runs once a call.
func TestPool(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7} {
		p := newPool(n, places{})
		counts := make([]atomic.Int64, n)
		const runs = 300
		for i := range runs {
			p.run(func(id int) {
				if i%50 == 0 && id == n-1 {
					time.Sleep(time.Millisecond) // long enough for the others to park
				}
				counts[id].Add(1)
			})
			if i%40 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		p.close()
		p.close() // harmless
		for id := range counts {
			if got := counts[id].Load(); got != runs {
				t.Errorf("%d workers: worker %d ran %d times of %d", n, id, got, runs)
			}
		}
	}
}

// TestSleeper has two goroutines meet where one parks and the other wakes it:
// were neither to see the other, the sleeper would sleep for ever. With a Store
// in park it does in most runs under QEMU.
func TestSleeper(t *testing.T) {
	const rounds = 200000
	s := sleeper{wake: make(chan struct{}, 1)}
	var ready, woken counter
	go func() {
		for i := int64(1); i <= rounds; i++ {
			for spin := 1; ready.Load() != i; spin++ {
				if spin%1000 == 0 {
					runtime.Gosched()
				}
			}
			woken.Add(1)
			s.unpark()
		}
	}()
	for i := int64(1); i <= rounds; i++ {
		ready.Store(i)
		for woken.Load() != i {
			s.park(func() bool { return woken.Load() == i })
		}
	}
}

// TestAhead: a worker that waits fetches what it was given, piece by piece and once.
func TestAhead(t *testing.T) {
	p := newPool(1, places{})
	defer p.close()
	p.yield = false
	memory := make([]byte, 10*fetchStep)
	next := memory[:3*fetchStep+100]
	var got []int
	p.ahead = func(id int) []byte { return next }
	p.fetch = func(b []byte) byte {
		if len(b) != fetchStep {
			t.Errorf("%d bytes at once", len(b))
		}
		got = append(got, int(uintptr(unsafe.Pointer(&b[0]))-uintptr(unsafe.Pointer(&memory[0]))))
		return 0
	}
	waits := func(n int, want ...int) {
		t.Helper()
		got = nil
		p.give(0)
		for range n {
			p.wait(0)
		}
		if !slices.Equal(got, want) {
			t.Errorf("fetched %v, want %v", got, want)
		}
	}
	waits(2, 0, fetchStep)
	waits(9, 2*fetchStep) // the same again, to its end
	next = nil
	waits(3)
	next = memory[5*fetchStep : 7*fetchStep]
	waits(9, 5*fetchStep, 6*fetchStep)
}
