package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

// Large pages that are off are advised against; other settings are not.
func TestAdvise(t *testing.T) {
	for text, want := range map[string]bool{"always madvise [never]\n": true, "always [madvise] never\n": false, "[always] madvise never\n": false} {
		root := t.TempDir()
		path := filepath.Join(root, "sys", "kernel", "mm", "transparent_hugepage", "enabled")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got := false
		for _, c := range Advise(root) {
			got = got || c.Name == "huge pages"
			if c.Status != Advice || c.Hint == "" {
				t.Errorf("%+v", c)
			}
		}
		if got != want {
			t.Errorf("%q: advice %v, want %v", text, got, want)
		}
	}
}
