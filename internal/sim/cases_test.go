//go:build unix

package sim

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// The software CUDA device does what its tests in C++ (cuda/test) want. Each case
// is a process, since the device reads its environment once.
func TestCUDA(t *testing.T) { runCases(t, CUDA(t), "cuda", 50) }

// The software Metal device does what its tests in C++ (metal/test) want.
func TestMetal(t *testing.T) { runCases(t, Metal(t), "metal", 50) }

// runCases runs the cases of DIR/test, at least so many, on a device.
func runCases(t *testing.T, device, dir string, least int) {
	program := testProgram(t, dir)
	list, err := exec.Command(program, "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSpace(string(list)), "\n")
	if len(names) < least {
		t.Errorf("%d cases, some are missing", len(names))
	}
	env := []string{"DROVER_METALSIM_CACHE=" + t.TempDir()}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DROVER_SIM_") && !strings.HasPrefix(v, "CUDA_") && !strings.HasPrefix(v, "DROVER_METALSIM_") {
			env = append(env, v)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(program, device, name)
			cmd.Dir = t.TempDir()
			cmd.Env = append(slices.Clone(env), "TMPDIR="+cmd.Dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// testProgram builds the tests in C++ where that has not been done.
func testProgram(t *testing.T, folder string) string {
	t.Helper()
	compiler, version := compiler(t)
	flags := []string{"-std=c++17", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"}
	if runtime.GOOS == "linux" {
		flags = append(flags, "-ldl")
	}
	dir := filepath.Join(root(t), "internal", "sim", folder, "test")
	key, err := hash(dir, append([]string{compiler, version}, flags...))
	if err != nil {
		t.Fatal(err)
	}
	path, err := once(folder+"-test-"+key, "test", func(out string) error {
		sources, err := filepath.Glob(filepath.Join(dir, "*.cpp"))
		if err != nil {
			return err
		}
		return command(compiler, slices.Concat([]string{"-o", out}, sources, flags))
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}
