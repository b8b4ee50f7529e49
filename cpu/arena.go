package cpu

import "unsafe"

// arena hands out 64-byte aligned, zeroed memory. Without memory of its own it
// only counts: Need and Load run the same code and cannot differ.
type arena struct {
	mem  []byte
	used uint64
}

const alignment = 64

// bytes takes n bytes; nil while counting.
func (a *arena) bytes(n int) []byte {
	lo := a.used
	a.used += (uint64(n) + alignment - 1) &^ (alignment - 1)
	if a.mem == nil {
		return nil
	}
	return a.mem[lo : lo+uint64(n) : lo+uint64(n)]
}

// floats takes n float32.
func (a *arena) floats(n int) []float32 {
	b := a.bytes(4 * n)
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), n)
}
