package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Advise tells of settings of the system below root ("/") that cost speed and
// break nothing.
func Advise(root string) []Check {
	var all []Check
	add := func(name, detail, hint string) {
		all = append(all, Check{Device: "cpu", Kind: "cpu", Name: name, Status: Advice, Detail: detail, Hint: hint})
	}
	huge, err := os.ReadFile(filepath.Join(root, "sys", "kernel", "mm", "transparent_hugepage", "enabled"))
	if err == nil && strings.Contains(string(huge), "[never]") {
		add("huge pages", "large pages of memory are off: weights are read a little more slowly", "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
	}
	const limitMemlock, usual = 8, 64 << 20 // RLIMIT_MEMLOCK; what a desktop allows is an eighth of its memory
	var l syscall.Rlimit
	if err := syscall.Getrlimit(limitMemlock, &l); err == nil && l.Cur < usual {
		add("locked pages", fmt.Sprintf("%.1f MiB may be locked in memory: --mlock will not do", float64(l.Cur)/(1<<20)), "ulimit -l unlimited, or memlock in /etc/security/limits.conf; in a container --ulimit memlock=-1")
	}
	return all
}
