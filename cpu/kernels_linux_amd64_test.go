//go:build !noasm

package cpu

import (
	"fmt"
	"os"
	"regexp"
	"testing"
)

// TestProcessor: the processor's maker and family, by which kernels ask for weights ahead, are what the system says.
func TestProcessor(t *testing.T) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	vendor, family := processor()
	for field, got := range map[string]string{"vendor_id": vendor, "cpu family": fmt.Sprint(family)} {
		line := regexp.MustCompile(`(?m)^` + field + `\s*:\s*(.*)$`).FindSubmatch(text)
		if line == nil {
			t.Fatalf("/proc/cpuinfo has no %s", field)
		}
		if got != string(line[1]) {
			t.Errorf("%s %q, the system says %q", field, got, line[1])
		}
	}
}
