package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lengths short enough for the slowest kernels
var benchArgs = []string{"bench", "-p", "8", "-n", "4", "-r", "2"}

func benchOf(t *testing.T, args ...string) result {
	t.Helper()
	return command(t, "", nil, append(benchArgs, args...)...)
}

func TestBenchJSON(t *testing.T) {
	r := benchOf(t, "--json", "-d", "0,70", "-t", "1", "-ctk", "q8_0")
	if r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.errout)
	}
	var doc struct {
		Records []struct {
			Prompt  int `json:"n_prompt"`
			Gen     int `json:"n_gen"`
			Depth   int `json:"n_depth"`
			Threads int `json:"n_threads"`
			TypeK   string
			Size    uint64    `json:"model_size"`
			Params  uint64    `json:"model_n_params"`
			Samples []float64 `json:"samples_ts"`
			Share   *float64  `json:"limit_share"`
			Bytes   *float64  `json:"bytes_per_token"`
			Plan    struct {
				Context int `json:"ctx"`
				Stages  []struct {
					Device, ISA string
					Weights     uint64
				}
			}
			ISA string
		}
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
		t.Fatal(err)
	}
	want := [][3]int{{8, 0, 0}, {0, 4, 0}, {8, 0, 70}, {0, 4, 70}}
	if len(doc.Records) != len(want) {
		t.Fatalf("%d records, want %d: %s", len(doc.Records), len(want), r.out)
	}
	for i, got := range doc.Records {
		if [3]int{got.Prompt, got.Gen, got.Depth} != want[i] || got.Threads != 1 || len(got.Samples) != 2 || got.Share == nil || (got.Bytes == nil) != (got.Gen == 0) {
			t.Errorf("record %d: %+v, want prompt, generation and depth %v", i, got, want[i])
		}
		if len(got.Plan.Stages) != 1 || got.Plan.Stages[0].Device != "cpu" || got.Plan.Stages[0].ISA != got.ISA || got.Plan.Stages[0].Weights == 0 || got.Plan.Context != 78 {
			t.Errorf("record %d: plan %+v", i, got.Plan)
		}
		if got.Params < 4_000_000 || got.Size < 4_000_000 {
			t.Errorf("record %d: %d parameters in %d bytes are not the demo's", i, got.Params, got.Size)
		}
	}
	if other := benchOf(t, "-o", "json"); other.exit != 0 || len(other.object(t)["records"].([]any)) != 2 {
		t.Errorf("-o json: exit %d, %q", other.exit, other.out)
	}
}

func TestBenchFormats(t *testing.T) {
	r := benchOf(t)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	if r.exit != 0 || len(lines) != 4 || !strings.Contains(lines[2], " pp8 ") || !strings.Contains(lines[3], " tg4 ") {
		t.Errorf("md: exit %d, %q", r.exit, r.out)
	}
	r = benchOf(t, "-o", "jsonl", "--sequences", "3")
	if lines = strings.Split(strings.TrimSpace(r.out), "\n"); r.exit != 0 || len(lines) != 2 || !strings.Contains(lines[1], `"sequences":3`) {
		t.Errorf("jsonl: exit %d, %q", r.exit, r.out)
	}
	r = benchOf(t, "-o", "benchstat", "-p", "0")
	if r.exit != 0 || strings.Count(r.out, "\nBenchmarkDecode/n=4/") != 2 {
		t.Errorf("benchstat: exit %d, %q", r.exit, r.out)
	}
	file := filepath.Join(t.TempDir(), "out.csv")
	r = benchOf(t, "-o", "csv", "-O", file, "--json", "--no-warmup")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(data))).ReadAll()
	if r.exit != 0 || err != nil || len(rows) != 3 || len(r.object(t)["records"].([]any)) != 2 {
		t.Errorf("csv to a file and JSON: exit %d, %d rows, %v, %q", r.exit, len(rows), err, r.out)
	}
}

