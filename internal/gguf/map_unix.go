//go:build linux || darwin || freebsd || netbsd || openbsd

package gguf

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile makes the file's bytes readable; mapped says that they are pages of
// the file and not a copy.
func mapFile(f *os.File, size int) (data []byte, mapped bool, err error) {
	data, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	return data, err == nil, err
}

func unmap(data []byte) error { return unix.Munmap(data) }

// dropPages lets go of whole pages of a mapping. It is advice: a refusal costs
// memory only.
func dropPages(pages []byte) { _ = unix.Madvise(pages, unix.MADV_DONTNEED) }
