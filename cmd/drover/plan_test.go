package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/sched"
)

var update = flag.Bool("update", false, "write the plans of the described machines anew")

// describedMachines is where machines and the plans for them lie.
const describedMachines = "../../internal/sched/testdata"

// here runs a command in this process, with as little of the environment as
// command leaves it.
func here(t *testing.T, args ...string) result {
	t.Helper()
	t.Setenv("DROVER_CPU", "")
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	var out, errs bytes.Buffer
	exit := drover(context.Background(), newApp(strings.NewReader(""), &out, &errs), args)
	return result{exit, out.String(), errs.String()}
}

// The plans for every described machine, as they were reviewed. Each file holds
// command lines, and below each what it prints.
func TestPlans(t *testing.T) {
	machines, err := filepath.Glob(describedMachines + "/machines/*.json")
	if err != nil || len(machines) < 20 {
		t.Fatalf("%d machines, %v", len(machines), err)
	}
	for _, machine := range machines {
		name := strings.TrimSuffix(filepath.Base(machine), ".json")
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(describedMachines, "plans", name+".txt")
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			commands := 0
			for line := range strings.Lines(string(want)) {
				flags, ok := strings.CutPrefix(strings.TrimSpace(line), "$ drover plan ")
				if !ok {
					continue
				}
				commands++
				r := here(t, append([]string{"plan", "--machine", machine}, strings.Fields(flags)...)...)
				fmt.Fprintf(&got, "$ drover plan %s\n%s%s", flags, r.out, r.errout)
				if r.exit != 0 {
					fmt.Fprintf(&got, "exit %d\n", r.exit)
				}
				got.WriteString("\n")
			}
			if commands == 0 {
				t.Fatalf("%s holds no command lines", path)
			}
			if *update {
				if err := os.WriteFile(path, []byte(got.String()), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(want) {
				t.Errorf("%s: the plans are others (go test ./cmd/drover -run TestPlans -update writes them):\n%s", path, differing(string(want), got.String()))
			}
		})
	}
}

// differing is the lines that two texts do not share, in place.
func differing(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		line := func(of []string) string {
			if i < len(of) {
				return of[i]
			}
			return ""
		}
		if line(w) != line(g) {
			fmt.Fprintf(&b, "line %d\n  want %s\n  got  %s\n", i+1, line(w), line(g))
		}
	}
	return b.String()
}

