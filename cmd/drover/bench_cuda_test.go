//go:build linux && cgo

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"drover/internal/sim"
)

// all: each card and the CPU alone, then the scheduler's choice. A software card's
// records say that they are: they have no limit and nothing was predicted.
func TestBenchCards(t *testing.T) {
	env := simulatedCards(t, 2, "1GiB")
	r := command(t, "", env, append(benchArgs, "-m", cudaModel, "--device", "all", "--json", "--sequences", "1,2")...)
	if r.exit != 0 {
		t.Fatalf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	var sets []string
	for _, one := range r.object(t)["records"].([]any) {
		doc := one.(map[string]any)
		set := fmt.Sprint(doc["device_set"])
		sets = append(sets, set)
		card := strings.HasPrefix(set, "cuda")
		if card && (doc["simulated"] != true || doc["limit_ts"] != nil || doc["predicted_ts"] != nil || doc["gpu_info"] != "Sim" || doc["n_threads"] != nil || doc["peak_bytes"] == nil) {
			t.Errorf("%s: %v", set, doc)
		}
		if set == "cpu" && (doc["simulated"] != false || doc["limit_ts"] == nil) {
			t.Errorf("%s: %v", set, doc)
		}
	}
	if want := []string{"cuda:0", "cuda:1", "cpu", "auto"}; len(sets) != 16 || !slices.Equal(slices.Compact(sets), want) {
		t.Errorf("%q, want %q with 4 records each", sets, want)
	}
}

// A list is one set that shares the model, and its energy is that of all its cards.
func TestBenchShared(t *testing.T) {
	env := append(simulatedCards(t, 2, "1GiB"), "DROVER_NVML_LIBRARY="+sim.NVML(t), "DROVER_SIM_CUDA=uuid=A,mem=1GiB;uuid=B,mem=1GiB")
	cards := command(t, "", env, "devices", "--json").object(t)["devices"].([]any)
	uuid := func(i int) string { return cards[i].(map[string]any)["uuid"].(string) }
	env = append(env, fmt.Sprintf("DROVER_SIM_NVML=uuid=%s,watts=100,mhz=1500,celsius=50,throttle=4;uuid=%s,watts=25,mhz=1000,celsius=40,throttle=1", uuid(0), uuid(1)))
	r := command(t, "", env, append(benchArgs, "-m", cudaModel, "--device", "cuda:0,cuda:1", "--split", "1,1", "--json", "-p", "0")...)
	if r.exit != 0 {
		t.Fatalf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	doc := r.object(t)["records"].([]any)[0].(map[string]any)
	if stages := doc["plan"].(map[string]any)["stages"].([]any); len(stages) != 2 || doc["devices"] != "cuda:0,cuda:1" {
		t.Errorf("%d stages on %v", len(stages), doc["devices"])
	}
	joules, _ := doc["joules_per_token"].(float64)
	if want := 125 * doc["avg_ns"].(float64) * 1e-9 / 4; math.Abs(joules-want) > 1e-3*want {
		t.Errorf("%v J a token, want %v", joules, want)
	}
	if clocks := doc["clocks"].([]any); len(clocks) != 3 || doc["throttled"] != true || fmt.Sprint(doc["throttled_by"]) != "[cuda:0: power limit]" || doc["celsius"] == nil {
		t.Errorf("clocks %v, throttled by %v, %v degrees", clocks, doc["throttled_by"], doc["celsius"])
	}
	if !strings.Contains(r.errout, "slower than the device could be: cuda:0: power limit") {
		t.Errorf("said %q", r.errout)
	}
}

// Of all devices, those too small are left out and named; one that was asked for is
// an error.
func TestBenchTooSmall(t *testing.T) {
	env := append(simulatedCards(t, 2, "1GiB"), "DROVER_SIM_CUDA=name=Sim,mem=1GiB;name=Small,mem=1MiB")
	args := append(benchArgs, "-m", cudaModel, "-p", "0", "--json", "--device")
	r := command(t, "", env, append(args, "all")...)
	if r.exit != 0 || len(r.object(t)["records"].([]any)) != 3 || !strings.Contains(r.errout, "cuda:1: left out: ") {
		t.Errorf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	if r := command(t, "", env, append(args, "cuda:1")...); r.exit != 5 {
		t.Errorf("exit %d, want 5: %s%s", r.exit, r.out, r.errout)
	}
}
