package bench

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"drover/backend"
)

// profiled is a stand-in whose stage tells what each Forward took.
type profiled struct {
	device
	on    bool
	calls int
}

func (d *profiled) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	_, err := d.device.Load(ctx, m, runs, l, progress)
	return d, err
}

func (d *profiled) Forward(ctx context.Context, run int, b *backend.Batch) error {
	if d.on {
		d.calls++
	}
	return d.device.Forward(ctx, run, b)
}

func (d *profiled) Profile(on bool) { d.on = on }

func (d *profiled) Profiled() []backend.OpTime {
	n := uint64(d.calls)
	return []backend.OpTime{
		{Block: "attention", Op: "attend", Calls: 2 * d.calls, Barriers: 2 * d.calls, Time: time.Duration(n), Bytes: 1000 * n, FloatOps: 10 * n},
		{Block: "head", Op: "logits", Calls: d.calls, Time: time.Duration(2 * n), Bytes: 50 * n, Activations: 50 * n, Ops: 6000 * n, FloatOps: 1000 * n},
		{Block: "head", Op: "results", Calls: d.calls, Time: time.Duration(n)},
	}
}

// The profile is a pass of its own, after the repeats; where it is not asked
// for, or the stage has none, there is none.
func TestProfile(t *testing.T) {
	rates := backend.Rates{Read: 1e9, Matrix: 2e9, Float: 1e9}
	o := options
	run := func(dev backend.Device) Record {
		t.Helper()
		var got []Record
		m, tests := model(), []Test{{Gen: 5, Sequences: 2}}
		place(m, dev, tests, &o)
		err := Run(t.Context(), Subject{Model: m, Params: 1}, tests, o, func(r Record) error { got = append(got, r); return nil })
		if err != nil || len(got) != 1 || len(got[0].SamplesNS) != o.Repeats {
			t.Fatalf("records %+v, %v", got, err)
		}
		return got[0]
	}
	d := &profiled{device: device{rates: rates}}
	if r := run(d); r.Profile != nil || d.calls != 0 {
		t.Errorf("not asked for, and profiled %d batches: %+v", d.calls, r.Profile)
	}
	o.Profile = true
	if r := run(&device{rates: rates}); r.Profile != nil {
		t.Errorf("profile of a stage that has none: %+v", r.Profile)
	}
	d = &profiled{device: device{rates: rates}}
	r := run(d)
	if d.on || d.calls != 5 || len(r.Profile) != 4 {
		t.Fatalf("%d batches profiled, want 5, on %v, %+v", d.calls, d.on, r.Profile)
	}
	// 5 steps of 2 sequences: half of a step's amounts a token
	attend, logits, results, other := r.Profile[0], r.Profile[1], r.Profile[2], r.Profile[3]
	if attend.Calls != 1 || attend.Barriers != 1 || attend.Bytes != 500 || attend.FloatOps != 5 || attend.US != 0.5e-3 {
		t.Errorf("attend %+v", attend)
	}
	near := func(what string, got *float64, want float64) {
		if got == nil || math.Abs(*got-want) > 1e-9*want {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	near("limit of attend, its memory", attend.LimitUS, 500/1e9*1e6)
	near("limit of logits, its arithmetic", logits.LimitUS, (3000/2e9+500/1e9)*1e6)
	near("its share", logits.LimitShare, (3000/2e9+500/1e9)*1e6/1e-3)
	if results.LimitUS != nil || results.LimitShare != nil || other.LimitUS != nil {
		t.Errorf("limits of what needs nothing: %+v %+v", results, other)
	}
	share := 0.0
	for _, op := range r.Profile {
		share += op.Share
	}
	if math.Abs(share-1) > 1e-9 || other.Op != "other" || other.Block != "" {
		t.Errorf("shares add up to %v, the last is %+v", share, other)
	}
}

// An op whose rate was not measured has no limit, rather than half of one.
func TestOpLimit(t *testing.T) {
	op := Op{Bytes: 100, Ops: 100, FloatOps: 100}
	for _, c := range []struct {
		rates backend.Rates
		want  float64
	}{
		{backend.Rates{Read: 1, Matrix: 2, Float: 4}, 100},
		{backend.Rates{Read: 100, Matrix: 2, Float: 4}, 75},
		{backend.Rates{Matrix: 2, Float: 4}, 0},
		{backend.Rates{Read: 1, Matrix: 2}, 0},
	} {
		if got := op.limit(c.rates); got != c.want {
			t.Errorf("%+v: %v s, want %v", c.rates, got, c.want)
		}
	}
}

func TestProfileJSON(t *testing.T) {
	data, err := json.Marshal(Record{Profile: perToken([]backend.OpTime{{Op: "x", Calls: 1, Bytes: 1}}, time.Second, 1, backend.Rates{})})
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ Profile []map[string]any }
	if err := json.Unmarshal(data, &r); err != nil || len(r.Profile) != 2 {
		t.Fatalf("%v in %s", err, data)
	}
	want := []string{"activation_bytes_per_token", "barriers_per_token", "block", "bytes_per_token", "calls_per_token", "float_ops_per_token",
		"limit_share", "limit_us", "op", "ops_per_token", "share", "us_per_token"}
	var names []string
	for name := range r.Profile[0] {
		names = append(names, name)
	}
	if slices.Sort(names); !slices.Equal(names, want) || r.Profile[0]["limit_us"] != nil {
		t.Errorf("fields %q, want %q", names, want)
	}
}
