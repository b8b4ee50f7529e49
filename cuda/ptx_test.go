package cuda

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Every module of the table is there for its tiers, and says so itself.
func TestPTX(t *testing.T) {
	table, err := os.ReadFile("kernels/modules.txt")
	if err != nil {
		t.Fatal(err)
	}
	modules := 0
	for line := range strings.Lines(string(table)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		modules++
		tiers := slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !strings.HasPrefix(word, "sm_") })
		if len(tiers) == 0 {
			tiers = []string{"sm_75", "sm_80", "sm_90"}
		}
		for _, tier := range tiers {
			text, err := ptx(words[0], tier)
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(text), "\n.target "+tier+"\n") {
				t.Errorf("%s for %s: %.60q", words[0], tier, text)
			}
		}
	}
	if modules == 0 {
		t.Error("the table is empty")
	}
	if text, err := ptx("ops", "sm_90a"); err != nil || !strings.Contains(string(text), "\n.target sm_90\n") {
		t.Errorf("ops for sm_90a: %v, %.60q", err, text)
	}
	if _, err := ptx("none", "sm_80"); err == nil || !strings.Contains(err.Error(), "build.sh kernels") {
		t.Errorf("a module that is not there: %v", err)
	}
}
