//go:build linux && cgo

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/sim"
)

const cudaModel = "synthetic:dim=256,layers=4,heads=4,kv=2,ffn=512,vocab=320"

// simulatedCards are n equal cards.
func simulatedCards(t *testing.T, n int, memory string) []string {
	card := "name=Sim,cc=8.0,mem=" + memory
	return []string{"DROVER_CUDA_LIBRARY=" + sim.CUDA(t), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1", "DROVER_SIM_CUDA=" + strings.Repeat(card+";", n-1) + card}
}

// logitsOn gives the logits of a prompt and of rows after it, as bytes.
func logitsOn(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "logits")
	var ids []string
	for i := range 40 {
		ids = append(ids, fmt.Sprint(i*7%320))
	}
	r := command(t, "", env, append([]string{"logits", "-m", cudaModel + ":Q4_K_M", "-c", "128", "--tokens", strings.Join(ids, ","), "--all", "-o", out}, args...)...)
	if r.exit != 0 {
		t.Fatalf("%q: exit %d, %s", args, r.exit, r.errout)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Two and four equal cards, too small for the model, give the bits that one gives.
func TestCardsTogether(t *testing.T) {
	want := logitsOn(t, simulatedCards(t, 1, "1GiB"), "--device", "cuda")
	for _, n := range []int{2, 4} {
		shares := strings.TrimSuffix(strings.Repeat("1,", n), ",")
		if got := logitsOn(t, simulatedCards(t, n, "1GiB"), "--device", "cuda", "--split", shares); got != want {
			t.Errorf("%d cards: other logits than of one", n)
		}
	}
	// what one card has room for, the scheduler learns from Need; here so little that all four are wanted
	var places []any
	env := simulatedCards(t, 4, "4MiB")
	r := command(t, "", env, "--json", "run", "-m", cudaModel+":Q8_0", "-c", "128", "--tokens", "1,2,3", "-n", "3", "--temp", "0", "--device", "cuda")
	if r.exit != 0 {
		t.Fatalf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	places = r.object(t)["plan"].(map[string]any)["stages"].([]any)
	if len(places) < 2 {
		t.Errorf("%d stages on cards of 4 MiB, want several", len(places))
	}
	alone := command(t, "", simulatedCards(t, 1, "1GiB"), "--json", "run", "-m", cudaModel+":Q8_0", "-c", "128", "--tokens", "1,2,3", "-n", "3", "--temp", "0", "--device", "cuda")
	if got, want := fmt.Sprint(r.object(t)["tokens"]), fmt.Sprint(alone.object(t)["tokens"]); got != want {
		t.Errorf("tokens %s, on one card %s", got, want)
	}
}

// A card that is too small ends with status 5 and both figures, and with the CPU
// beside it the model runs.
func TestCardTooSmall(t *testing.T) {
	env := simulatedCards(t, 1, "2MiB")
	args := []string{"run", "-m", cudaModel + ":Q8_0", "-c", "64", "--tokens", "1,2,3", "-n", "2", "--temp", "0"}
	r := command(t, "", env, append([]string{"--json"}, append(args, "--device", "cuda:0")...)...)
	failed, _ := r.object(t)["error"].(map[string]any)
	if r.exit != 5 || failed["code"] != "memory" || !strings.Contains(fmt.Sprint(failed["message"]), "cuda:0: needs ") {
		t.Errorf("exit %d, %v; want 5 and what is needed", r.exit, failed)
	}
	if r := command(t, "", env, append(args, "--device", "cuda:0,cpu")...); r.exit != 0 {
		t.Errorf("with the CPU: exit %d, %s", r.exit, r.errout)
	}
}

// The demo's story is the same on a card of every compute capability.
func TestCardTellsTheStory(t *testing.T) {
	story := func(env []string, device string) string {
		r := command(t, "", env, "run", "Once upon", "-n", "12", "--temp", "0", "--device", device)
		if r.exit != 0 {
			t.Fatalf("%s: exit %d, %s", device, r.exit, r.errout)
		}
		return r.out
	}
	env := simulatedCards(t, 1, "1GiB")
	want := story(env, "cpu")
	for _, cc := range []string{"7.5", "8.0", "9.0"} {
		if got := story(append(env, "DROVER_SIM_CUDA=cc="+cc), "cuda"); got != want {
			t.Errorf("compute capability %s: %q, on the CPU %q", cc, got, want)
		}
	}
}

// Formats without kernels are converted, and the plan says so.
func TestConvertedInPlan(t *testing.T) {
	env := simulatedCards(t, 1, "1GiB")
	for typ, want := range map[string]string{"IQ3_S": "[IQ3_S]", "Q4_K": "<nil>"} {
		r := command(t, "", env, "--json", "run", "-m", cudaModel+":"+typ, "-c", "64", "--tokens", "1,2", "-n", "2", "--temp", "0", "--device", "cuda")
		if r.exit != 0 {
			t.Fatalf("%s: exit %d, %s", typ, r.exit, r.out)
		}
		stage := r.object(t)["plan"].(map[string]any)["stages"].([]any)[0].(map[string]any)
		if got := fmt.Sprint(stage["converted"]); got != want {
			t.Errorf("%s: converted %s, want %s", typ, got, want)
		}
	}
}

// A software device's records say what they are.
func TestSimulatedRecord(t *testing.T) {
	for device, want := range map[string]bool{"cuda": true, "cpu": false} {
		r := command(t, "", simulatedCards(t, 1, "1GiB"), "bench", "-m", cudaModel+":Q4_0", "-p", "0", "-n", "2", "-r", "1", "--device", device, "-o", "json")
		if r.exit != 0 {
			t.Fatalf("%s: exit %d, %s", device, r.exit, r.errout)
		}
		record := r.object(t)["records"].([]any)[0].(map[string]any)
		if record["simulated"] != want {
			t.Errorf("%s: simulated %v, want %v", device, record["simulated"], want)
		}
	}
}
