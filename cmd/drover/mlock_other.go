//go:build !linux

package main

// lockMemory keeps the process's pages in memory, on Linux.
func lockMemory() error {
	return usageError("leave it out", "--mlock works on Linux only")
}
