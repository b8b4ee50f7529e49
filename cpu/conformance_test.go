package cpu

import (
	"os"
	"runtime"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/ref"
)

// TestConformance holds every kernel set of this CPU to the contract, one after
// the other: workers of two that wait for each other on the same cores take 2.5
// times as long. With -short, and in the full product, which has other packages
// beside it, they have one processor, and so do not spin: 0.7 of the work.
func TestConformance(t *testing.T) {
	if testing.Short() || os.Getenv("DROVER_FULL") == "1" {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	for _, isa := range Available() {
		t.Run(isa, func(t *testing.T) {
			open := func(o Options) backend.Device {
				o.ISA = isa
				dev, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				return dev
			}
			backendtest.Run(t, open(Options{Threads: 2}), backendtest.Options{
				Same: []backend.Device{open(Options{Threads: 1}), open(Options{Threads: 3}), open(Options{Threads: 5}),
					open(Options{Threads: 2, Raw: true})},
				Round: ref.Int8Blocks,
				Small: func(memory uint64) backend.Device { return open(Options{Threads: 2, Memory: memory}) },
			})
		})
	}
}
