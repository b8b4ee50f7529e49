package model

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"drover/backend"
)

// golden is the folder of reference data.
func golden(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("DROVER_GOLDEN")
	if dir == "" {
		t.Skip("DROVER_GOLDEN names no folder: reference files are not read")
	}
	return dir
}

// glob lists files and fails where there are none.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files %s (%v)", pattern, err)
	}
	return paths
}

// TestGoldenModels opens every model of the table in the data's README and
// compares what it says: bytes, dimensions, tensors of each format.
func TestGoldenModels(t *testing.T) {
	dir := golden(t)
	readme, err := os.Open(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer readme.Close()
	line := regexp.MustCompile(`^\| (\S+\.gguf) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+)/(\d+) \| (\d+) \| (\d+) \| (\d+) \| (.*) \| (.*) \|$`)
	models := 0
	for lines := bufio.NewScanner(readme); lines.Scan(); {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		models++
		t.Run(m[1], func(t *testing.T) {
			f, err := Open(filepath.Join(dir, "models", m[1]))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			c := f.Model.Config
			got := fmt.Sprint(f.Meta.Size, c.Dim, c.Layers, c.FFN, c.Heads, c.KVHeads, c.HeadDim, c.Vocab, c.Rope.Base)
			if want := strings.Join(m[2:11], " "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if tied := f.Model.Output == f.Model.Embed; tied != strings.Contains(m[11], "tied") {
				t.Errorf("tied is %t", tied)
			}
			counts := map[string]int{}
			for _, x := range f.Model.Tensors(backend.Range{Lo: 0, Hi: c.Blocks()}) {
				counts[x.Type.String()]++
			}
			if f.Model.Output == f.Model.Embed {
				counts[f.Model.Embed.Type.String()]--
			}
			for _, pair := range strings.Fields(m[12]) {
				name, n, _ := strings.Cut(pair, ":")
				if want, _ := strconv.Atoi(n); counts[name] != want {
					t.Errorf("%d tensors are %s, want %d", counts[name], name, want)
				}
			}
			if v := f.Vocab(); len(v.Tokens) != c.Vocab || v.Model != "llama" || v.BOS != 1 {
				t.Errorf("%d tokens of %s, BOS %d", len(v.Tokens), v.Model, v.BOS)
			}
			name := strings.ToLower(f.TypeName)
			if !strings.HasSuffix(m[1], "-"+name+".gguf") {
				t.Errorf("file type %s", f.TypeName)
			}
		})
	}
	if models == 0 {
		t.Error("the README lists no models")
	}
}

// TestGoldenRobustness: bad files are refused cheaply, the others open.
func TestGoldenRobustness(t *testing.T) {
	for _, path := range glob(t, filepath.Join(golden(t), "gguf_robustness", "*.gguf")) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f, err := Open(path)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%s: took %d bytes", filepath.Base(path), n)
		}
		if ok := strings.HasPrefix(filepath.Base(path), "ok-"); ok != (err == nil) || !ok && !errors.Is(err, ErrBad) {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
		t.Log(filepath.Base(path), err)
		if f != nil {
			f.Close()
		}
	}
}

// TestGoldenVocab: files without tensors open for their vocabulary.
func TestGoldenVocab(t *testing.T) {
	sizes := map[string]int{"gpt-2": 50257, "llama-spm": 32000, "llama-bpe": 128256, "qwen2": 151936}
	dir := golden(t)
	for name, want := range sizes {
		path := filepath.Join(dir, "vocab", "ggml-vocab-"+name+".gguf")
		if _, err := os.Stat(path); err != nil {
			path = unzip(t, path+".gz")
		}
		f, err := OpenVocab(path)
		if err != nil {
			t.Error(err)
			continue
		}
		v := f.Vocab()
		if len(v.Tokens) != want || (v.Model == "gpt2") != (len(v.Merges) > 0) {
			t.Errorf("%s: %d tokens of %s, %d merges", name, len(v.Tokens), v.Model, len(v.Merges))
		}
		f.Close()
		if _, err := Open(path); !errors.Is(err, ErrBad) {
			t.Errorf("%s as a model: %v", name, err)
		}
	}
}

func unzip(t *testing.T, path string) string {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "vocab.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, z); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// TestGoldenWrite: a file that llama.cpp wrote, written by us, is the same.
func TestGoldenWrite(t *testing.T) {
	dir := golden(t)
	for _, name := range []string{"s260k-ff192-q4_0.gguf", "rnd-gqa256-q4_k_m.gguf", "s260k-bf16.gguf"} {
		from, to := filepath.Join(dir, "models", name), filepath.Join(t.TempDir(), name)
		f, err := Open(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(f, to, nil); err != nil {
			t.Fatal(err)
		}
		f.Close()
		a, _ := os.ReadFile(from)
		b, _ := os.ReadFile(to)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes became %d, or differ", name, len(a), len(b))
		}
	}
}
