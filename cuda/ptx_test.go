package cuda

import (
	"os"
	"strings"
	"testing"
)

// Every module of the table is there for every tier, and says so itself.
func TestPTX(t *testing.T) {
	table, err := os.ReadFile("kernels/modules.txt")
	if err != nil {
		t.Fatal(err)
	}
	modules := 0
	for line := range strings.Lines(string(table)) {
		name, _, _ := strings.Cut(line, " ")
		if name == "" || name == "\n" || name[0] == '#' {
			continue
		}
		modules++
		for _, tier := range []string{"sm_75", "sm_80", "sm_90"} {
			text, err := ptx(name, tier)
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(text), "\n.target "+tier+"\n") {
				t.Errorf("%s for %s: %.60q", name, tier, text)
			}
		}
	}
	if modules == 0 {
		t.Error("the table is empty")
	}
	if _, err := ptx("none", "sm_80"); err == nil || !strings.Contains(err.Error(), "build.sh kernels") {
		t.Errorf("a module that is not there: %v", err)
	}
}
