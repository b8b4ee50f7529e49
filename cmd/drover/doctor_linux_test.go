package main

import (
	"strings"
	"testing"
)

// Verdicts are coloured on a terminal that can, unless NO_COLOR is set.
func TestDoctorColours(t *testing.T) {
	for _, c := range []struct {
		noColor, term string
		coloured      bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		master, cmd := terminal(t, "doctor", "--device", "cpu", "--threads", "1")
		seen := until(t, master, "decode right in F16")
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(seen, "\x1b[32mPASS  \x1b[0m  cpu"); got != c.coloured || !c.coloured && strings.Contains(seen, "\x1b") {
			t.Errorf("NO_COLOR=%q TERM=%s: %q", c.noColor, c.term, seen)
		}
	}
}
