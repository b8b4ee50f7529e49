//go:build unix

package cpu

import (
	"fmt"
	"syscall"
)

// reserve maps zeroed memory outside Go's heap. Pages count only once touched;
// with huge they come 2 MiB at a time where the system has such.
func reserve(n uint64, huge bool) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b, err := syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", n, err)
	}
	if huge {
		hugePages(b)
	}
	return b, nil
}

func release(b []byte) error {
	if b == nil {
		return nil
	}
	return syscall.Munmap(b)
}
