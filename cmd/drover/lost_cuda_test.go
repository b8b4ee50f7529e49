//go:build linux && cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/sample"
	"drover/internal/sim"
)

// A software card falls off the bus in a prompt, while decoding, while a model is
// split, twice: the text goes on on another card or on the CPU, and is the one that
// the CPU gives. Weights and cache are float32, so that no rounding tells devices
// apart.
func TestLostCard(t *testing.T) {
	t.Setenv("DROVER_CUDA_LIBRARY", sim.CUDA(t))
	t.Setenv("DROVER_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1")
	// every case has cards of its own, since a lost one stays lost in this process
	t.Setenv("DROVER_SIM_CUDA", "lost=45;name=B;lost=500;lost=350;lost=250;name=F;name=G;lost=300;lost=500;lost=500")
	file, err := model.Open("synthetic:dim=64,layers=4,heads=4,kv=2,ffn=128,vocab=320:F32:3")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	m := file.Model
	blocks := m.Config.Blocks()
	o := engine.Options{Context: 256, Sequences: 3, Batch: 32, K: quant.F32, V: quant.F32}
	cpu, err := device.Find("cpu", device.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	cards, err := device.Find("cuda", device.Options{})
	if err != nil {
		t.Fatal(err)
	}
	on := func(spec string) (places []engine.Placement) { // devices by index, in equal parts
		ids := strings.Split(spec, " ")
		for i, id := range ids {
			d := cpu[0]
			if id != "cpu" {
				d = cards[slices.IndexFunc(cards, func(d backend.Device) bool { return d.Info().ID == "cuda:"+id })]
			}
			places = append(places, engine.Placement{Device: d, Runs: []backend.Range{{Lo: i * blocks / len(ids), Hi: (i + 1) * blocks / len(ids)}}})
		}
		return places
	}
	type request struct {
		tokens []int32
		params sample.Params
		max    int
	}
	var requests []request
	for i := range 3 {
		r := request{max: 24, params: sample.Greedy()}
		for j := range 50 + 20*i {
			r.tokens = append(r.tokens, int32((j*j+i)%320))
		}
		if i == 2 {
			r.params = sample.Defaults()
			r.params.Seed = 9
		}
		requests = append(requests, r)
	}
	ask := func(e *engine.Engine, r request, emitted *atomic.Int32) (engine.Result, error) {
		return e.Generate(t.Context(), engine.Request{Tokens: r.tokens, Max: r.max, Sampler: sample.New(r.params)},
			func(int32, string) error { emitted.Add(1); return nil })
	}
	alone, err := engine.Load(t.Context(), m, engine.Fixed(m, on("cpu"), o), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	var want [][]int32
	for _, r := range requests {
		got, err := ask(alone, r, new(atomic.Int32))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, got.Tokens)
	}
	for _, c := range []struct {
		name   string
		places []string // of one plan after the other
		begun  bool     // texts had begun when a card was lost first
	}{
		{"in the prompt", []string{"0", "1"}, false},
		{"decoding", []string{"2", "cpu"}, true},
		{"the first of two", []string{"3 1", "cpu 1"}, true},
		{"the last of three", []string{"5 cpu 4", "5 6"}, true},
		{"twice", []string{"7 cpu", "8", "1"}, true},
		{"all", []string{"9"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			plans, begun := 0, false
			emitted, again := new(atomic.Int32), new(atomic.Int32)
			planner := func(ctx context.Context, why error) (*engine.Plan, error) {
				if plans == 1 {
					begun = emitted.Load() > 0
				}
				if plans++; plans > len(c.places) {
					return nil, why
				}
				return engine.Fixed(m, on(c.places[plans-1]), o)(ctx, nil)
			}
			e, err := engine.Load(t.Context(), m, planner, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			for i, r := range requests {
				go func() {
					defer func() { done <- struct{}{} }()
					got, err := ask(e, r, emitted)
					if len(c.places) == 1 {
						if !errors.Is(err, backend.ErrLost) || classify(err).exit != exitDevice {
							t.Errorf("request %d: %v, want ErrLost and exit status %d", i, err, exitDevice)
						}
					} else if err != nil {
						t.Errorf("request %d: %v", i, err)
					}
					again.Add(int32(got.Replanned))
					if n := len(got.Tokens); err == nil && n != len(want[i]) || !slices.Equal(got.Tokens, want[i][:n]) {
						t.Errorf("request %d: got %v, want %v", i, got.Tokens, want[i])
					}
				}()
			}
			for range requests {
				<-done
			}
			stats := e.Stats()
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			if stats.Replanned != len(c.places)-1 || int(again.Load()) < stats.Replanned || begun != c.begun {
				t.Errorf("loaded again %d times, requests begun again %d times; texts had begun: %v; %d tokens; the last loss: %v", stats.Replanned, again.Load(), begun, emitted.Load(), stats.Lost)
			}
		})
	}
}

// The same by command: who asked for no card by name gets the whole text and is told;
// who named the lost one, or has no other device, gets its loss.
func TestLostCardCommand(t *testing.T) {
	ids := "1"
	for i := range 70 {
		ids += fmt.Sprintf(",%d", i*i%320)
	}
	run := func(cards string, args ...string) result {
		return command(t, "", []string{"DROVER_CUDA_LIBRARY=" + sim.CUDA(t), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1", "DROVER_SIM_CUDA=" + cards},
			append([]string{"--json", "run", "-m", "synthetic:dim=64,layers=4,heads=4,kv=2,ffn=128,vocab=320:F32:3", "--tokens", ids,
				"-n", "24", "--temp", "0", "-c", "128", "-ctk", "f32", "-ctv", "f32"}, args...)...)
	}
	r := run("none", "--device", "cpu")
	want := fmt.Sprint(r.object(t)["tokens"])
	for _, c := range []struct {
		name, cards string
		args        []string
		exit        int
		on          string // where it ends
	}{
		{"prompt", "lost=60;name=B", []string{"--device", "cuda"}, 0, "cuda:1"},
		{"decode", "lost=500;name=B", []string{"--device", "cuda"}, 0, "cuda:1"},
		{"a third of a split", "name=A;name=B;lost=250", []string{"--device", "cuda", "--split", "1,1,1"}, 0, "cuda:0 cuda:1"},
		{"all that a split had", "lost=250;name=B", []string{"--device", "cuda", "--split", "1,0"}, 0, "cuda:1"},
		{"named", "lost=500;name=B", []string{"--device", "cuda:0,cuda:1"}, exitDevice, ""},
		{"the only one", "lost=500", []string{"--device", "cuda"}, exitDevice, ""},
	} {
		r := run(c.cards, c.args...)
		doc := r.object(t)
		if r.exit != c.exit {
			t.Errorf("%s: exit status %d, want %d: %s%s", c.name, r.exit, c.exit, r.out, r.errout)
		} else if c.exit != 0 {
			if !strings.Contains(r.out, "lost") {
				t.Errorf("%s: %s", c.name, r.out)
			}
		} else {
			var on []string
			for _, s := range doc["plan"].(map[string]any)["stages"].([]any) {
				on = append(on, s.(map[string]any)["device"].(string))
			}
			if got := fmt.Sprint(doc["tokens"]); got != want || strings.Join(on, " ") != c.on {
				t.Errorf("%s: %s on %v, want %s on %s", c.name, got, on, want, c.on)
			}
			if !strings.Contains(r.errout, "without cuda:") {
				t.Errorf("%s: nothing is said of the loss: %s", c.name, r.errout)
			}
		}
	}
}