// What sched relies on is true of every device's Need: equally many blocks of each
// kind take the same wherever they lie, weights and cache add up, and scratch
// changes with the kinds alone but for rounding.
func TestNeedsAddUp(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for _, spec := range []string{"llama-7b", "llama3-8b:Q4_K_M", "llama3.2-1b:Q8_0", "mixtral-8x7b:Q4_K_M", "qwen2.5-7b:IQ2_XS"} {
		f, err := model.Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		c := &f.Model.Config
		o := engine.Options{K: quant.F16, V: quant.Q8_0}
		l := o.Limits(c, 2048)
		for _, i := range []backend.Info{{Kind: "cuda", ISA: "sm_75"}, {Kind: "cuda", ISA: "sm_80"}, {Kind: "cuda", ISA: "sm_90"}, {Kind: "cpu", ISA: "avx2", Cores: 8}} {
			d, err := device.Described(i, device.Options{})
			if err != nil {
				t.Fatal(err)
			}
			need := func(blocks ...int) backend.Need {
				var runs []backend.Range
				for _, b := range blocks {
					runs = append(runs, backend.Range{Lo: b, Hi: b + 1})
				}
				n, err := d.Need(f.Model, runs, l)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			for range 20 {
				// layers whose matrices are in the same formats
				a := r.IntN(c.Layers)
				b := slices.IndexFunc(f.Model.Layers, func(x backend.Layer) bool { return sameFormats(&x, &f.Model.Layers[a]) })
				one, other, both := need(1+2*a, 2+2*a), need(1+2*b, 2+2*b), need(0, 1+2*a, 2+2*a)
				if one != other {
					t.Errorf("%s on %s: layer %d takes %+v, layer %d %+v", spec, i.ISA, a, one, b, other)
				}
				alone := need(0)
				if both.Weights != one.Weights+alone.Weights || both.Cache != one.Cache+alone.Cache {
					t.Errorf("%s on %s: embedding %+v and layer %+v together take %+v", spec, i.ISA, alone, one, both)
				}
				if a == b {
					continue
				}
				two := need(1+2*b, 2+2*b, 1+2*a, 2+2*a)
				if two.Weights != 2*one.Weights || two.Cache != 2*one.Cache || two.Host != one.Host || two.Scratch > one.Scratch+sched.Granule || one.Scratch > two.Scratch+sched.Granule {
					t.Errorf("%s on %s: a layer takes %+v, two like it %+v", spec, i.ISA, one, two)
				}
			}
		}
	}
}

func sameFormats(a, b *backend.Layer) bool {
	return a.Q.Type == b.Q.Type && a.K.Type == b.K.Type && a.V.Type == b.V.Type && a.O.Type == b.O.Type &&
		a.Gate.Type == b.Gate.Type && a.Up.Type == b.Up.Type && a.Down.Type == b.Down.Type
}

// The JSON of a plan has what the contract promises, and the plan's own sums are
// right.
func TestPlanJSON(t *testing.T) {
	machine := describedMachines + "/machines/11-rtx4090-rtx3060.json"
	o := here(t, "plan", "--json", "--machine", machine, "-m", "synthetic:llama3-70b").object(t)
	p, _ := o["plan"].(map[string]any)
	if o["schema"] != 1.0 || p == nil || p["limit"] != "memory" || p["ctx"].(float64) >= p["ctx_wanted"].(float64) {
		t.Fatalf("got %v", o)
	}
	covered, ms, share := 0.0, 0.0, 0.0
	for _, s := range p["stages"].([]any) {
		st := s.(map[string]any)
		for _, name := range []string{"device", "isa", "blocks", "layers", "weights", "cache", "scratch", "host", "predicted_ms", "free", "left"} {
			if _, ok := st[name]; !ok {
				t.Errorf("a stage has no %s: %v", name, st)
			}
		}
		for _, b := range st["blocks"].([]any) {
			covered += b.([]any)[1].(float64) - b.([]any)[0].(float64)
		}
		if st["device"] != "cpu" && st["left"].(float64) != st["free"].(float64)-st["weights"].(float64)-st["cache"].(float64)-st["scratch"].(float64) {
			t.Errorf("what is left does not follow: %v", st)
		}
		ms, share = ms+st["predicted_ms"].(float64), share+st["share"].(float64)
	}
	if rate := p["predicted_tokens_per_s"].(float64); covered != 162 || math.Abs(rate*ms/1000-1) > 1e-9 || math.Abs(share-1) > 1e-9 {
		t.Errorf("%v blocks, %v ms, %v tokens/s, shares of %v", covered, ms, rate, share)
	}
	if b, _ := p["binding"].(map[string]any); b["what"] != "memory" || len(p["advice"].([]any)) == 0 {
		t.Errorf("binding %v, advice %v", b, p["advice"])
	}
}

// Descriptions and flags that make no sense are told so.
func TestPlanRefuses(t *testing.T) {
	machine := describedMachines + "/machines/10-two-rtx3090.json"
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"schema": 1, "devices": [{"id": "cuda:0", "king": "cuda"}]}`), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		exit int
		code string
		want string
		args string
	}{
		{2, "usage", "king", "--machine " + bad},
		{2, "usage", "no such file", "--machine nowhere.json"},
		{2, "usage", "--split", "--machine " + machine + " --split 1,1,1"},
		{2, "usage", "no experts", "--machine " + machine + " --n-cpu-moe 3"},
		{2, "usage", "--n-gen", "--machine " + machine + " -n 0"},
		{2, "usage", "--sequences", "--machine " + machine + " --sequences 0"},
		{2, "usage", "no CPU for the others", "--machine " + machine + " --device cuda -ngl 3"},
		{4, "device", "cuda:7", "--machine " + machine + " --device cuda:7"},
		{5, "memory", "cuda:0: needs", "--machine " + machine + " --device cuda:0 -m synthetic:llama3-70b"},
		{3, "model", "no such model file", "--machine " + machine + " -m nowhere.gguf"},
	} {
		args := append([]string{"plan"}, strings.Fields(c.args)...)
		if !strings.Contains(c.args, "-m ") {
			args = append(args, "-m", "synthetic:llama-7b")
		}
		r := here(t, args...)
		if r.exit != c.exit || r.out != "" || !strings.Contains(r.errout, c.want) {
			t.Errorf("%s: exit %d, %q; want %d, %q", c.args, r.exit, r.errout, c.exit, c.want)
		}
		e, _ := here(t, append(args, "--json")...).object(t)["error"].(map[string]any)
		if e["code"] != c.code {
			t.Errorf("%s: %v; want code %s", c.args, e, c.code)
		}
	}
}

// This machine is planned for too, and what `devices --measure --json` prints of
// it is a description.
func TestPlanHere(t *testing.T) {
	if r := command(t, "", nil, "plan", "--device", "cpu", "-m", "synthetic:llama3.2-1b", "-c", "512"); r.exit != 0 || !strings.Contains(r.out, "embed, layers 0-15, head") {
		t.Errorf("exit %d, %s, %s", r.exit, r.out, r.errout)
	}
	d := command(t, "", nil, "devices", "--measure", "--json")
	r := command(t, d.out, nil, "plan", "--machine", "-", "-m", "synthetic:llama3.2-1b", "-c", "512")
	if r.exit != 0 || !strings.Contains(r.out, "embed, layers 0-15, head") {
		t.Errorf("exit %d, %s, %s of %s", r.exit, r.out, r.errout, d.out)
	}
}
