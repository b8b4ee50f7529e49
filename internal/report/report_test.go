package report

import (
	"encoding/csv"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/internal/bench"
)

// record is a result with some things known and some not.
func record() bench.Record {
	threads, cpu, limit, share := 2, `Some "CPU", 3 GHz`, 20.0, 0.75
	peak, half := uint64(3<<30), 0.25
	return bench.Record{
		Schema: 1, Fingerprint: "01234567-89abcdef", Backends: "cpu", CPUInfo: &cpu, ISA: "avx2",
		ModelFilename: "a b.gguf", ModelType: "llama 6.7B Q4_0", ModelSize: 3_825_065_984, ModelParams: 6_738_415_616,
		Batch: 2048, Threads: &threads, TypeK: "f16", TypeV: "f16", Gen: 128, Sequences: 1,
		TestTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		AvgNS:    8.5e9, AvgTS: 15, StddevTS: 0.5, Interval: &half, SamplesNS: []int64{8_000_000_000, 9_000_000_000}, SamplesTS: []float64{16, 14.25},
		LimitTS: &limit, LimitShare: &share, PeakBytes: &peak,
	}
}

func write(t *testing.T, format string, records ...bench.Record) string {
	t.Helper()
	var out strings.Builder
	w, err := New(&out, format)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := w.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// cells are the texts of a table's line.
func cells(line string) []string {
	var out []string
	for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
		out = append(out, strings.TrimSpace(c))
	}
	return out
}

func TestMarkdown(t *testing.T) {
	second := record()
	second.Gen, second.Prompt, second.LimitTS, second.LimitShare, second.Threads, second.PeakBytes = 0, 512, nil, nil, nil, nil
	first, joules, predicted := 12.34, 1.5, 14.5
	second.FirstToken, second.Joules, second.PredictedTS, second.Interval, second.TypeV, second.Devices = &first, &joules, &predicted, nil, "q8_0", "cuda:0"
	yes := true
	second.DeviceSet, second.ISA, second.Simulated = "auto", "sm_80", &yes
	got := strings.Split(strings.TrimSpace(write(t, "md", record(), second)), "\n")
	if len(got) != 4 {
		t.Fatalf("%d lines, want 4: %q", len(got), got)
	}
	for i, want := range map[int][]string{
		0: {"model", "size", "device", "threads", "test", "t/s", "limit t/s", "of limit", "predicted", "first token", "J/token", "peak memory"},
		2: {"llama 6.7B Q4_0", "3.56 GiB", "cpu avx2", "2", "tg128", "15.00 ± 0.25", "20.00", "75.0 %", "", "", "", "3.00 GiB"},
		3: {"llama 6.7B Q4_0", "3.56 GiB", "auto: cuda:0 sm_80 (simulated)", "", "pp512 f16/q8_0", "15.00", "", "", "14.50", "12.34 ms", "1.5", ""},
	} {
		if !slices.Equal(cells(got[i]), want) {
			t.Errorf("line %d: %q, want %q", i, cells(got[i]), want)
		}
	}
	for i, line := range got {
		if n, want := len([]rune(line)), len([]rune(got[0])); i < 3 && n != want {
			t.Errorf("line %d is %d wide, the head %d", i, n, want)
		}
	}
}

// Profiles come after the table, one for each test that has one.
func TestMarkdownProfile(t *testing.T) {
	limit, share := 600.0, 0.75
	r := record()
	r.Profile = []bench.Op{
		{Block: "attention", Op: "q k v", Calls: 4, Barriers: 4, US: 800, Share: 0.8, Bytes: 3 << 20, Activations: 512, Ops: 1.5e6, LimitUS: &limit, LimitShare: &share},
		{Block: "attention", Op: "attend", Calls: 4, Barriers: 8, US: 100, Share: 0.1, FloatOps: 999},
		{Block: "feed-forward", Op: "down", Calls: 2, Barriers: 2, US: 50, Share: 0.05},
		{Block: "head", Op: "logits", Calls: 1, Barriers: 1, US: 30, Share: 0.03},
		{Op: "other", US: 20, Share: 0.02},
	}
	got := strings.Split(strings.TrimSpace(write(t, "md", r, record(), r)), "\n")
	if want := 5 + 2*(3+7); len(got) != want {
		t.Fatalf("%d lines, want %d: %q", len(got), want, got)
	}
	if want := "llama 6.7B Q4_0, cpu avx2, tg128: 1000.0 µs a token in a profiled pass, 66666.7 as measured; limits of the ops 600.0; barriers: 15 a token, 4 a layer"; got[6] != want {
		t.Errorf("%q, want %q", got[6], want)
	}
	for i, want := range map[int][]string{
		8:  {"op", "calls", "barriers", "µs", "of pass", "reads", "activations", "operations", "limit µs", "of limit"},
		10: {"attention: q k v", "4", "4", "800.00", "80.0 %", "3.00 MiB", "512 B", "1.5 M", "600.00", "75.0 %"},
		11: {"attention: attend", "4", "8", "100.00", "10.0 %", "", "", "999", "", ""},
		14: {"other", "0", "0", "20.00", "2.0 %", "", "", "", "", ""},
	} {
		if !slices.Equal(cells(got[i]), want) {
			t.Errorf("line %d: %q, want %q", i, cells(got[i]), want)
		}
		if n, want := len([]rune(got[i])), len([]rune(got[8])); n != want {
			t.Errorf("line %d is %d wide, the head %d", i, n, want)
		}
	}
	if got := write(t, "jsonl", r); !strings.Contains(got, `"profile":[{"block":"attention","op":"q k v","calls_per_token":4,`) {
		t.Errorf("jsonl: %q", got)
	}
}

