//go:build amd64 && !noasm

package cpu

import (
	"os"
	"testing"
)

// TestMain lets the generic set with tiles stand in for AMX where a CPU has none: what is
// around the kernels is the same. Elsewhere no set has tiles.
func TestMain(m *testing.M) {
	if !kernelSets()[0].tiled() {
		sets = func() []*kernels { return append(kernelSets(), genericTiles()) }
	}
	os.Exit(m.Run())
}
