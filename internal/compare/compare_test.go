package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/bench"
)

func TestFormat(t *testing.T) {
	for long, want := range map[string]string{
		"Q4_0": "Q4_0", "Q4_K - Medium": "Q4_K_M", "Q4_K - Small": "Q4_K_S", "Q3_K - Large": "Q3_K_L", "Q4_K_M": "Q4_K_M", "all F32": "F32", "F16": "F16",
		"Q2_K - Medium": "Q2_K", "IQ2_XXS - 2.0625 bpw": "IQ2_XXS", "IQ3_S mix - 3.66 bpw": "IQ3_M", "Q8_0 (guessed)": "Q8_0", "MXFP4 MoE": "MXFP4 MOE", "": "",
	} {
		if got := formatOf(long); got != want {
			t.Errorf("%q is %q, want %q", long, got, want)
		}
	}
}

func TestTestName(t *testing.T) {
	for want, test := range map[string]Test{
		"pp512": {Prompt: 512, Sequences: 1}, "tg128 @ d4096 x 4": {Gen: 128, Depth: 4096, Sequences: 4}, "pp512+tg128": {Prompt: 512, Gen: 128, Sequences: 1},
	} {
		if got := test.Name(); got != want {
			t.Errorf("%+v is %q, want %q", test, got, want)
		}
	}
}