// The ops of a profile read what the record says that decoding reads, and do a
// prompt's operations.
func TestBenchProfile(t *testing.T) {
	for _, model := range []string{"synthetic:dim=64,layers=2,heads=2,kv=1,ffn=96,vocab=512:Q4_0", "synthetic:dim=64,layers=2,heads=4,kv=2,ffn=96,vocab=512,experts=4:F16"} {
		r := benchOf(t, "--json", "--profile", "-d", "0,70", "-m", model, "-t", "2")
		if r.exit != 0 {
			t.Fatalf("exit %d: %s", r.exit, r.errout)
		}
		var doc struct {
			Records []struct {
				Prompt  int      `json:"n_prompt"`
				Samples []int64  `json:"samples_ns"`
				Bytes   *float64 `json:"bytes_per_token"`
				Profile []struct {
					Block, Op string
					Bytes     float64 `json:"bytes_per_token"`
					Share     float64
				}
			}
		}
		if err := json.Unmarshal([]byte(r.out), &doc); err != nil || len(doc.Records) != 4 {
			t.Fatalf("%d records, %v: %s", len(doc.Records), err, r.out)
		}
		for i, got := range doc.Records {
			var bytes, share float64
			for _, o := range got.Profile {
				if share += o.Share; o.Block != "embed" {
					bytes += o.Bytes
				}
			}
			if len(got.Samples) != 2 || len(got.Profile) < 13 || math.Abs(share-1) > 1e-9 {
				t.Errorf("record %d: %d samples, %d ops, shares add up to %v", i, len(got.Samples), len(got.Profile), share)
			}
			if got.Bytes != nil && math.Abs(bytes-*got.Bytes) > 1e-6*bytes {
				t.Errorf("record %d: ops read %v bytes, want %v", i, bytes, *got.Bytes)
			}
		}
	}
	r := benchOf(t, "--profile", "-n", "0")
	if r.exit != 0 || !strings.Contains(r.out, "| attention: attend ") || !strings.Contains(r.out, "barriers: ") {
		t.Errorf("md: exit %d, %q", r.exit, r.out)
	}
}

// Two models, each on its own, by the environment and the command line.
func TestBenchModels(t *testing.T) {
	tiny := "synthetic:dim=64,layers=1,heads=2,kv=1,ffn=96,vocab=512"
	r := command(t, "", []string{"DROVER_BENCH_N_GEN=3", "DROVER_BENCH_N_PROMPT=0"}, "bench", "-r", "1", "-o", "jsonl", "-m", tiny, "-m", tiny+":Q8_0", "--device", "cpu", "--device", "all")
	if lines := strings.Split(strings.TrimSpace(r.out), "\n"); r.exit != 0 || len(lines) != 4 ||
		strings.Count(r.out, `"n_gen":3`) != 4 || strings.Count(r.out, ` Q8_0","model_size"`) != 2 {
		t.Errorf("exit %d, %q, %s", r.exit, r.out, r.errout)
	}
}