func TestJSON(t *testing.T) {
	var doc struct {
		Schema  int
		Records []map[string]any
	}
	if err := json.Unmarshal([]byte(write(t, "json", record(), record())), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Schema != 1 || len(doc.Records) != 2 || doc.Records[1]["avg_ts"] != 15.0 || doc.Records[1]["test_time"] != "2026-01-02T03:04:05Z" {
		t.Errorf("got %+v", doc)
	}
	// without a record it is still a document, with an empty list
	if got := write(t, "json"); !strings.Contains(got, `"records": []`) {
		t.Errorf("no records: %q", got)
	}
	lines := strings.Split(strings.TrimSpace(write(t, "jsonl", record(), record())), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2", len(lines))
	}
	for _, line := range lines {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil || r["schema"] != 1.0 || r["n_gen"] != 128.0 {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestCSV(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(write(t, "csv", record(), record()))).ReadAll()
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	for name, want := range map[string]string{"schema": "1", "cpu_info": `Some "CPU", 3 GHz`, "gpu_info": "", "model_filename": "a b.gguf",
		"samples_ns": "[8000000000,9000000000]", "limit_share": "0.75", "throttled": ""} {
		i := slices.Index(rows[0], name)
		if i < 0 || rows[2][i] != want {
			t.Errorf("%s: column %d, row %q, want %q", name, i, rows[2], want)
		}
	}
}

// Each line is what golang.org/x/perf's reader takes: a name, a count, then
// pairs of value and unit.
func TestBenchstat(t *testing.T) {
	got := strings.Split(strings.TrimSpace(write(t, "benchstat", record(), record())), "\n")
	line := regexp.MustCompile(`^Benchmark[A-Z][^ ]*-2 1( [0-9.e+]+ [^ ]+)+$`)
	samples := 0
	for _, l := range got {
		if strings.HasPrefix(l, "Benchmark") {
			samples++
			if !line.MatchString(l) || !strings.Contains(l, "tokens/s") {
				t.Errorf("line %q", l)
			}
		}
	}
	if samples != 4 || got[3] != `cpu: Some "CPU", 3 GHz` || strings.Count(strings.Join(got, "\n"), "cpu: ") != 1 {
		t.Errorf("%d samples in %q", samples, got)
	}
	if want := "62500000 ns/token 16 tokens/s 80 %limit"; !strings.Contains(got[4], want) {
		t.Errorf("%q lacks %q", got[4], want)
	}
}

func TestRemarks(t *testing.T) {
	if got := Remarks(record(), 2); len(got) > 0 {
		t.Errorf("a usual record: %q", got)
	}
	r, wide := record(), 0.6
	r.Outliers, r.Interval, r.ThrottledBy = []int{1}, &wide, []string{"power limit", "temperature"}
	want := []string{"tg128: repeated 2 of 5 times: it was interrupted, or --budget was spent",
		"tg128: after 2 repeats the mean is known to ± 4.0 % (95 %)", "tg128: 1 of 2 repeats are far from the others", "tg128: slower than the device could be: power limit, temperature"}
	if got := Remarks(r, 5); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUnknownFormat(t *testing.T) {
	if _, err := New(&strings.Builder{}, "xml"); err == nil || !strings.Contains(err.Error(), "jsonl") {
		t.Errorf("error %v, want one that lists the formats", err)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 3 << 29: "1.50 GiB", 1 << 50: "1024.00 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
