//go:build unix

package sim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Of many who want a library at once, one makes it; a failure leaves none.
func TestOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir()) // where the cache is on a Mac
	fails := errors.New("no room")
	if path, err := once("key", "lib.so", func(out string) error {
		return errors.Join(os.WriteFile(out, []byte("half"), 0o644), fails)
	}); !errors.Is(err, fails) {
		t.Fatalf("got %s, %v", path, err)
	}
	var made atomic.Int32
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			path, err := once("key", "lib.so", func(out string) error {
				made.Add(1)
				return os.WriteFile(out, []byte("whole"), 0o644)
			})
			if err != nil {
				t.Error(err)
			} else if content, err := os.ReadFile(path); string(content) != "whole" || err != nil {
				t.Errorf("got %q, %v", content, err)
			}
		})
	}
	running.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times, want once", made.Load())
	}
}

// A library's name follows its source and its flags.
func TestHash(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	differs := func(what string, words ...string) {
		key, err := hash(dir, words)
		if err != nil || seen[key] != "" {
			t.Errorf("%s: %s as with %q, %v", what, key, seen[key], err)
		}
		seen[key] = what
	}
	write("a.cpp", "int a;")
	differs("one file", "-O3")
	differs("other flags", "-O2")
	write("a.h", "int b;")
	differs("a header", "-O3")
	write("a.h", "int c;")
	differs("another header", "-O3")
	write("README", "of no account")
	if key, err := hash(dir, []string{"-O3"}); err != nil || seen[key] != "another header" {
		t.Errorf("a text changes the key: %s, %v", key, err)
	}
}

func TestCompileError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.cpp"), []byte("#error of this test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	NVML(t) // fails or skips where there is no compiler
	err := compile("c++", dir, filepath.Join(dir, "lib.so"), nil)
	if err == nil || !strings.Contains(err.Error(), "of this test") {
		t.Errorf("got %v, want the compiler's words", err)
	}
}
