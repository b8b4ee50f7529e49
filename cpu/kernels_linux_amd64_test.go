//go:build !noasm

package cpu

import (
	"os"
	"regexp"
	"testing"
)

// TestVendor: the processor's maker, by which kernels ask for weights ahead, is who
// the system says.
func TestVendor(t *testing.T) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^vendor_id\s*:\s*(.*)$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("/proc/cpuinfo names no vendor")
	}
	if got := vendor(); got != string(line[1]) {
		t.Errorf("vendor %q, the system says %q", got, line[1])
	}
}