// Equal work stands in a row, equal setups in a column; what either tool calls
// the model does not matter.
func TestAlign(t *testing.T) {
	prompt, deep, other, gpu := record(100, 101), record(9, 9.1), record(30), record(70, 71)
	prompt.Prompt, prompt.Gen = 512, 0
	deep.Depth = 4096
	other.ModelType, other.ModelParams = "llama 1.1B Q4_0", 1_100_048_384
	name := "Some GPU"
	gpu.Backends, gpu.ISA, gpu.GPUInfo = "cuda", "sm_90", &name
	all := results(t, "dir/a.json", prompt, record(10, 11), gpu, deep, record(12))
	all = append(all, results(t, "b.json", other, record(8, 8))...)
	peer, err := Read("peer.json", strings.NewReader("["+llama+"]"))
	if err != nil {
		t.Fatal(err)
	}
	table := Align(append(all, peer...))

	var columns, rows []string
	for _, c := range table.Columns {
		columns = append(columns, c.Name)
	}
	if want := []string{"a: cpu avx2", "a: cuda sm_90, Some GPU", "b", "peer"}; !slices.Equal(columns, want) {
		t.Errorf("columns %q, want %q", columns, want)
	}
	for _, r := range table.Rows {
		row := r.Type + " " + r.Name + ":"
		for _, c := range r.Cells {
			if c == nil {
				row += " -"
			} else {
				row += fmt.Sprint(" ", c.Samples)
			}
		}
		rows = append(rows, row)
	}
	want := []string{
		"llama 1.1B Q4_0 tg128: - - [30] -",
		"llama 6.7B Q4_K_M pp512: [100 101] - - -",
		"llama 6.7B Q4_K_M tg128: [10 11 12] [70 71] [8 8] [10 10]",
		"llama 6.7B Q4_K_M tg128 @ d4096: [9 9.1] - - -",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	if _, err := json.Marshal(table); err != nil {
		t.Error(err)
	}
}

// Files of one name keep their folders; two columns never share a name.
func TestNames(t *testing.T) {
	all := append(results(t, "x/a.json", record(1)), results(t, "y/a.json", record(2))...)
	for i, c := range Align(all).Columns {
		if want := []string{"x/a.json", "y/a.json"}[i]; c.Name != want {
			t.Errorf("column %d is %q, want %q", i, c.Name, want)
		}
	}
	// the same device, named and chosen, is two setups: a plan may split the model
	named, chosen := record(3), record(4)
	named.DeviceSet, chosen.DeviceSet = "cpu", "auto"
	if c := Align(results(t, "a.json", named, chosen)).Columns; len(c) != 2 || c[0].Name != "a" || c[1].Name != "a: device auto" {
		t.Errorf("columns %+v", c)
	}
}

func TestBuild(t *testing.T) {
	r := record(1)
	if got := results(t, "a", r)[0].Build; got != "89abcdef" {
		t.Errorf("build %q", got)
	}
	r.Machine.Version = "v1.2"
	if got := results(t, "a", r)[0].Build; got != "v1.2 89abcdef" {
		t.Errorf("build %q", got)
	}
}

func TestDifferences(t *testing.T) {
	a, b := setupOf(results(t, "a", record(1))[0]), setupOf(results(t, "b", record(1))[0])
	if d := a.Differences(b); len(d) != 0 {
		t.Errorf("equal setups differ by %q", d)
	}
	b.Threads, b.Fingerprint, b.Build, b.Driver, b.TypeK = 4, "ffffffff-00000000", "00000000", "555.1", "q8_0"
	if d, want := a.Differences(b), []string{"threads 2 / 4", "cache f16/f16 / q8_0/f16", "machine 01234567 / ffffffff", "build 89abcdef / 00000000"}; !slices.Equal(d, want) {
		t.Errorf("got %q, want %q", d, want)
	}
}

func near(got *float64, want float64) bool {
	return got != nil && math.Abs(*got-want) <= 1e-3*math.Abs(want)
}

// Means and intervals by hand: n = 5, mean 10, s = sqrt(0.025), t(4; 0.975) =
// 2.7764, so ± 0.19633. For n = 2, s = sqrt(2), t(1; 0.975) = 12.706: ± 12.706,
// and a speed is not below 0.
func TestInterval(t *testing.T) {
	c := newCell(results(t, "a", record(10.2, 9.8, 10, 9.9, 10.1)))
	if !near(&c.Mean, 10) || !near(c.Lo, 9.80367) || !near(c.Hi, 10.19633) {
		t.Errorf("%v, %v to %v", c.Mean, *c.Lo, *c.Hi)
	}
	c = newCell(results(t, "a", record(9, 11)))
	if !near(&c.Mean, 10) || *c.Lo != 0 || !near(c.Hi, 22.706) {
		t.Errorf("%v, %v to %v", c.Mean, *c.Lo, *c.Hi)
	}
	if c = newCell(results(t, "a", record(9))); c.Mean != 9 || c.Lo != nil || c.Hi != nil {
		t.Errorf("one sample: %+v", c)
	}
	limit, slow := 20.0, true
	r := record(9, 11)
	r.LimitTS, r.Throttled = &limit, &slow
	if c = newCell(results(t, "a", r, record(10))); !near(c.Share, 0.5) || !c.Throttled || len(c.Samples) != 3 {
		t.Errorf("pooled: %+v", c)
	}
}

// Runs whose own repeats agree, and that differ from each other, are as sure as
// they agree with each other.
func TestRuns(t *testing.T) {
	calm := func(mean float64) bench.Record { return record(mean, mean*1.001, mean*0.999, mean) }
	a, b := []bench.Record{calm(10), calm(11), calm(9.5), calm(10.4)}, []bench.Record{calm(9), calm(10), calm(9.9), calm(10.6)}
	one := Align(append(results(t, "a", a[0]), results(t, "b", b[0])...)).Rows[0].Cells
	if one[0].Runs != 1 || one[1].Against.Verdict != Slower {
		t.Errorf("a run of each: %d runs, %s", one[0].Runs, one[1].Against.Verdict)
	}
	all := Align(append(results(t, "a", a...), results(t, "b", b...)...)).Rows[0].Cells
	if all[0].Runs != 4 || !slices.Equal(all[0].Samples, []float64{9.5, 10, 10.4, 11}) || all[1].Against.Verdict != Same {
		t.Errorf("4 runs of each: %+v, %s", all[0], all[1].Against.Verdict)
	}
}

func TestVerdict(t *testing.T) {
	base := []float64{10.02, 9.98, 10.00, 10.03, 9.97}
	times := func(f float64) (out []float64) {
		for _, x := range base {
			out = append(out, x*f)
		}
		return out
	}
	for name, c := range map[string]struct {
		samples []float64
		want    Verdict
	}{
		"equal":                 {[]float64{9.99, 10.01, 10.02, 9.96, 10.03}, Same},
		"the very same":         {base, Same},
		"5 % slower":            {times(0.95), Slower},
		"5 % faster":            {times(1.05), Faster},
		"below the floor":       {times(0.985), Same},
		"5 % slower, scattered": {[]float64{9.0, 10.4, 9.1, 10.0, 9.0}, Same},
		"one sample":            {[]float64{5}, Unknown},
		"twice as fast, two":    {[]float64{20, 20.01}, Faster},
	} {
		table := Align(append(results(t, "a", record(slices.Clone(base)...)), results(t, "b", record(slices.Clone(c.samples)...))...))
		a := table.Rows[0].Cells[1].Against
		if a == nil || a.Verdict != c.want {
			t.Errorf("%s: %+v, want %s", name, a, c.want)
		}
	}
	// no test knows what to do where nothing varies
	for f, want := range map[float64]Verdict{1: Same, 0.9: Slower, 1.1: Faster} {
		table := Align(append(results(t, "a", record(10, 10, 10)), results(t, "b", record(10*f, 10*f, 10*f))...))
		if got := table.Rows[0].Cells[1].Against.Verdict; got != want {
			t.Errorf("times %v without variance: %s, want %s", f, got, want)
		}
	}
}

// Welch's test, by hand.
func TestP(t *testing.T) {
	// means 10 and 11, variances 0.1 both, n = 5: t = 1/sqrt(0.04) = 5, 8 degrees
	// of freedom: p = 0.001053 (two-sided)
	s := math.Sqrt(0.1)
	a := []float64{10 - s, 10 + s, 10 - s, 10 + s, 10}
	b := []float64{11 - s, 11 + s, 11 - s, 11 + s, 11}
	table := Align(append(results(t, "a", record(a...)), results(t, "b", record(b...))...))
	if p := table.Rows[0].Cells[1].Against.P; !near(p, 0.001053) {
		t.Errorf("p = %v, want 0.001053", *p)
	}
}

// Holm: the least p of k times k, the next times k-1, never falling.
func TestHolm(t *testing.T) {
	var tests []*Against
	for _, p := range []float64{0.04, 0.01, 0.03, 0.5} {
		tests = append(tests, &Against{P: &p})
	}
	again := slices.Clone(tests)
	holm(tests)
	for i, want := range []float64{0.09, 0.04, 0.09, 0.5} {
		if got := *again[i].P; math.Abs(got-want) > 1e-12 {
			t.Errorf("test %d: %v, want %v", i, got, want)
		}
	}
}

func TestGeomean(t *testing.T) {
	with := func(gen int, samples ...float64) bench.Record {
		r := record(samples...)
		r.Gen = gen
		return r
	}
	all := append(results(t, "a", with(1, 4, 4), with(2, 9, 9), with(3, 50)), results(t, "b", with(1, 8, 8), with(2, 36, 36), with(4, 1))...)
	m := Align(all).Means
	// over the rows that both have: rates sqrt(4*9) and sqrt(8*36), ratio sqrt(2*4)
	if m[1].Rows != 2 || !near(&m[1].Rate, math.Sqrt(8*36)) || !near(&m[1].Ratio, math.Sqrt(8)) || !near(m[1].Lo, math.Sqrt(8)) {
		t.Errorf("%+v", m[1])
	}
	// widths 0.1 and 0.2 of two rows: sqrt(0.01+0.04)/2 about the mean ratio
	half := func(mean, share float64) []float64 { // two samples with this half-interval
		d := share * mean / 12.7062 // t(1; 0.975), s/sqrt(2) = d
		return []float64{mean - d, mean + d}
	}
	all = append(results(t, "a", with(1, half(10, 0.1)...), with(2, half(10, 0.2)...)), results(t, "b", with(1, 10, 10), with(2, 10, 10))...)
	m = Align(all).Means
	if want := math.Exp(math.Sqrt(0.05) / 2); !near(m[1].Hi, want) || !near(m[1].Lo, 1/want) {
		t.Errorf("%v to %v, want %v", *m[1].Lo, *m[1].Hi, want)
	}
	if none := Align(append(results(t, "a", with(1, 4, 4)), results(t, "b", with(2, 4, 4))...)); none.Means[1].Rows != 0 || none.Judged() != 0 {
		t.Errorf("nothing in common: %+v", none.Means[1])
	}
}

func TestRegressions(t *testing.T) {
	prompt := func(samples ...float64) bench.Record {
		r := record(samples...)
		r.Prompt, r.Gen = 512, 0
		return r
	}
	table := Align(append(results(t, "a", record(10, 10.01, 9.99), prompt(100, 100.1, 99.9)), results(t, "b", record(9.5, 9.51, 9.49), prompt(120, 120.1, 119.9))...))
	if got := table.Regressions(4); len(got) != 1 || table.Rows[got[0].Row].Name != "tg128" || got[0].Column != 1 || !near(&got[0].Ratio, 0.95) {
		t.Errorf("%+v", got)
	}
	if got := table.Regressions(6); len(got) != 0 {
		t.Errorf("6 %%: %+v", got)
	}
}

func TestHistory(t *testing.T) {
	day := func(n int, build string, samples ...float64) bench.Record {
		r := record(samples...)
		r.TestTime, r.Fingerprint = time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC), "01234567-"+build
		return r
	}
	elsewhere, prompt := day(1, "bbb", 77, 78), day(1, "aaa", 300)
	elsewhere.Fingerprint = "ffffffff-bbb"
	prompt.Prompt, prompt.Gen = 512, 0
	all := []bench.Record{day(3, "ccc", 9.5, 9.51, 9.49), day(1, "aaa", 10, 10.01, 9.99), elsewhere, day(2, "bbb", 11, 11.01, 10.99), prompt}
	pasts := History(all, nil)
	if len(pasts) != 3 {
		t.Fatalf("%d pasts, want 3: %+v", len(pasts), pasts)
	}
	if pasts = History(all, []string{"TG128", "machine 0123", "q4_k"}); len(pasts) != 1 {
		t.Fatalf("%d pasts, want 1: %+v", len(pasts), pasts)
	}
	var got []string
	for _, p := range pasts[0].Points {
		s := p.Build
		for _, a := range []*Against{p.First, p.Previous} {
			if a != nil {
				s += fmt.Sprintf(" %.2f %s", a.Ratio, a.Verdict)
			}
		}
		got = append(got, s)
	}
	if want := []string{"aaa", "bbb 1.10 faster 1.10 faster", "ccc 0.95 slower 0.86 slower"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if none := History(all, []string{"tg128", "metal"}); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

// Setups of pasts are named by what sets them apart.
func TestSetups(t *testing.T) {
	some, many, batch := record(10), record(11), record(12)
	two, four := 2, 4
	some.Threads, many.Threads, batch.Threads, batch.Batch = &two, &four, &four, 512
	names := func(records ...bench.Record) (all []string) {
		for _, c := range Setups(History(records, nil)) {
			all = append(all, c.Name)
		}
		slices.Sort(all)
		return all
	}
	if got, want := names(some, some), []string{some.Backends + " " + some.ISA}; !slices.Equal(got, want) {
		t.Errorf("one setup: %q, want %q", got, want)
	}
	prompt := some
	prompt.Prompt, prompt.Gen = 512, 0
	if got, want := names(some, many, prompt), []string{"2 threads", "4 threads"}; !slices.Equal(got, want) {
		t.Errorf("threads: %q, want %q", got, want)
	}
	if got := names(some, many, batch); len(got) != 3 || !strings.Contains(got[1]+got[2], "batch 512") {
		t.Errorf("batches: %q", got)
	}
}
