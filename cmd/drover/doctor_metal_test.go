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

// withMetal builds the program with the Metal backend, for this test, and gives the
// environment of its software device.
func withMetal(t *testing.T) []string {
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
	env := withMetal(t)
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
	r := command(t, "", withMetal(t), append(benchArgs, "-m", "synthetic:dim=64,layers=2,heads=2,kv=1,ffn=96,vocab=512", "--device", "all", "--json")...)
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

// The Metal backend is right in formats whose kernels share little.
func TestVerifyMetal(t *testing.T) {
	env := withMetal(t)
	for _, args := range []string{":Q4_0", ":Q6_K -ctk q8_0 -ctv q8_0", ":F16", ",experts=4:Q4_K"} {
		fields := strings.Fields(args)
		r := command(t, "", env, append([]string{"verify", "--device", "metal", "-m", "synthetic:dim=256,layers=2,heads=4,kv=2,ffn=256,vocab=331" + fields[0]}, fields[1:]...)...)
		if r.exit != 0 || !strings.Contains(r.out, "pass  layer 1 feed-forward     metal ") {
			t.Errorf("%s: exit %d, %s%s", args, r.exit, r.out, r.errout)
		}
	}
}
