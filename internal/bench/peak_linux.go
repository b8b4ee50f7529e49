package bench

import (
	"os"
	"strconv"
	"strings"
)

// resetPeak starts the measurement of peak memory anew (proc(5), clear_refs),
// and says whether the system permits that.
func resetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

// readPeak is the most memory the process held at once, in bytes, mapped files
// included.
func readPeak() (uint64, bool) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 54)
			return kib << 10, err == nil
		}
	}
	return 0, false
}
