//go:build (linux && cgo) || windows

package cuda

import (
	"fmt"
	"unsafe"
)

// result is a CUresult.
type result int32

const (
	success           result = 0
	outOfMemory       result = 2
	deinitialized     result = 4
	stubLibrary       result = 34
	deviceUnavailable result = 46
	noDevice          result = 100
	systemCall        result = 304
	eccUncorrectable  result = 214
	nvlinkError       result = 220
	illegalAddress    result = 700
	launchTimeout     result = 702
	contextDestroyed  result = 709
	assertFailed      result = 710
	hardwareStack     result = 714
	illegalInstr      result = 715
	misaligned        result = 716
	addressSpace      result = 717
	invalidPC         result = 718
	launchFailed      result = 719
	tensorLeak        result = 721
	noJIT             result = 221
	newerPTX          result = 222
	systemNotReady    result = 802
	driverMismatch    result = 803
	notForThisCard    result = 804
	unknownError      result = 999
)

// lasting reports errors after which a context gives nothing but errors.
func (r result) lasting() bool {
	switch r {
	case deinitialized, eccUncorrectable, nvlinkError, illegalAddress, launchTimeout, contextDestroyed, assertFailed,
		hardwareStack, illegalInstr, misaligned, addressSpace, invalidPC, launchFailed, tensorLeak, unknownError:
		return true
	}
	return false
}

// text is the driver's name and words for a result, and what to do about it.
func (d *driver) text(r result) string {
	name, words := d.errorText(d.cuGetErrorName, r), d.errorText(d.cuGetErrorString, r)
	text := fmt.Sprintf("%s (%s, %d)", words, name, r)
	if name == "" || words == "" {
		text = fmt.Sprintf("CUDA error %d", r)
	}
	switch r {
	case eccUncorrectable:
		return text + ": the card's memory gave a wrong bit (nvidia-smi -q -d ECC): where it happens again, the card is faulty"
	case noJIT:
		return text + ": libnvidia-ptxjitcompiler is missing: install the whole NVIDIA driver (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
	case newerPTX:
		return text + ": update the NVIDIA driver: the kernels need " + driverFor(d.version)
	case launchTimeout:
		return text + ": a kernel took longer than the card's display allows"
	}
	return text
}

// errorText calls cuGetErrorName or cuGetErrorString: a constant C string.
func (d *driver) errorText(fn uintptr, r result) string {
	f := args(uint64(uint32(r)))
	f.out(1, callArgs)
	if d.invoke(fn, 0, &f) != success {
		return ""
	}
	p := *(*unsafe.Pointer)(unsafe.Pointer(&f.slots[callArgs]))
	if p == nil {
		return ""
	}
	n := 0
	for n < 200 && *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
