//go:build amd64 && !linux && !noasm

package cpu

// tilesAllowed: other systems are not asked.
func tilesAllowed() bool { return false }
