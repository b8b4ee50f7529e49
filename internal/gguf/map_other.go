//go:build !(linux || darwin || freebsd || netbsd || openbsd || windows)

package gguf

import (
	"io"
	"os"
)

// mapFile reads the file: this system has no mapping that we know.
func mapFile(f *os.File, size int) (data []byte, mapped bool, err error) {
	data = make([]byte, size)
	_, err = io.ReadFull(f, data)
	return data, false, err
}

func unmap([]byte) error { return nil }

func dropPages([]byte) {}
