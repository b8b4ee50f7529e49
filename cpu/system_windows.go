package cpu

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// memory is the computer's memory and what of it is free, in bytes.
func memory() (total, free uint64) {
	var status struct { // MEMORYSTATUSEX
		length, load         uint32
		totalPhys, availPhys uint64
		rest                 [5]uint64
	}
	status.length = uint32(unsafe.Sizeof(status))
	call := syscall.NewLazyDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if ok, _, _ := call.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return 0, 0
	}
	return status.totalPhys, status.availPhys
}

// physicalCores is the number of logical processors: Windows tells no more
// without a longer walk, and one thread too many costs little.
func physicalCores() int { return runtime.NumCPU() }

// processorName is what the system calls the CPU.
func processorName() string {
	if name := os.Getenv("PROCESSOR_IDENTIFIER"); name != "" {
		return name
	}
	return runtime.GOARCH
}
