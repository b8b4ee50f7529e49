//go:build !linux

package bench

// resetPeak: the system does not tell the peak since a given moment.
func resetPeak() bool { return false }

func readPeak() (uint64, bool) { return 0, false }
