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

// cardsOf are software cards described one by one, with so many multiprocessors that
// a plan takes them to be faster than any CPU.
func cardsOf(t *testing.T, cards ...string) []string {
	return []string{"DROVER_CUDA_LIBRARY=" + sim.CUDA(t), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1",
		"DROVER_SIM_CUDA=sms=1000," + strings.Join(cards, ";sms=1000,")}
}

// slowCPU is a state folder in which the CPU is known to be so slow that it carries
// only what nothing else has room for.
func slowCPU(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	state := "XDG_STATE_HOME=" + dir
	if r := command(t, "", []string{state}, "devices", "--measure"); r.exit != 0 {
		t.Fatalf("exit %d, %s", r.exit, r.errout)
	}
	files, err := filepath.Glob(filepath.Join(dir, "drover", "rates", "cpu-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: want the CPU's rates", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var slow strings.Builder
	for line := range strings.Lines(string(text)) {
		for _, name := range []string{"read_bytes_per_s", "matrix_ops_per_s", "float_ops_per_s"} {
			if strings.Contains(line, name) {
				line = fmt.Sprintf("\t\t%q: 1e8,\n", name)
			}
		}
		slow.WriteString(line)
	}
	if err := os.WriteFile(files[0], []byte(slow.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return state
}

// told is what a run with --json wrote, its tokens and the devices of its stages.
type toldRun struct {
	result
	tokens string
	stages []string
}

// generate runs a model with --json.
func generate(t *testing.T, env []string, args ...string) toldRun {
	t.Helper()
	r := toldRun{result: command(t, "", env, append([]string{"run", "--json", "--tokens", "1,2,3,4,5", "-ctk", "f32", "-ctv", "f32"}, args...)...)}
	if r.exit != 0 {
		return r
	}
	doc := r.object(t)
	r.tokens = fmt.Sprint(doc["tokens"])
	for _, s := range doc["plan"].(map[string]any)["stages"].([]any) {
		r.stages = append(r.stages, fmt.Sprint(s.(map[string]any)["device"]))
	}
	return r
}

// watchMemory has the cards write down what they give out; the function it gives
// finds what was not given back.
func watchMemory(t *testing.T, env []string) ([]string, func()) {
	path := filepath.Join(t.TempDir(), "memory")
	return append(env, "DROVER_SIM_MEMORY="+path), func() {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("no card gave out memory: %v", err)
		}
		left := map[string]string{}
		for line := range strings.Lines(string(text)) {
			card, bytes, _ := strings.Cut(strings.TrimSpace(line), " ")
			left[card] = bytes
		}
		for card, bytes := range left {
			if bytes != "0" {
				t.Errorf("card %s: %s bytes were not given back", card, bytes)
			}
		}
	}
}

const wideModel = "synthetic:dim=256,layers=6,heads=4,kv=2,ffn=512,vocab=320:F32" // 15 MiB of weights

// A model on two equal cards, neither of which holds it, says what it says on one,
// greedy and seeded.
func TestSplitSaysTheSame(t *testing.T) {
	args := []string{"-m", wideModel, "-c", "128", "-n", "24", "--ignore-eos"}
	for _, how := range [][]string{{"--temp", "0"}, {"--temp", "1", "--seed", "7"}} {
		one := generate(t, cardsOf(t, "mem=64MiB"), append(append(args, how...), "--device", "cuda")...)
		env, settled := watchMemory(t, cardsOf(t, "mem=12MiB", "mem=12MiB"))
		two := generate(t, env, append(append(args, how...), "--device", "cuda")...)
		settled()
		if one.exit != 0 || two.exit != 0 || len(two.stages) != 2 || len(one.stages) != 1 {
			t.Fatalf("exit %d and %d, stages on %v and %v: %s%s", one.exit, two.exit, one.stages, two.stages, one.errout, two.out+two.errout)
		}
		if one.tokens != two.tokens || len(strings.Fields(one.tokens)) != 24 {
			t.Errorf("%v: %s on two cards, %s on one", how, two.tokens, one.tokens)
		}
	}
}

// Memories that leave nothing but a split over both cards and the CPU: what the CPU
// says alone.
func TestSplitInThree(t *testing.T) {
	env := append(cardsOf(t, "mem=7MiB", "mem=6MiB"), slowCPU(t))
	env, settled := watchMemory(t, env)
	args := []string{"-m", wideModel, "-c", "128", "-n", "24", "--ignore-eos", "--temp", "0"}
	alone := generate(t, env, append(args, "--device", "cpu")...)
	three := generate(t, env, append(args, "--device", "cuda:0,cuda:1,cpu")...)
	settled()
	if alone.exit != 0 || three.exit != 0 || len(three.stages) != 3 {
		t.Fatalf("exit %d and %d, stages on %v: %s", alone.exit, three.exit, three.stages, three.out+three.errout)
	}
	if alone.tokens != three.tokens {
		t.Errorf("in three parts %s, on the CPU alone %s", three.tokens, alone.tokens)
	}
	// auto chooses the same, and says so
	auto := generate(t, env, args...)
	if auto.exit != 0 || auto.tokens != alone.tokens || len(auto.stages) != 3 || !strings.Contains(auto.errout, "cpu carries ") || !strings.Contains(auto.errout, "cuda:1 carries ") {
		t.Errorf("auto: exit %d, %v, %s", auto.exit, auto.stages, auto.errout)
	}
	// nothing on the CPU is a wish that cannot be met
	strict := generate(t, env, append(args, "--strict")...)
	if e, _ := strict.object(t)["error"].(map[string]any); strict.exit != 5 || !strings.Contains(fmt.Sprint(e["message"]), "needs ") {
		t.Errorf("--strict: exit %d, %v", strict.exit, e)
	}
	verbose := command(t, "", env, append(append([]string{"run", "--tokens", "1,2,3,4,5"}, args...), "--device", "cuda:0,cuda:1,cpu", "--verbose")...)
	for _, want := range []string{"MS/TOKEN", "limit: the memory of cuda:", "cuda:0: its speed is guessed", "ms a token (predicted ", "\ncuda:1: ", "\ncpu: "} {
		if verbose.exit != 0 || !strings.Contains(verbose.errout, want) {
			t.Errorf("--verbose: exit %d, no %q in %s", verbose.exit, want, verbose.errout)
		}
	}
}

// A card that runs out of memory while it loads is planned for once more, with the
// figures of then; one that does so again ends with both figures.
func TestMemoryGoesMeanwhile(t *testing.T) {
	args := []string{"-m", wideModel, "-n", "4", "--ignore-eos", "--temp", "0", "-c", "128"}
	whole := generate(t, cardsOf(t, "mem=64MiB"), append(args, "--device", "cuda")...)
	env, settled := watchMemory(t, cardsOf(t, "mem=64MiB,oom=1", "mem=64MiB"))
	r := generate(t, env, append(args, "--device", "cuda:0,cuda:1", "--verbose")...)
	settled()
	if r.exit != 0 || r.tokens != whole.tokens || strings.Count(r.errout, "planned again: ") != 1 || strings.Count(r.errout, "MS/TOKEN") != 2 {
		t.Errorf("exit %d, tokens %s, want %s; %s", r.exit, r.tokens, whole.tokens, r.out+r.errout)
	}
	if r := generate(t, env, append(args, "--device", "cuda:0,cuda:1")...); r.exit != 0 || strings.Count(r.errout, "\n") != 1 || !strings.Contains(r.errout, "planned again: load on cuda:0: ") {
		t.Errorf("not one line: exit %d, %q", r.exit, r.errout)
	}
	// the plan fills the card, and what a card keeps for itself leaves no second one
	r = generate(t, cardsOf(t, "mem=18MiB,oom=1"), append(args, "--device", "cuda:0")...)
	e, _ := r.object(t)["error"].(map[string]any)
	if r.exit != 5 || e["code"] != "memory" || e["device"] != "cuda:0" || !strings.Contains(fmt.Sprint(e["message"]), "needs ") || !strings.Contains(fmt.Sprint(e["message"]), "are free") {
		t.Errorf("exit %d, %v", r.exit, e)
	}
}

// A card that is lost between planning and loading is left out, unless it was named.
func TestCardGoes(t *testing.T) {
	args := []string{"-m", wideModel, "-n", "4", "--ignore-eos", "--temp", "0", "-c", "128"}
	whole := generate(t, cardsOf(t, "mem=64MiB"), append(args, "--device", "cuda")...)
	for _, device := range []string{"cuda", "auto"} {
		env, settled := watchMemory(t, cardsOf(t, "mem=64MiB,gone=1", "mem=64MiB"))
		r := generate(t, env, append(args, "--device", device)...)
		settled()
		if r.exit != 0 || r.tokens != whole.tokens || len(r.stages) != 1 || r.stages[0] != "cuda:1" || strings.Count(r.errout, "planned again without cuda:0: ") != 1 {
			t.Errorf("%s: exit %d, %v, %s", device, r.exit, r.stages, r.out+r.errout)
		}
	}
	for _, device := range []string{"cuda:0,cuda:1", "cuda:0", "cuda"} {
		cards := []string{"mem=64MiB,gone=1", "mem=64MiB"}
		if device == "cuda" {
			cards = cards[:1] // no other is left
		}
		r := generate(t, cardsOf(t, cards...), append(args, "--device", device)...)
		e, _ := r.object(t)["error"].(map[string]any)
		if r.exit != 4 || e["code"] != "device" || !strings.Contains(fmt.Sprint(e["message"]), "ECC") {
			t.Errorf("%s: exit %d, %v", device, r.exit, e)
		}
	}
}

// A card named by its UUID is that card whatever its number, and cards that the
// driver is told to hide are not here.
func TestCardsRenumbered(t *testing.T) {
	a, b := "name=A,mem=64MiB,uuid=GPU-00000000-0000-0000-0000-00000000000a", "name=B,mem=8MiB,uuid=GPU-00000000-0000-0000-0000-00000000000b"
	args := []string{"-m", wideModel, "-n", "2", "--temp", "0", "-c", "128", "--device", "cuda:GPU-00000000-0000-0000-0000-00000000000A"}
	for i, cards := range [][]string{{a, b}, {b, a}} {
		r := generate(t, cardsOf(t, cards...), args...)
		if want := fmt.Sprintf("[cuda:%d]", i); r.exit != 0 || fmt.Sprint(r.stages) != want {
			t.Errorf("exit %d, stages on %v, want %s: %s", r.exit, r.stages, want, r.out)
		}
	}
	args = args[:len(args)-2]
	hidden := append(cardsOf(t, a, b), "CUDA_VISIBLE_DEVICES=1")
	r := command(t, "", hidden, "devices")
	if strings.Contains(r.out, "cuda:1") || !strings.Contains(r.out, "cuda:0  B") {
		t.Errorf("with card A hidden: %s", r.out)
	}
	if r := generate(t, hidden, append(args, "--device", "cuda:1")...); r.exit != 4 {
		t.Errorf("a hidden card: exit %d, %s", r.exit, r.out)
	}
	if r := generate(t, hidden, append(args, "--device", "cuda")...); r.exit != 5 {
		t.Errorf("the visible card is too small: exit %d, %s", r.exit, r.out)
	}
	if r := generate(t, append(cardsOf(t, a, b), "CUDA_VISIBLE_DEVICES="), append(args, "--device", "cuda")...); r.exit != 4 {
		t.Errorf("all cards hidden: exit %d, %s", r.exit, r.out)
	}
}

// The speeds that a plan over several devices wants are measured once, and not at
// all for a device alone, nor of software cards.
func TestMeasuredOnce(t *testing.T) {
	env := append(cardsOf(t, "mem=64MiB"), "XDG_STATE_HOME="+t.TempDir())
	args := []string{"-m", wideModel, "-n", "1", "--temp", "0", "-c", "128", "--device"}
	for i, c := range []struct {
		device   string
		measured int
	}{{"cpu", 0}, {"cuda:0", 0}, {"cuda:0,cpu", 1}, {"cpu,cuda:0", 0}} {
		r := generate(t, env, append(args, c.device)...)
		if r.exit != 0 || strings.Count(r.errout, "cpu: measuring its speed") != c.measured || strings.Contains(r.errout, "cuda:0: measuring") {
			t.Errorf("run %d, on %s: exit %d, %q; want %d measurements", i, c.device, r.exit, r.errout, c.measured)
		}
	}
	// another number of threads is another CPU
	if r := generate(t, append(env, "DROVER_THREADS=2"), append(args, "cuda:0,cpu")...); r.exit != 0 || strings.Count(r.errout, "cpu: measuring") != 1 {
		t.Errorf("with two threads: exit %d, %q", r.exit, r.errout)
	}
}

// A card that cannot be measured has a guessed speed in a plan, which is said, and
// none among the devices.
func TestNotMeasured(t *testing.T) {
	env := []string{"DROVER_CUDA_LIBRARY=" + sim.Broken(t), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1", "XDG_STATE_HOME=" + t.TempDir()}
	r := command(t, "", env, "plan", "-m", wideModel, "--device", "cuda:0,cpu")
	if r.exit != 0 || !strings.Contains(r.errout, "cuda:0: its speed is guessed, it cannot be measured: ") || !strings.Contains(r.out, "cpu     embed") {
		t.Errorf("plan: exit %d, %q, %q", r.exit, r.errout, r.out)
	}
	r = command(t, "", env, "devices", "--measure", "--json")
	if r.exit != 0 || !strings.Contains(r.errout, "cuda:0 cannot be measured: ") {
		t.Fatalf("devices: exit %d, %q", r.exit, r.errout)
	}
	for _, d := range r.object(t)["devices"].([]any) {
		if d := d.(map[string]any); (d["rates"] == nil) != (d["id"] == "cuda:0") {
			t.Errorf("%v: rates %v", d["id"], d["rates"])
		}
	}
}

// bench drives a plan over several devices, and one device of several that carries
// all.
func TestBenchTogether(t *testing.T) {
	env := cardsOf(t, "mem=64MiB,name=A", "mem=64MiB,name=B,cc=9.0")
	args := []string{"bench", "-m", wideModel, "-p", "16", "-n", "2", "-r", "1", "-o", "json"}
	for _, c := range []struct {
		args                   []string
		backends, isa, gpu, on string
	}{
		{[]string{"--device", "cuda:0,cuda:1,cpu", "--split", "1,1,1"}, "cuda,cpu", "sm_80,sm_90a,", "A, B", "cuda:0 cuda:1 cpu"},
		{[]string{"--device", "cuda", "--split", "0,1"}, "cuda", "sm_90a", "B", "cuda:1"},
	} {
		r := command(t, "", env, append(args, c.args...)...)
		if r.exit != 0 {
			t.Fatalf("%v: exit %d, %s", c.args, r.exit, r.errout)
		}
		records := r.object(t)["records"].([]any)
		if len(records) != 2 {
			t.Errorf("%v: %d records, want 2", c.args, len(records))
		}
		for _, one := range records {
			one := one.(map[string]any)
			var on []string
			for _, s := range one["plan"].(map[string]any)["stages"].([]any) {
				on = append(on, fmt.Sprint(s.(map[string]any)["device"]))
			}
			if strings.Join(on, " ") != c.on || one["backends"] != c.backends || !strings.HasPrefix(fmt.Sprint(one["isa"]), c.isa) || !strings.HasPrefix(fmt.Sprint(one["gpu_info"]), c.gpu) {
				t.Errorf("%v: on %v, backends %v, isa %v, gpu_info %v", c.args, on, one["backends"], one["isa"], one["gpu_info"])
			}
			if x, _ := one["avg_ts"].(float64); !(x > 0) || one["simulated"] != true || one["limit_ts"] != nil {
				t.Errorf("%v: avg_ts %v, simulated %v, limit_ts %v", c.args, one["avg_ts"], one["simulated"], one["limit_ts"])
			}
		}
	}
	if r := command(t, "", env, append(args, "--device", "cuda", "--split", "1,1,1")...); r.exit != 2 {
		t.Errorf("a share too many: exit %d, %s", r.exit, r.errout)
	}
}
