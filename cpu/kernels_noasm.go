//go:build noasm || !(amd64 || arm64)

package cpu

// kernelSets are the sets that this CPU runs: without assembly, the generic one.
func kernelSets() []*kernels { return []*kernels{generic()} }

// pause tells the processor that this is a spin; without assembly it cannot.
func pause() {}
