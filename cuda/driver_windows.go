package cuda

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"
)

// libraries are the names to try, in order. This file is built and vetted; it
// has not run on a Windows machine with a card: not proven.
func libraries() []string {
	return []string{filepath.Join(os.Getenv("SystemRoot"), "System32", "nvcuda.dll")} // not one that lies in the working directory
}

// openLibrary loads a shared library; the error is the loader's.
func openLibrary(name string) (uintptr, error) {
	handle, err := syscall.LoadLibrary(name)
	return uintptr(handle), err
}

// symbol is the address of a function of a library, or 0.
func symbol(handle uintptr, name string) uintptr {
	address, err := syscall.GetProcAddress(syscall.Handle(handle), name)
	if err != nil {
		return 0
	}
	return address
}

// invoke calls fn with the context current on the same thread. The frame is
// copied to the heap and pinned with what it points to, since the driver gets
// addresses as numbers.
func (d *driver) invoke(fn, context uintptr, f *frame) result {
	var pin runtime.Pinner
	defer pin.Unpin()
	slots := new([len(f.slots)]uint64)
	*slots = f.slots
	pin.Pin(slots)
	if f.host != nil {
		pin.Pin(f.host)
		slots[f.hostAt] = uint64(uintptr(f.host))
	}
	for i := range slots {
		if f.refs>>i&1 != 0 {
			slots[i] = uint64(uintptr(unsafe.Pointer(&slots[slots[i]])))
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if context != 0 {
		if r, _, _ := syscall.SyscallN(d.cuCtxSetCurrent, context); r != 0 {
			return result(r)
		}
	}
	var args [callArgs]uintptr
	for i := range args {
		args[i] = uintptr(slots[i])
	}
	r, _, _ := syscall.SyscallN(fn, args[:]...)
	f.slots = *slots
	return result(int32(r))
}
