package cpu

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// memory is the computer's memory and what of it this process may still take,
// in bytes. macOS keeps its free pages full of caches, so three quarters of
// all count as free.
func memory() (total, free uint64) {
	total, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, 0
	}
	return total, total / 4 * 3
}

// physicalCores counts the performance cores, or all where they are alike.
func physicalCores() int {
	for _, name := range []string{"hw.perflevel0.physicalcpu", "hw.physicalcpu"} {
		if n, err := unix.SysctlUint32(name); err == nil && n > 0 {
			return int(n)
		}
	}
	return runtime.NumCPU()
}

// processorName is what the maker calls the CPU.
func processorName() string {
	if name, err := unix.Sysctl("machdep.cpu.brand_string"); err == nil {
		return name
	}
	return runtime.GOARCH
}