// Threads, cache formats and sequences are lists, each with each.
func TestBenchLists(t *testing.T) {
	r := benchOf(t, "-o", "jsonl", "--device", "cpu", "-p", "0", "-t", "1,2", "-ctk", "f16,q8_0", "--sequences", "1,3", "-r", "1")
	var got []string
	for line := range strings.Lines(r.out) {
		var doc struct {
			Threads   int    `json:"n_threads"`
			K         string `json:"type_k"`
			Sequences int
			Set       string `json:"device_set"`
			Devices   string
			Predicted *float64 `json:"predicted_ts"`
			First     *float64 `json:"first_token_ms"`
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Set != "cpu" || doc.Devices != "cpu" || (doc.Predicted == nil) != (doc.Sequences > 1) || doc.First != nil {
			t.Errorf("%+v", doc)
		}
		got = append(got, fmt.Sprintf("%d %s %d", doc.Threads, doc.K, doc.Sequences))
	}
	if want := []string{"1 f16 1", "1 f16 3", "1 q8_0 1", "1 q8_0 3", "2 f16 1", "2 f16 3", "2 q8_0 1", "2 q8_0 3"}; r.exit != 0 || !slices.Equal(got, want) {
		t.Errorf("exit %d, %q, want %q, %s", r.exit, got, want, r.errout)
	}
	r = benchOf(t, "-o", "jsonl", "-n", "0")
	if !strings.Contains(r.out, `"first_token_ms":`) || strings.Contains(r.out, `"first_token_ms":null`) {
		t.Errorf("a prompt has no time to the first token: %q", r.out)
	}
}

// A test whose time is used up begins no further repeat, and says so.
func TestBenchBudget(t *testing.T) {
	r := benchOf(t, "-o", "jsonl", "-n", "0", "-r", "9", "--budget", "1e-6")
	if r.exit != 0 || strings.Count(r.out, "\n") != 1 || !strings.Contains(r.errout, "pp8: repeated 1 of 9 times") || !strings.Contains(r.out, `"interval_ts":null`) {
		t.Errorf("exit %d, %q, %q", r.exit, r.out, r.errout)
	}
}

// --save appends to what is kept.
func TestBenchSave(t *testing.T) {
	data := t.TempDir()
	for i := range 2 {
		r := command(t, "", []string{"XDG_DATA_HOME=" + data}, append(benchArgs, "--save", "--json")...)
		kept, err := os.ReadFile(filepath.Join(data, "drover", "bench", "records.jsonl"))
		if lines := strings.Count(string(kept), "\n"); r.exit != 0 || err != nil || lines != 2*(i+1) || len(r.object(t)["records"].([]any)) != 2 {
			t.Errorf("run %d: exit %d, %d lines, %v", i, r.exit, lines, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := command(t, "", []string{"XDG_DATA_HOME=" + file}, append(benchArgs, "--save", "--json")...)
	if doc := r.object(t); r.exit != 1 || !strings.Contains(fmt.Sprint(doc["error"]), "--save") || len(doc["records"].([]any)) != 1 {
		t.Errorf("where nothing can be kept: exit %d, %q", r.exit, r.out)
	}
}

func TestBenchRefuses(t *testing.T) {
	for _, c := range []struct {
		exit int
		says string
		args []string
	}{
		{2, "nothing to measure", []string{"-p", "0", "-n", "0"}},
		{2, "not a number of tokens", []string{"-p", "8,x"}},
		{2, "not a number of tokens", []string{"-n", "-1"}},
		{2, "not a number of repeats", []string{"-r", "0"}},
		{2, "sequences", []string{"--sequences", "0"}},
		{2, "not a number of sequences", []string{"--sequences", "1,many"}},
		{2, "not a number of threads", []string{"-t", "1,5000"}},
		{2, "not a number of seconds", []string{"--budget", "-1"}},
		{2, "names cpu twice", []string{"--device", "cpu,cpu"}},
		{2, "positions", []string{"-d", "2000000000"}},
		{2, "jsonl", []string{"-o", "xml"}},
		{2, "--json and -o md", []string{"--json", "-o", "md"}},
		{2, "output-file", []string{"-O", filepath.Join(t.TempDir(), "no", "such", "folder")}},
		{2, "unknown cache format", []string{"-ctk", "q4_0"}},
		{3, "no-such.gguf", []string{"-m", "no-such.gguf"}},
		{4, "cuda", []string{"--device", "cuda"}},
		{5, "", []string{"-d", "4000000", "--sequences", "1000"}},
	} {
		r := benchOf(t, c.args...)
		said := r.errout
		if c.args[0] == "--json" {
			said, r.out = r.out, ""
		}
		if r.exit != c.exit || !strings.Contains(said, c.says) || r.out != "" {
			t.Errorf("%q: exit %d, want %d; said %q, want %q in it; stdout %q", c.args, r.exit, c.exit, said, c.says, r.out)
		}
	}
}
