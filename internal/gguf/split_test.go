package gguf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// splitSet writes n files with one tensor each, and one more in the last.
func splitSet(t *testing.T, dir string, n int, edit func(i int, meta []Entry) []Entry) string {
	t.Helper()
	for i := range n {
		meta := []Entry{{"split.no", Of(uint16(i))}, {"split.count", Of(uint16(n))}, {"split.tensors.count", Of(int32(n + 1))}}
		if i == 0 {
			meta = append(meta, Entry{"general.architecture", Of("llama")})
		}
		tensors := []Info{{fmt.Sprintf("t%d", i), 0, []uint64{uint64(i) + 1}}}
		if i == n-1 {
			tensors = append(tensors, Info{"last", 1, []uint64{3}})
		}
		if edit != nil {
			meta = edit(i, meta)
		}
		write(t, filepath.Join(dir, "m"+splitSuffix(i, n)), build(t, meta, tensors))
	}
	return filepath.Join(dir, "m"+splitSuffix(0, n))
}

func TestSplit(t *testing.T) {
	first := splitSet(t, t.TempDir(), 3, nil)
	f, err := Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Parts != 3 || len(f.Tensors()) != 4 {
		t.Fatalf("%d parts, %d tensors; want 3, 4", f.Parts, len(f.Tensors()))
	}
	for i := range 3 {
		x := f.Tensor(fmt.Sprintf("t%d", i))
		if x == nil || len(x.Data()) != 4*(i+1) || x.Data()[0] != 1 {
			t.Errorf("tensor %d: %+v", i, x)
		}
	}
	if x := f.Tensor("last"); x == nil || x.Data()[0] != 2 {
		t.Errorf("last tensor: %+v", x)
	}
	if arch, err := f.Text("general.architecture"); arch != "llama" {
		t.Errorf("architecture %q, %v", arch, err)
	}
}

func TestSplitRefuses(t *testing.T) {
	set := func(i int, key string, v Value) func(int, []Entry) []Entry {
		return func(j int, meta []Entry) []Entry {
			for k := range meta {
				if i == j && meta[k].Key == key {
					meta[k].Value = v
				}
			}
			return meta
		}
	}
	for name, c := range map[string]struct {
		edit func(int, []Entry) []Entry
		want string
	}{
		"tensor count":       {set(0, "split.tensors.count", Of(int32(9))), "split.tensors.count is 9"},
		"negative count":     {set(0, "split.tensors.count", Of(int32(-1))), "split.tensors.count"},
		"number":             {set(1, "split.no", Of(uint16(2))), "file 2 of 3"},
		"count of one":       {set(2, "split.count", Of(uint16(4))), "file 3 of 3"},
		"count too large":    {set(0, "split.count", Of(uint32(1<<31))), "at most"},
		"count against name": {set(0, "split.count", Of(uint16(4))), "-00001-of-00004.gguf"},
		"number of text":     {set(0, "split.no", Of("0")), "split.no"},
	} {
		f, err := Open(splitSet(t, t.TempDir(), 3, c.edit))
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) || f != nil {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func TestSplitOtherPart(t *testing.T) {
	dir := t.TempDir()
	splitSet(t, dir, 3, nil)
	_, err := Open(filepath.Join(dir, "m"+splitSuffix(1, 3)))
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "m-00001-of-00003.gguf") {
		t.Errorf("second part: got %v, want the first one's name", err)
	}
	other := filepath.Join(dir, "renamed.gguf")
	if err := os.Rename(filepath.Join(dir, "m"+splitSuffix(1, 3)), other); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "-00001-of-00003.gguf") {
		t.Errorf("renamed part: %v", err)
	}
	_, err = Open(filepath.Join(dir, "m"+splitSuffix(0, 3)))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "file 2 of 3") {
		t.Errorf("part that is not there: %v", err)
	}
}
