//go:build unix

// Package sim builds, for tests, the shared libraries that stand in for
// NVIDIA's and Apple's: the software CUDA device, its NVML, drivers that are
// broken in one way, and the software Metal device. A library is built once for its source, flags and compiler, and kept
// in the user's cache folder.
package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// CUDA gives the path of the software CUDA device, for DROVER_CUDA_LIBRARY.
func CUDA(t testing.TB) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the software CUDA device computes with AVX2: it is for amd64 alone")
	}
	return library(t, "cuda", "libcuda.so.1", []string{"-O3", "-march=x86-64-v3"})
}

// Metal gives the path of the software Metal device, libmetalsim.so, which
// compiles the programs that it runs: clang-19 must be there.
func Metal(t testing.TB) string {
	t.Helper()
	if runtime.GOARCH != "amd64" || runtime.GOOS != "linux" {
		t.Skip("the software Metal device is for Linux on amd64 alone")
	}
	if _, err := exec.LookPath("clang++-19"); err != nil {
		if os.Getenv("DROVER_GOLDEN") == "" {
			t.Skip("no clang++-19: the software Metal device is not tested")
		}
		t.Fatalf("no clang++-19 for the software Metal device: ./build.sh deps: %v", err)
	}
	// -Wa,-I: where the assembler finds the headers that the library carries
	return library(t, "metal", "libmetalsim.so", []string{"-O2", "-march=x86-64-v3", "-Wl,-Bsymbolic", "-Wa,-I" + filepath.Join(root(t), "internal", "sim", "metal")})
}

// NVML gives the path of the stand-in for NVML, for DROVER_NVML_LIBRARY, in
// which some functions are missing.
func NVML(t testing.TB, missing ...string) string {
	t.Helper()
	var flags []string
	for _, name := range missing {
		flags = append(flags, "-D"+name+"=missing_"+name)
	}
	return library(t, "nvml", "libnvidia-ml.so.1", flags)
}

// Broken gives the path of a driver that opens and then fails as the
// definitions say: broken/broken.cpp has them.
func Broken(t testing.TB, definitions ...string) string {
	t.Helper()
	var flags []string
	for _, d := range definitions {
		flags = append(flags, "-D"+d)
	}
	return library(t, "broken", "libcuda.so.1", flags)
}

// library builds internal/sim/DIR/*.cpp where that has not been done.
func library(t testing.TB, dir, name string, flags []string) string {
	t.Helper()
	compiler, version := compiler(t)
	flags = append([]string{"-std=c++17", "-fPIC", "-pthread", "-Wall", "-Wextra"}, flags...)
	source := filepath.Join(root(t), "internal", "sim", dir)
	key, err := hash(source, append([]string{compiler, version, name}, flags...))
	if err != nil {
		t.Fatal(err)
	}
	path, err := once(dir+"-"+key, name, func(out string) error { return compile(compiler, source, out, flags) })
	if err != nil {
		t.Fatalf("build internal/sim/%s: %v", dir, err)
	}
	return path
}

// compiler is the C++ compiler, and what it says of its version.
func compiler(t testing.TB) (name, version string) {
	t.Helper()
	name = os.Getenv("CXX")
	if name == "" {
		name = "g++"
	}
	text, err := exec.Command(name, "--version").Output()
	if err != nil {
		if os.Getenv("DROVER_GOLDEN") == "" {
			t.Skipf("no C++ compiler (%s): software devices are not tested", name)
		}
		t.Fatalf("no C++ compiler (%s) to build the software devices with: ./build.sh deps: %v", name, err)
	}
	return name, string(text)
}

// root is the module's folder, at or above the working directory of the test.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			const why = "no go.mod above the working directory: software devices are built from their source"
			if os.Getenv("DROVER_GOLDEN") == "" { // on a card's machine, which has the tests' binary alone
				t.Skip(why)
			}
			t.Fatal(why)
		}
		dir = filepath.Dir(dir)
	}
}

// hash is of what a library depends on: words, and the C++ files of a folder and
// of its include folder.
func hash(dir string, words []string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", words)
	if _, err := os.Stat(dir); err != nil {
		return "", err
	}
	var files []string
	for _, pattern := range []string{"*.cpp", "*.h", filepath.Join("include", "*.h")} {
		some, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		files = append(files, some...)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q\n", filepath.Base(path))
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// once makes CACHE/key/name unless it is there. Other test processes may want
// the same: one makes it, the others wait for its lock.
func once(key, name string, make func(out string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "drover", "sim", key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close() // and with it the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// a build that is cut off leaves no library
	partial := path + ".partial"
	if err := make(partial); err != nil {
		return "", err
	}
	return path, os.Rename(partial, path)
}

// compile builds a folder's C++ files, several at once, into a shared library.
func compile(compiler, dir, out string, flags []string) error {
	sources, err := filepath.Glob(filepath.Join(dir, "*.cpp"))
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("no C++ files in %s", dir)
	}
	scratch, err := os.MkdirTemp("", "drover-sim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	errs := make([]error, len(sources))
	objects := make([]string, len(sources))
	var running sync.WaitGroup
	free := make(chan struct{}, runtime.NumCPU())
	for i, source := range sources {
		objects[i] = filepath.Join(scratch, fmt.Sprintf("%d.o", i))
		running.Go(func() {
			free <- struct{}{}
			errs[i] = command(compiler, slices.Concat(flags, []string{"-c", "-o", objects[i], source}))
			<-free
		})
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return command(compiler, slices.Concat(flags, []string{"-shared", "-o", out}, objects))
}

// command runs a program; the error has what it said.
func command(name string, args []string) error {
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return nil
}
