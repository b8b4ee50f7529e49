//go:build !unix

package cpu

import "unsafe"

// reserve takes zeroed memory from Go's heap.
func reserve(n uint64, _ bool) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n+alignment)
	off := -uintptr(unsafe.Pointer(&b[0])) & (alignment - 1)
	return b[off : uint64(off)+n], nil
}

func release([]byte) error { return nil }
