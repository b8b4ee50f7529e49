package compare

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"drover/internal/bench"
)

// record is a result of drover with these samples.
func record(samples ...float64) bench.Record {
	threads, cpu, simulated := 2, "Some CPU", false
	r := bench.Record{Schema: bench.Schema, Fingerprint: "01234567-89abcdef", Backends: "cpu", CPUInfo: &cpu, ISA: "avx2", ModelFilename: "m.gguf",
		ModelType: "llama 6.7B Q4_K_M", ModelSize: 4_081_000_000, ModelParams: 6_738_415_616, Batch: 2048, Threads: &threads, TypeK: "f16", TypeV: "f16",
		Gen: 128, Sequences: 1, TestTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), SamplesTS: samples, Simulated: &simulated}
	for _, s := range samples {
		r.AvgTS += s / float64(len(samples))
		r.SamplesNS = append(r.SamplesNS, int64(128e9/s))
	}
	return r
}

// llama is the same work in llama-bench's words.
const llama = `{"build_commit": "de3ff81", "build_number": 1, "cpu_info": "Some CPU", "gpu_info": "", "backends": "CPU", "model_filename": "m.gguf",
 "model_type": "llama 7B Q4_K - Medium", "model_size": 4081000000, "model_n_params": 6738415616, "n_batch": 2048, "n_ubatch": 512, "n_threads": 2,
 "type_k": "f16", "type_v": "f16", "n_gpu_layers": -1, "devices": "auto", "tensor_split": "0.00", "n_prompt": 0, "n_gen": 128, "n_depth": 0,
 "test_time": "2026-11-26T04:54:39Z", "avg_ns": 12800000000, "stddev_ns": 0, "avg_ts": 10, "stddev_ts": 0, "samples_ns": [12800000000, 12800000000], "samples_ts": [10, 10]}`

func line(t testing.TB, r bench.Record) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// results reads a file of these records.
func results(t *testing.T, name string, records ...bench.Record) []Result {
	t.Helper()
	var lines []string
	for _, r := range records {
		lines = append(lines, line(t, r))
	}
	got, err := Read(name, strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return got
}
