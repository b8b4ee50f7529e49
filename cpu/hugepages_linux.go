package cpu

import "syscall"

// hugePages asks for large pages; without them nothing is lost but speed.
func hugePages(b []byte) {
	const madvHugepage = 14
	_ = syscall.Madvise(b, madvHugepage)
}
