package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// lockMemory keeps every page that the process has, and those that its
// mappings still get, in memory. Pages of the mapped file that were dropped
// after packing stay out.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT); err != nil {
		return &failure{exit: exitRuntime, code: "runtime", hint: "ulimit -l unlimited lifts the limit, if the system allows it; or leave --mlock out",
			err: fmt.Errorf("--mlock: lock memory: %w", err)}
	}
	return nil
}
