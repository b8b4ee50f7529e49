package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checksOf are the checks of one device in doctor's JSON.
func (r result) checksOf(t *testing.T, device string) (checks []map[string]any) {
	t.Helper()
	all, _ := r.object(t)["checks"].([]any)
	for _, c := range all {
		if c := c.(map[string]any); c["device"] == device {
			checks = append(checks, c)
		}
	}
	return checks
}

// The CPU is right with every kernel set, and what is absent does not fail.
func TestDoctor(t *testing.T) {
	r := command(t, "", nil, "doctor")
	for _, want := range []string{"\nPASS    cpu     ", "absent  cuda    there is no file /nonexistent/libcuda.so.1", "absent  metal   this build", "memory written and read back", "F16 Q8_0 Q4_0 Q4_K Q6_K"} {
		if r.exit != 0 || !strings.Contains(r.out, want) || strings.Contains(r.out, "\x1b") || r.errout != "" {
			t.Errorf("exit %d, %q, %q: no %q", r.exit, r.out, r.errout, want)
		}
	}
	for _, isa := range []string{"", "generic"} {
		r = command(t, "", []string{"DROVER_CPU=" + isa}, "doctor", "--device", "cpu", "--json")
		checks := r.checksOf(t, "cpu")
		if r.exit != 0 || r.object(t)["ok"] != true || len(checks) < 12 {
			t.Fatalf("%s: exit %d, %s", isa, r.exit, r.out)
		}
		for _, c := range checks {
			if c["ok"] != true || c["kind"] != "cpu" || c["detail"] == "" {
				t.Errorf("%s: %v", isa, c)
			}
		}
		nmse, _ := checks[3]["nmse"].(float64)
		if checks[3]["check"] != "decode F16" || checks[3]["status"] != "pass" || nmse <= 0 || nmse > 1e-7 {
			t.Errorf("%s: %v", isa, checks[3])
		}
	}
}

// What is named and not here ends with status 4, kernels of another CPU too; the
// rest is checked all the same.
func TestDoctorNamed(t *testing.T) {
	other := "neon"
	if r := command(t, "", []string{"DROVER_CPU=neon"}, "devices"); r.exit == 0 {
		other = "avx512"
	}
	for _, c := range []struct {
		args   []string
		env    string
		device string // that fails
		passes bool   // the CPU
		hint   string
	}{
		{[]string{"--device", "cuda"}, "", "cuda", false, "DROVER_CUDA_LIBRARY"},
		{[]string{"--device", "cuda:1,cpu"}, "", "cuda:1", true, "DROVER_CUDA_LIBRARY"},
		{[]string{"--device", "metal"}, "", "metal", false, "darwin/arm64"},
		{[]string{"--device", "metal,cuda,cpu"}, "", "metal", true, "darwin/arm64"},
		{nil, "DROVER_CPU=" + other, "cpu", false, "unset DROVER_CPU"},
		{[]string{"--device", "cpu"}, "DROVER_CPU=" + other, "cpu", false, "unset DROVER_CPU"},
	} {
		r := command(t, "", []string{c.env}, append([]string{"doctor", "--json"}, c.args...)...)
		doc := r.object(t)
		failed, _ := doc["error"].(map[string]any)
		if r.exit != 4 || failed["code"] != "device" || failed["device"] != c.device || !strings.Contains(fmt.Sprint(failed["hint"]), c.hint) || doc["ok"] != false {
			t.Errorf("%q %s: exit %d, %v; want 4, %s, %q", c.args, c.env, r.exit, failed, c.device, c.hint)
		}
		if checks := r.checksOf(t, c.device); len(checks) != 1 || checks[0]["status"] != "fail" || checks[0]["ok"] != false {
			t.Errorf("%q: %v", c.args, checks)
		}
		if got := len(r.checksOf(t, "cpu")) > 10; got != c.passes {
			t.Errorf("%q: CPU checked %v, want %v", c.args, got, c.passes)
		}
		r = command(t, "", []string{c.env}, append([]string{"doctor"}, c.args...)...)
		if r.exit != 4 || !strings.Contains(r.out, "FAIL    "+c.device+" ") || !strings.Contains(r.out, c.hint) || !strings.Contains(r.errout, "drover: checks failed: "+c.device) {
			t.Errorf("%q: exit %d, %q, %q", c.args, r.exit, r.out, r.errout)
		}
	}
}

// A model that is not there is told with what could be named instead.
func TestModelHints(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("story-%d.gguf", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for spec, want := range map[string][]string{
		filepath.Join(dir, "stroy.gguf"):        {"no such model file", "story-0.gguf", "and 2 more"},
		dir:                                     {"directory", "story-7.gguf"},
		t.TempDir():                             {"directory", "this folder has none"},
		filepath.Join(dir, "none", "some.gguf"): {"no such model file", "synthetic:llama-7b:Q4_0"},
		"llama-7b:Q8_0":                         {"no such model file", "-m synthetic:llama-7b:Q8_0"},
	} {
		for _, args := range [][]string{{"run", "x", "-m", spec}, {"tokenize", "x", "-m", spec}, {"inspect", spec}} {
			r := command(t, "", nil, args...)
			for _, w := range want {
				if r.exit != 3 || !strings.Contains(strings.Replace(r.errout, "no such file or directory", "no such model file", 1), w) {
					t.Errorf("%q: exit %d, %q has no %q", args, r.exit, r.errout, w)
				}
			}
		}
	}
}
