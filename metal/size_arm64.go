//go:build darwin

package metal

import (
	"runtime"
	"unsafe"
)

// sendSizes sends a message of two MTLSize: arm64 passes structs of more than 16
// bytes by their address.
func (e encoder) sendSizes(s selector, a, b size) {
	e.m.sizes = [2]size{a, b}
	e.send(s, uintptr(unsafe.Pointer(&e.m.sizes[0])), uintptr(unsafe.Pointer(&e.m.sizes[1])))
	runtime.KeepAlive(e.m)
}
