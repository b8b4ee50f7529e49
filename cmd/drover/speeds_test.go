package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// kept is the one file of the rates of a state folder.
func kept(t *testing.T, state string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(state, "drover", "rates", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: want one file of rates", files, err)
	}
	return files[0]
}

// A prediction is null until the device was measured, then it is there without
// measuring again. `devices --measure` measures anew.
func TestPredictedOnceMeasured(t *testing.T) {
	state := t.TempDir()
	env := []string{"XDG_STATE_HOME=" + state}
	plan := func() map[string]any {
		r := command(t, "", env, "run", "--json", "Once", "-n", "4", "--temp", "0")
		if r.exit != 0 || strings.Contains(r.errout, "measuring") {
			t.Fatalf("exit %d, %q", r.exit, r.errout)
		}
		return r.object(t)["plan"].(map[string]any)
	}
	stage := func(p map[string]any) map[string]any { return p["stages"].([]any)[0].(map[string]any) }
	if p := plan(); p["predicted_tokens_per_s"] != nil || stage(p)["predicted_ms"] != nil {
		t.Errorf("before: %v", p)
	}
	if r := command(t, "", env, "run", "Once", "-n", "4", "--verbose"); r.exit != 0 || strings.Count(r.errout, "cpu: measuring") != 1 {
		t.Errorf("--verbose: exit %d, %q", r.exit, r.errout)
	}
	if p := plan(); p["predicted_tokens_per_s"] == nil || stage(p)["predicted_ms"] == nil {
		t.Errorf("after: %v", p)
	}
	if r := command(t, "", env, "plan", "-m", "synthetic:llama3.2-1b"); r.exit != 0 || r.errout != "" {
		t.Errorf("plan measures again: exit %d, %q", r.exit, r.errout)
	}
	// what was measured counts, right or wrong
	file := kept(t, state)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	doc["rates"].(map[string]any)["read_bytes_per_s"] = 1e6
	if text, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	slow, _ := plan()["predicted_tokens_per_s"].(float64)
	if r := command(t, "", env, "devices", "--measure"); r.exit != 0 || r.errout != "" {
		t.Errorf("exit %d, %q", r.exit, r.errout)
	}
	if fresh, _ := plan()["predicted_tokens_per_s"].(float64); !(slow > 0 && slow < 10 && fresh > 10*slow) {
		t.Errorf("at 1 MB/s %v tokens/s, measured anew %v", slow, fresh)
	}
}

// Rates that are damaged or cannot be kept are no reason to stop: --verbose says so,
// once.
func TestRatesUnusable(t *testing.T) {
	state := t.TempDir()
	if r := command(t, "", []string{"XDG_STATE_HOME=" + state}, "devices", "--measure"); r.exit != 0 {
		t.Fatal(r.errout)
	}
	file := kept(t, state)
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{state: "are damaged", file: "not a directory"} {
		env := []string{"XDG_STATE_HOME=" + path}
		quiet := command(t, "", env, "run", "Once", "-n", "2")
		if quiet.exit != 0 || strings.Contains(quiet.errout, "kept") {
			t.Errorf("exit %d, %q", quiet.exit, quiet.errout)
		}
		loud := command(t, "", env, "run", "Once", "-n", "2", "--verbose")
		if loud.exit != 0 || strings.Count(loud.errout, "measured speeds are not kept: ") != 1 || !strings.Contains(loud.errout, want) {
			t.Errorf("exit %d, no %q once in %q", loud.exit, want, loud.errout)
		}
	}
	if r := command(t, "", []string{"XDG_STATE_HOME=" + state}, "plan", "-m", "synthetic:llama3.2-1b"); r.exit != 0 || r.errout != "" {
		t.Errorf("what was measured after the damage is not kept: exit %d, %q", r.exit, r.errout)
	}
}

// A run corrects the speed that the next one is predicted with, a part of the way;
// one that is too short does not.
func TestLearnsFromRuns(t *testing.T) {
	const model = "synthetic:dim=2048,layers=1,heads=16,ffn=8192,vocab=320:F32" // 270 MB a token
	state := t.TempDir()
	env := []string{"XDG_STATE_HOME=" + state}
	speed := func() float64 {
		text, err := os.ReadFile(kept(t, state))
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Speed map[string]float64 }
		if err := json.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		return doc.Speed["F32"]
	}
	run := func(n string) map[string]any {
		t.Helper()
		r := command(t, "", env, "run", "--json", "-m", model, "--tokens", "1,2", "-n", n, "--temp", "0", "-c", "128", "--ignore-eos")
		if r.exit != 0 {
			t.Fatalf("exit %d, %s", r.exit, r.out)
		}
		return r.object(t)
	}
	if r := command(t, "", env, "devices", "--measure"); r.exit != 0 {
		t.Fatal(r.errout)
	}
	before := run("32")["plan"].(map[string]any)["predicted_tokens_per_s"].(float64) // 31 steps
	if got := speed(); got != 0 {
		t.Errorf("learnt %v from 31 tokens", got)
	}
	doc := run("33")
	measured := doc["timings"].(map[string]any)["decode_tokens_per_s"].(float64)
	first := speed()
	// the run's own prediction is of its own position, a little off from the plan's
	if want := math.Pow(min(max(measured/before, 0.5), 2), 0.25); math.Abs(first/want-1) > 0.02 {
		t.Errorf("predicted %v tokens/s, measured %v: speed %v, want about %v", before, measured, first, want)
	}
	after := run("2")["plan"].(map[string]any)["predicted_tokens_per_s"].(float64)
	if math.Abs(after/before/first-1) > 0.02 {
		t.Errorf("predicted %v tokens/s, then %v: want the speed %v in it", before, after, first)
	}
}
