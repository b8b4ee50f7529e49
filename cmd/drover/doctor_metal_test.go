//go:build linux && amd64

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/sim"
)

// metalProgram makes command run the build with the Metal backend, and gives its
// environment.
func metalProgram(t *testing.T) []string {
	t.Helper()
	library := sim.Metal(t)
	program := filepath.Join(t.TempDir(), "drover")
	build := exec.Command("go", "build", "-tags", "metalsim", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	t.Setenv("DROVER_TEST_BINARY", program)
	return []string{"DROVER_METAL_LIBRARY=" + library}
}

// The build with the Metal backend finds its GPU right, a GPU that is lost, full or
// too old wrong, and CUDA absent.
func TestDoctorMetal(t *testing.T) {
	env := metalProgram(t)
	for _, c := range []struct {
		set  string
		args string
		exit int
		want []string
	}{
		{"ORDER=0", "", 0, []string{"PASS    metal   Software Metal device, apple8", "absent  cuda    this build has no CUDA backend", "CGO_ENABLED=1", "PASS    cpu "}},
		{"FAIL=30=11", "--device metal", 6, []string{"FAIL    metal   ", "device lost", "restart the Mac"}},
		{"MEMORY=4MiB", "--device metal", 6, []string{"FAIL    metal   memory: metal: needs 9.0 MiB and 4.0 MiB are free"}},
		{"FAMILY=apple6", "--device metal", 4, []string{"FAIL    metal   metal is not available: Software Metal device is not an Apple GPU", "--device cpu"}},
		{"FAMILY=apple6", "", 6, []string{"FAIL    metal   Software Metal device is not an Apple GPU", "PASS    cpu "}},
	} {
		r := command(t, "", append(env, "DROVER_METALSIM_"+c.set), append([]string{"doctor"}, strings.Fields(c.args)...)...)
		for _, want := range c.want {
			if r.exit != c.exit || !strings.Contains(r.out, want) {
				t.Errorf("%s %s: exit %d, %q, %q; want %d and %q", c.set, c.args, r.exit, r.out, r.errout, c.exit, want)
			}
		}
	}
	r := command(t, "", []string{"DROVER_METAL_LIBRARY=/nonexistent/libmetalsim.so"}, "doctor", "--device", "metal", "--json")
	if failed, _ := r.object(t)["error"].(map[string]any); r.exit != 4 || !strings.Contains(fmt.Sprint(failed["hint"]), "DROVER_METAL_LIBRARY") {
		t.Errorf("without the library: exit %d, %v", r.exit, failed)
	}
}

// bench measures the software GPU by itself, the CPU, and what the scheduler chooses
// of both.
func TestBenchMetal(t *testing.T) {
	r := command(t, "", metalProgram(t), append(benchArgs, "-m", "synthetic:dim=64,layers=2,heads=2,kv=1,ffn=96,vocab=512", "--device", "all", "--json")...)
	if r.exit != 0 {
		t.Fatalf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	var sets []string
	for _, one := range r.object(t)["records"].([]any) {
		doc := one.(map[string]any)
		sets = append(sets, fmt.Sprint(doc["device_set"], " ", doc["backends"], " ", doc["simulated"]))
	}
	if want := []string{"metal metal true", "metal metal true", "cpu cpu false", "cpu cpu false"}; len(sets) != 6 || !slices.Equal(sets[:4], want) || !strings.HasPrefix(sets[4], "auto ") {
		t.Errorf("%q, want %q and auto twice", sets, want)
	}
}
