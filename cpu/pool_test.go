package cpu

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestPool runs pools of several sizes, with pauses so that workers park, and
// counts that every worker runs once a call.
func TestPool(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7} {
		p := newPool(n)
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
