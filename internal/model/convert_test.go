package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"drover/backend"
	"drover/internal/gguf"
)

// files lists a folder.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestWrite: what is written opens as the same model, and written again is the
// same bytes.
func TestWrite(t *testing.T) {
	for _, spec := range []string{
		tiny, tinyMoE,
		"dim=256,layers=9,heads=4,kv=2,ffn=512,vocab=400:Q4_K_M:5",
		"dim=256,layers=9,heads=4,kv=2,ffn=512,vocab=400:Q5_K_M:5",
		"dim=60,layers=1,heads=2,head_dim=12,ffn=44,vocab=300:F32",
	} {
		dir := t.TempDir()
		f, err := Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		one, two := filepath.Join(dir, "one.gguf"), filepath.Join(dir, "two.gguf")
		var last, total uint64
		err = Write(f, one, func(done, all uint64) {
			if done <= last || all != total && total != 0 {
				t.Errorf("progress went from %d of %d to %d of %d", last, total, done, all)
			}
			last, total = done, all
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != total || total != f.Bytes {
			t.Errorf("progress ended at %d of %d, the weights are %d", last, total, f.Bytes)
		}
		g, err := Open(one)
		if err != nil {
			t.Fatal(err)
		}
		want := *f.Model
		want.Config.Name = g.Model.Config.Name
		sameModel(t, g.Model, &want)
		if g.TypeName != f.TypeName || !reflect.DeepEqual(g.Vocab(), f.Vocab()) || g.Model.Config.Name != "synthetic model" {
			t.Errorf("%s: %s, vocabularies equal: %t", spec, g.TypeName, reflect.DeepEqual(g.Vocab(), f.Vocab()))
		}
		if err := Write(g, two, nil); err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(one)
		b, _ := os.ReadFile(two)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: a file that was written again differs", spec)
		}
		if got := files(t, dir); len(got) != 2 {
			t.Errorf("files left: %q", got)
		}
		if err := Write(g, one, nil); err != nil { // onto itself
			t.Error(err)
		}
		g.Close()
		if c, _ := os.ReadFile(one); !bytes.Equal(a, c) {
			t.Error("a file written onto itself differs")
		}
	}
}

// TestWriteShapes: what only some models have comes back.
func TestWriteShapes(t *testing.T) {
	small := func(name string) *File {
		for _, s := range shapes() {
			if s.name == name {
				s.dim, s.layers, s.heads, s.kv, s.headDim, s.ffn, s.vocab = 64, 2, 4, 2, 0, 96, 300
				c := s.config()
				sp := &spec{text: name, shape: s, mix: mix{name: "Q8_0", base: 8}}
				m, err := assemble(&c, &random{spec: sp, config: &c})
				if err != nil {
					t.Fatal(err)
				}
				f := &File{Model: m, spec: sp}
				f.vocab = draftOf(t, tiny).open().vocab
				return f
			}
		}
		t.Fatalf("no shape %s", name)
		return nil
	}
	for _, s := range shapes() {
		f := small(s.name)
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := Write(f, path, nil); err != nil {
			t.Fatal(err)
		}
		g, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sameModel(t, g.Model, f.Model)
		if (g.Model.Output == g.Model.Embed) != s.tied {
			t.Errorf("%s: tied is %t", s.name, !s.tied)
		}
		g.Close()
	}
}

// TestWriteSplit: a split set becomes one file, version 2 version 3.
func TestWriteSplit(t *testing.T) {
	dir := t.TempDir()
	want, err := Open("synthetic:" + tiny)
	if err != nil {
		t.Fatal(err)
	}
	d := draftOf(t, tiny)
	n := len(d.items)
	for i := range 2 {
		part := &draft{t, append(d.meta[:len(d.meta):len(d.meta)], gguf.Entry{Key: "split.no", Value: gguf.Of(uint16(i))},
			gguf.Entry{Key: "split.count", Value: gguf.Of(uint16(2))}, gguf.Entry{Key: "split.tensors.count", Value: gguf.Of(int32(n))}), d.items[i*n/2 : (i+1)*n/2]}
		b := part.bytes()
		b[4] = 2
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("m-%05d-of-00002.gguf", i+1)), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(filepath.Join(dir, "m-00001-of-00002.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sameModel(t, f.Model, want.Model)
	out := filepath.Join(dir, "one.gguf")
	if err := Write(f, out, nil); err != nil {
		t.Fatal(err)
	}
	g, err := Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	sameModel(t, g.Model, want.Model)
	if g.Meta.Parts != 1 || g.Meta.Version != 3 {
		t.Errorf("%d parts, version %d", g.Meta.Parts, g.Meta.Version)
	}
	if _, err := g.Meta.Value("split.count"); err {
		t.Error("the one file says that it is split")
	}
	_, err = Open(filepath.Join(dir, "m-00002-of-00002.gguf"))
	if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), "m-00001-of-00002.gguf") {
		t.Errorf("second part: %v", err)
	}
}

// broken is a source that fails.
type broken struct{ backend.Source }

var errBroken = errors.New("broken")

func (broken) Rows([]byte, int, int) error { return errBroken }

// TestWriteFails: nothing half-written stays, and what was there stays.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	if err := os.WriteFile(path, []byte("before"), 0o666); err != nil {
		t.Fatal(err)
	}
	check := func(name string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		if b, _ := os.ReadFile(path); string(b) != "before" || len(files(t, dir)) != 1 {
			t.Errorf("%s: left %q and %q", name, files(t, dir), b)
		}
	}
	f, err := Open("synthetic:" + tiny)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	check("cancelled", WriteContext(ctx, f, path, func(done, _ uint64) { cancel() }), context.Canceled)
	v := f.Model.Layers[1].V
	v.Source = broken{v.Source}
	check("source", Write(f, path, nil), errBroken)
	if err := Write(f, dir, nil); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("onto a folder: %v", err)
	}
	if err := Write(f, filepath.Join(dir, "absent", "m.gguf"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("into no folder: %v", err)
	}
}

// full is a disk with room for n bytes.
type full struct{ n int64 }

func (f *full) WriteAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > f.n {
		return 0, &os.PathError{Op: "write", Path: "m", Err: syscall.ENOSPC}
	}
	return len(b), nil
}

func TestWriteDiskFull(t *testing.T) {
	f, err := Open("synthetic:" + tiny)
	if err != nil {
		t.Fatal(err)
	}
	items := f.items()
	var infos []gguf.Info
	for _, it := range items {
		infos = append(infos, it.info)
	}
	l, err := gguf.NewLayout(f.Metadata(), infos)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, int64(len(l.Header)), int64(l.Size) / 2} {
		if err := writeTensors(context.Background(), &full{n}, l, items, nil); !diskFull(err) {
			t.Errorf("disk of %d bytes for a file of %d: %v", n, l.Size, err)
		}
	}
	if err := writeTensors(context.Background(), &full{int64(l.Size)}, l, items, nil); err != nil || diskFull(io.ErrShortWrite) {
		t.Errorf("disk of %d bytes: %v", l.Size, err)
	}
}
