//go:build slowdown

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"testing"

	"drover/backend"
	"drover/internal/bench"
	"drover/internal/compare"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/quant"
)

// unmeasured leaves out the second that a device's limits take: here only speeds
// are compared.
type unmeasured struct{ backend.Device }

func (unmeasured) Measure(context.Context) (backend.Rates, error) {
	return backend.Rates{}, backend.ErrUnsupported
}

// A stage that takes 5 % longer is found slower, and one that does not is not, by
// what compare says of records, in each of 20 trials.
func TestSlowdown(t *testing.T) {
	f, err := model.Open("synthetic:dim=256,layers=6,heads=4,kv=4,ffn=768,vocab=1024:Q4_0")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for trial := range 20 {
		cells, runs := try(t, f)
		equal, slow := cells[1].Against, cells[2].Against
		t.Logf("trial %d, %d runs: equal %+.1f %% (p %.2g, %s), slow %+.1f %% (p %.2g, %s)", trial, runs, 100*(equal.Ratio-1), *equal.P, equal.Verdict, 100*(slow.Ratio-1), *slow.P, slow.Verdict)
		if equal.Verdict != compare.Same {
			t.Errorf("trial %d: equal builds are called %s", trial, equal.Verdict)
		}
		if slow.Verdict != compare.Slower {
			t.Errorf("trial %d: 5 %% slower is called %s", trial, slow.Verdict)
		}
	}
}

// try is runs of a build, of an equal one and of a slow one in turns, each loaded
// anew, until the mean of each is known to 1.2 %: other work on the machine costs
// time, and only fails this where there is too much of it.
func try(t *testing.T, f *model.File) (cells []*compare.Cell, runs int) {
	t.Helper()
	const least, most, known = 8, 400, 0.012
	var results [3][]compare.Result
	for {
		runs++
		for j := range results {
			which := (runs + j) % len(results) // nobody is always first
			t.Setenv("DROVER_SLOWDOWN", []string{"1", "1", "1.05"}[which])
			var line bytes.Buffer
			record(t, f, json.NewEncoder(&line))
			some, err := compare.Read([]string{"base", "equal", "slow"}[which], &line)
			if err != nil {
				t.Fatal(err)
			}
			results[which] = append(results[which], some...)
		}
		if runs < least {
			continue
		}
		table := compare.Align(slices.Concat(results[:]...))
		if len(table.Rows) != 1 || len(table.Rows[0].Cells) != len(results) {
			t.Fatalf("%d rows of %d columns", len(table.Rows), len(table.Columns))
		}
		cells = table.Rows[0].Cells
		if runs == most || !slices.ContainsFunc(cells, func(c *compare.Cell) bool { return *c.Hi-c.Mean > known*c.Mean }) {
			return cells, runs
		}
	}
}

// record runs one decode test on one thread, and writes what was found.
func record(t *testing.T, f *model.File, out *json.Encoder) {
	t.Helper()
	found, err := device.Find("cpu", device.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	cpu := unmeasured{found[0]}
	tests := []bench.Test{{Gen: 64, Sequences: 1}}
	positions, sequences, pages := bench.Demand(tests)
	o := engine.Options{Context: positions, Sequences: sequences, Pages: pages, Batch: 64, K: quant.F16, V: quant.F16}
	err = bench.Run(t.Context(), bench.Subject{Model: f.Model, Filename: f.Path, TypeName: f.TypeName, Params: f.Params, Bytes: f.Bytes}, tests, bench.Options{
		Set: "cpu", Devices: []backend.Device{cpu}, Planner: engine.Fixed(f.Model, engine.Whole(f.Model, cpu), o),
		Batch: 64, Repeats: 5, Warmup: true, Threads: 1, K: quant.F16, V: quant.F16,
	}, func(r bench.Record) error { return out.Encode(r) })
	if err != nil {
		t.Fatal(err)
	}
}
