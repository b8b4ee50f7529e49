//go:build !noasm

package cpu

import "syscall"

// Values of arch_prctl(2): a process must ask for the state of tiles, which is part of a signal's frame.
const (
	archReqXcompPerm = 0x1023
	tileData         = 18 // its number among the XSAVE components
)

// tilesAllowed asks the system to let this process use tiles.
func tilesAllowed() bool {
	_, _, errno := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, archReqXcompPerm, tileData, 0)
	return errno == 0
}
