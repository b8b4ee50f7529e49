//go:build darwin

package metal

import (
	"runtime"
	"unsafe"
)

// sendSizes sends a message of two MTLSize: arm64 passes structs of more than 16
// bytes by their address.
func (o object) sendSizes(s selector, a, b size) {
	both := [2]size{a, b}
	o.send(s, uintptr(unsafe.Pointer(&both[0])), uintptr(unsafe.Pointer(&both[1])))
	runtime.KeepAlive(&both)
}
