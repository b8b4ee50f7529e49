//go:build unix

package model

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestShrunkFile reads a tensor of a file that became shorter after it was
// opened: an error, not a crash.
func TestShrunkFile(t *testing.T) {
	made, err := Open("synthetic:dim=64,layers=2,heads=2,ffn=64,vocab=300:F32")
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := Write(made, path, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	out := f.Model.Layers[1].Down
	if err := out.Source.Rows(make([]byte, out.Bytes()), 0, out.Rows); !errors.Is(err, ErrBad) {
		t.Errorf("reading behind the end of the file: %v", err)
	}
}
