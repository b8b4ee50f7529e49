//go:build linux && metalsim

package metal

// sendSizes sends a message of two MTLSize: amd64 passes structs of more than 16
// bytes on the stack, behind the six registers.
func (e encoder) sendSizes(s selector, a, b size) {
	e.send(s, 0, 0, 0, 0, a.w, a.h, a.d, b.w, b.h, b.d)
}
