//go:build (linux && cgo) || windows

package cuda

import (
	"fmt"
	"os"
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
	case noJIT:
		return text + ": libnvidia-ptxjitcompiler is missing: install the whole NVIDIA driver (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
	case newerPTX:
		return text + ": update the NVIDIA driver"
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

// startError is an error of cuInit with its remedy.
func (d *driver) startError(r result, library string) error {
	text := d.text(r)
	switch r {
	case noDevice:
		if hidden, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			return fmt.Errorf("the NVIDIA driver shows no GPU: CUDA_VISIBLE_DEVICES=%q hides them, or there is none: %s", hidden, text)
		}
		if name, found := openManagement().withoutInstances(); found {
			return fmt.Errorf("the NVIDIA driver shows no GPU: %s is in MIG mode and has no instance: make one (nvidia-smi mig), or turn the mode off: %s", name, text)
		}
		return fmt.Errorf("the NVIDIA driver finds no GPU: see whether nvidia-smi lists one: %s", text)
	case unknownError:
		return fmt.Errorf("the NVIDIA driver does not start, as after a suspend: sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or restart the machine: %s", text)
	case 3, deinitialized, stubLibrary:
		return fmt.Errorf("%s is not a driver that runs, as the CUDA toolkit's stub is not: install the NVIDIA driver, and take stubs out of LD_LIBRARY_PATH: %s", library, text)
	case systemNotReady:
		return fmt.Errorf("the GPUs are not ready: on a machine with NVSwitch start nvidia-fabricmanager: %s", text)
	case driverMismatch:
		return fmt.Errorf("the NVIDIA driver's library and its kernel module are of different versions, as after an update: restart the machine: %s", text)
	case notForThisCard:
		return fmt.Errorf("a CUDA compatibility package is in use that this GPU does not support: take it out of LD_LIBRARY_PATH, or update the NVIDIA driver: %s", text)
	}
	return fmt.Errorf("the NVIDIA driver does not start: see whether nvidia-smi works: %s", text)
}
