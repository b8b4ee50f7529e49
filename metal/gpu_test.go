//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"os"
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/sim"
)

// useDevice sees to it that there is a GPU: the software device's, or on a Mac its own.
func useDevice(t testing.TB) {
	t.Helper()
	if simulated {
		if err := os.Setenv("DROVER_METAL_LIBRARY", sim.Metal(t)); err != nil { // for good: it is opened once
			t.Fatal(err)
		}
	}
}

func oneGPU(t *testing.T) *gpu {
	t.Helper()
	useDevice(t)
	found, err := gpus()
	if err != nil || len(found) != 1 {
		t.Fatalf("%d GPUs, %v", len(found), err)
	}
	t.Cleanup(found[0].close)
	return found[0]
}

func (g *gpu) mustTake(t *testing.T, n int) buffer {
	t.Helper()
	b, err := g.take(uint64(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.release)
	return b
}

// devices are the machine's GPU as so many devices.
func devices(t testing.TB, n int) []*device {
	t.Helper()
	useDevice(t)
	var all []*device
	for range n {
		found, err := Devices()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found[0].(*device))
	}
	return all
}

// TestCompile: the compiler takes every kernel, and each has the threads that it is
// dispatched with.
func TestCompile(t *testing.T) {
	d := devices(t, 1)[0]
	k := &stageKernels{}
	sets := []*set{rowKernels(k)}
	for i := range formats {
		sets = append(sets, (&weightKernels{f: &formats[i]}).set())
	}
	caches := []quant.Type{quant.F32, quant.F16, quant.Q8_0}
	for i, kt := range caches {
		for j, vt := range caches {
			// heads of 64 to 256 values, groups of 1 to 8 heads
			headDim, group := 64<<((i+j)%3), 1<<((i+2*j)%4)
			c := &backend.Config{Heads: 8 * group, KVHeads: 8, HeadDim: headDim}
			sets = append(sets, cacheKernels(k, &layout{c: c, lim: backend.Limits{Rows: 512, K: kt, V: vt}})...)
		}
	}
	for _, s := range sets {
		if err := d.fill(s); err != nil {
			t.Error(err)
		}
	}
}
