//go:build cgo

package cuda

/*
#cgo LDFLAGS: -ldl
#cgo noescape driver_call
#cgo nocallback driver_call
#include "driver.h"
*/
import "C"

import (
	"errors"
	"unsafe"
)

// libraries are the names to try, in order.
func libraries() []string {
	return []string{"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
}

// openLibrary loads a shared library; the error is the loader's.
func openLibrary(name string) (uintptr, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var why [512]C.char
	handle := C.library_open(cname, &why[0], C.int(len(why)))
	if handle == 0 {
		return 0, errors.New(C.GoString(&why[0]))
	}
	return uintptr(handle), nil
}

// symbol is the address of a function of a library, or 0.
func symbol(handle uintptr, name string) uintptr {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return uintptr(C.library_symbol(C.uintptr_t(handle), cname))
}

// invoke calls fn in one cgo call, so that the context is current on the thread
// that runs it. The frame may lie on a goroutine's stack: it does not move while
// that goroutine is in C.
func (d *driver) invoke(fn, context uintptr, f *frame) result {
	return result(C.driver_call(C.uintptr_t(fn), C.uintptr_t(d.cuCtxSetCurrent), C.uint64_t(context),
		(*C.uint64_t)(&f.slots[0]), C.uint32_t(f.refs), C.int(f.hostAt), (*C.char)(f.host)))
}
