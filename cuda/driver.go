//go:build (linux && cgo) || windows

package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"drover/backend"
)

// driver is NVIDIA's driver: the addresses of the functions that we call, found
// by name when it is opened, so that a build needs no CUDA header and a binary
// runs without the driver.
type driver struct {
	version   int  // of the driver API: 12080 is CUDA 12.8
	simulated bool // the library says that it is a software device

	cuInit, cuDriverGetVersion, cuGetErrorName, cuGetErrorString                      uintptr
	cuDeviceGetCount, cuDeviceGet, cuDeviceGetName, cuDeviceGetUuid, cuDeviceTotalMem uintptr
	cuDeviceGetAttribute, cuDevicePrimaryCtxRetain, cuCtxSetCurrent                   uintptr
	cuMemGetInfo, cuMemGetAllocationGranularity, cuMemAlloc, cuMemFree                uintptr
	cuMemHostAlloc, cuMemFreeHost                                                     uintptr
	cuMemcpyHtoDAsync, cuMemcpyDtoHAsync, cuMemcpyDtoDAsync, cuMemsetD8Async          uintptr
	cuModuleLoadDataEx, cuModuleUnload, cuModuleGetFunction, cuFuncSetAttribute       uintptr
	cuLaunchKernel, cuLaunchKernelEx                                                  uintptr
	cuStreamCreate, cuStreamDestroy, cuStreamSynchronize                              uintptr
	cuStreamBeginCapture, cuStreamEndCapture, cuGraphInstantiate, cuGraphLaunch       uintptr
	cuGraphDestroy, cuGraphExecDestroy                                                uintptr
	cuEventCreate, cuEventDestroy, cuEventRecord, cuEventElapsedTime                  uintptr
}

// entry is a function of the driver: its name in the library, where its address
// goes, and the driver that first had it (0: any that we can use).
type entry struct {
	name    string
	address *uintptr
	since   int
}

// table is every function that we call. A suffix is the version of its
// parameters.
func (d *driver) table() []entry {
	return []entry{
		{"cuInit", &d.cuInit, 0},
		{"cuDriverGetVersion", &d.cuDriverGetVersion, 0},
		{"cuGetErrorName", &d.cuGetErrorName, 0},
		{"cuGetErrorString", &d.cuGetErrorString, 0},
		{"cuDeviceGetCount", &d.cuDeviceGetCount, 0},
		{"cuDeviceGet", &d.cuDeviceGet, 0},
		{"cuDeviceGetName", &d.cuDeviceGetName, 0},
		{"cuDeviceGetUuid_v2", &d.cuDeviceGetUuid, 0},
		{"cuDeviceTotalMem_v2", &d.cuDeviceTotalMem, 0},
		{"cuDeviceGetAttribute", &d.cuDeviceGetAttribute, 0},
		{"cuDevicePrimaryCtxRetain", &d.cuDevicePrimaryCtxRetain, 0},
		{"cuCtxSetCurrent", &d.cuCtxSetCurrent, 0},
		{"cuMemGetInfo_v2", &d.cuMemGetInfo, 0},
		{"cuMemGetAllocationGranularity", &d.cuMemGetAllocationGranularity, 0},
		{"cuMemAlloc_v2", &d.cuMemAlloc, 0},
		{"cuMemFree_v2", &d.cuMemFree, 0},
		{"cuMemHostAlloc", &d.cuMemHostAlloc, 0},
		{"cuMemFreeHost", &d.cuMemFreeHost, 0},
		{"cuMemcpyHtoDAsync_v2", &d.cuMemcpyHtoDAsync, 0},
		{"cuMemcpyDtoHAsync_v2", &d.cuMemcpyDtoHAsync, 0},
		{"cuMemcpyDtoDAsync_v2", &d.cuMemcpyDtoDAsync, 0},
		{"cuMemsetD8Async", &d.cuMemsetD8Async, 0},
		{"cuModuleLoadDataEx", &d.cuModuleLoadDataEx, 0},
		{"cuModuleUnload", &d.cuModuleUnload, 0},
		{"cuModuleGetFunction", &d.cuModuleGetFunction, 0},
		{"cuFuncSetAttribute", &d.cuFuncSetAttribute, 0},
		{"cuLaunchKernel", &d.cuLaunchKernel, 0},
		{"cuLaunchKernelEx", &d.cuLaunchKernelEx, dependentVersion},
		{"cuStreamCreate", &d.cuStreamCreate, 0},
		{"cuStreamDestroy_v2", &d.cuStreamDestroy, 0},
		{"cuStreamSynchronize", &d.cuStreamSynchronize, 0},
		{"cuStreamBeginCapture_v2", &d.cuStreamBeginCapture, 0},
		{"cuStreamEndCapture", &d.cuStreamEndCapture, 0},
		{"cuGraphInstantiateWithFlags", &d.cuGraphInstantiate, 0},
		{"cuGraphLaunch", &d.cuGraphLaunch, 0},
		{"cuGraphDestroy", &d.cuGraphDestroy, 0},
		{"cuGraphExecDestroy", &d.cuGraphExecDestroy, 0},
		{"cuEventCreate", &d.cuEventCreate, 0},
		{"cuEventDestroy_v2", &d.cuEventDestroy, 0},
		{"cuEventRecord", &d.cuEventRecord, 0},
		{"cuEventElapsedTime", &d.cuEventElapsedTime, 0},
	}
}

// Versions of the driver API.
const (
	minVersion       = 11040 // R470: the first with PTX 7.4, CUDA graphs as we use them and device UUIDs of MIG
	sm90Version      = 11080 // R520: the first with PTX 7.8
	sm90aVersion     = 12000 // R525: the first with PTX 8.0
	dependentVersion = 12030 // R545: programmatic dependent launch, also within graphs
)

// callArgs is the most parameters of a function (cuLaunchKernel).
const callArgs = 11

// frame is one call: its arguments in slots 0 to 10, results and structures in
// any others. A slot whose bit in refs is set holds the number of a slot and is
// passed as that slot's address. host, if not nil, is memory of ours that goes
// to slot hostAt; it holds no Go pointers.
type frame struct {
	slots  [32]uint64
	refs   uint32
	hostAt int
	host   unsafe.Pointer
}

// args starts a frame.
func args(values ...uint64) frame {
	var f frame
	copy(f.slots[:], values)
	return f
}

// out makes argument i the address of slot to, where the result will be.
func (f *frame) out(i, to int) {
	f.slots[i] = uint64(to)
	f.refs |= 1 << i
}

// bytes are the first n bytes from a slot on.
func (f *frame) bytes(slot, n int) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&f.slots[slot])), n)[:n:n]
}

// openDriver loads the library, finds its functions and starts the driver.
func openDriver() (*driver, error) {
	handle, name, err := loadLibrary()
	if err != nil {
		return nil, err
	}
	d := &driver{}
	if missing := d.find(handle); missing != "" {
		return nil, &backend.Unusable{Cause: fmt.Sprintf("%s has no function %s%s: the NVIDIA driver is too old, or this is not its library", name, missing, d.versionHere()),
			Remedy: "install driver 470 or newer"}
	}
	// kernels are loaded with their module: a load in the middle of a capture would fail it
	if _, set := os.LookupEnv("CUDA_MODULE_LOADING"); !set {
		os.Setenv("CUDA_MODULE_LOADING", "EAGER")
	}
	f := args(0)
	if r := d.invoke(d.cuInit, 0, &f); r != success {
		return nil, d.startError(r, name)
	}
	f = frame{}
	f.out(0, callArgs)
	if r := d.invoke(d.cuDriverGetVersion, 0, &f); r != success {
		return nil, d.startError(r, name)
	}
	d.version = int(uint32(f.slots[callArgs]))
	if d.version < minVersion {
		return nil, &backend.Unusable{Cause: fmt.Sprintf("the NVIDIA driver is for CUDA %s: CUDA %s (driver 470) or newer is needed", versionText(d.version), versionText(minVersion)),
			Remedy: "update the driver to 470 or newer"}
	}
	return d, nil
}

// loadLibrary opens the driver's library, or the one that DROVER_CUDA_LIBRARY
// names.
func loadLibrary() (handle uintptr, name string, err error) {
	names := libraries()
	if own := os.Getenv("DROVER_CUDA_LIBRARY"); own != "" {
		names = []string{own}
		if _, err := os.Stat(own); strings.ContainsAny(own, `/\`) && errors.Is(err, os.ErrNotExist) {
			return 0, own, &backend.Unusable{Absent: true, Cause: fmt.Sprintf("there is no file %s, which DROVER_CUDA_LIBRARY names", own),
				Remedy: "unset DROVER_CUDA_LIBRARY, or give it the path of the driver's " + filepath.Base(libraries()[0])}
		}
	}
	var loadable error // of a library that is here, but does not load
	for _, name := range names {
		handle, err := openLibrary(name)
		if err == nil {
			return handle, name, nil
		}
		if !notFound(err, name) && loadable == nil {
			loadable = fmt.Errorf("the NVIDIA driver's library does not load: %w", err)
		}
	}
	if loadable != nil {
		return 0, "", &backend.Unusable{Cause: loadable.Error(), Remedy: "install the NVIDIA driver again, for this machine's architecture"}
	}
	return 0, "", libraryMissing(names, kernelSide("/"))
}

// notFound tells a library that is not here from one that does not load.
func notFound(err error, name string) bool {
	text := err.Error()
	return strings.Contains(text, name) && strings.Contains(text, "No such file") || strings.Contains(text, "could not be found")
}

// find fills the table; missing is a function that is not there and should be.
func (d *driver) find(handle uintptr) (missing string) {
	d.simulated = symbol(handle, "drover_simulated") != 0
	for _, e := range d.table() {
		*e.address = symbol(handle, e.name)
		if *e.address == 0 && e.since == 0 && missing == "" {
			missing = e.name
		}
	}
	return missing
}

// versionHere says the driver's version, where it tells.
func (d *driver) versionHere() string {
	if d.cuDriverGetVersion == 0 {
		return ""
	}
	var f frame
	f.out(0, callArgs)
	if d.invoke(d.cuDriverGetVersion, 0, &f) != success {
		return ""
	}
	return fmt.Sprintf(" (here is one for CUDA %s)", versionText(int(uint32(f.slots[callArgs]))))
}

// versionText writes 12080 as 12.8.
func versionText(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }
