package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"time"

	"drover/backend"
)

// Schema is the version of Record.
const Schema = 1

// Record is the result of one test, with llama-bench's field names where it has
// them. What was not measured or is not known is null.
type Record struct {
	Schema        int       `json:"schema"`
	Fingerprint   string    `json:"fingerprint"` // hardware-build, see fingerprint
	Backends      string    `json:"backends"`    // the kinds of device in use: "cpu"
	CPUInfo       *string   `json:"cpu_info"`
	GPUInfo       *string   `json:"gpu_info"`
	Driver        *string   `json:"driver"`
	ISA           string    `json:"isa"` // the kernel set in use
	ModelFilename string    `json:"model_filename"`
	ModelType     string    `json:"model_type"` // "llama 6.7B Q4_0"
	ModelSize     uint64    `json:"model_size"` // bytes of all tensors
	ModelParams   uint64    `json:"model_n_params"`
	Batch         int       `json:"n_batch"`
	Threads       *int      `json:"n_threads"`
	TypeK         string    `json:"type_k"`
	TypeV         string    `json:"type_v"`
	Prompt        int       `json:"n_prompt"` // tokens of each sequence
	Gen           int       `json:"n_gen"`    // tokens of each sequence
	Depth         int       `json:"n_depth"`
	Sequences     int       `json:"sequences"`
	Plan          any       `json:"plan"`
	TestTime      time.Time `json:"test_time"` // when the test began

	// A sample is one repeat: its time, and the tokens/s of all sequences
	// together. Deviations are of the sample (n-1), 0 for a single one.
	AvgNS     float64   `json:"avg_ns"`
	StddevNS  float64   `json:"stddev_ns"`
	AvgTS     float64   `json:"avg_ts"`
	StddevTS  float64   `json:"stddev_ts"`
	SamplesNS []int64   `json:"samples_ns"`
	SamplesTS []float64 `json:"samples_ts"`

	PredictedTS   *float64  `json:"predicted_ts"`
	BytesPerToken *float64  `json:"bytes_per_token"`  // read by decode, mean over the steps; null for prompts
	LimitTS       *float64  `json:"limit_ts"`         // by the rates measured in this run
	LimitShare    *float64  `json:"limit_share"`      // avg_ts / limit_ts
	Joules        *float64  `json:"joules_per_token"` // mean of power readings x mean time
	PeakBytes     *uint64   `json:"peak_bytes"`       // memory of this process, from before loading on
	Clocks        []float64 `json:"clocks"`           // MHz, read at the end of each repeat
	Throttled     *bool     `json:"throttled"`
	Simulated     *bool     `json:"simulated"` // a software device's time says nothing about a real one
	Profile       []Op      `json:"profile"`   // where the time went, by op; null: not asked for, or not told

	watts []float64
}

func newRecord(dev backend.Device, s Subject, t Test, o Options, placed Placed) Record {
	info := dev.Info()
	r := Record{
		Schema: Schema, Fingerprint: fingerprint(info, o.CPU),
		Backends: info.Kind, CPUInfo: text(o.CPU), Driver: text(info.Driver), ISA: info.ISA,
		ModelFilename: s.Filename, ModelType: modelType(s), ModelSize: s.Bytes, ModelParams: s.Params,
		Batch: o.Batch, TypeK: strings.ToLower(o.K.String()), TypeV: strings.ToLower(o.V.String()),
		Prompt: t.Prompt, Gen: t.Gen, Depth: t.Depth, Sequences: t.Sequences,
		TestTime: time.Now().UTC().Truncate(time.Second), Plan: placed.Plan,
	}
	if o.Threads > 0 {
		r.Threads = &o.Threads
	}
	switch kind, _, _ := strings.Cut(info.Kind, ","); kind { // of several devices GPUs come first
	case "cpu":
		r.Simulated = &info.Simulated
	case "cuda", "metal":
		r.GPUInfo, r.Simulated = text(info.Name), &info.Simulated
	}
	if t.Gen > 0 {
		r.BytesPerToken = positive(stepBytes(s.Model, t, o.K, o.V) / float64(t.Sequences))
	}
	if placed.Predict != nil {
		r.PredictedTS = positive(placed.Predict(t))
	} else {
		r.PredictedTS = positive(predict(s.Model, t, o, placed.Rates))
	}
	r.LimitTS = positive(limit(s.Model, t, o, placed.Rates))
	return r
}

// sense keeps what the sensors told at the end of a repeat.
func (r *Record) sense(s backend.Sensors) {
	if s.MHz != nil {
		r.Clocks = append(r.Clocks, *s.MHz)
	}
	if s.Watts != nil {
		r.watts = append(r.watts, *s.Watts)
	}
}

// finish derives means and shares from the samples; peak says that the process's
// peak memory counts from before loading on.
func (r *Record) finish(t Test, peak bool) {
	if len(r.SamplesNS) == 0 {
		return
	}
	ns := make([]float64, len(r.SamplesNS))
	r.SamplesTS = make([]float64, len(ns))
	for i, n := range r.SamplesNS {
		ns[i] = float64(n)
		r.SamplesTS[i] = float64(t.tokens()) / (ns[i] * 1e-9)
	}
	r.AvgNS, r.StddevNS = meanDeviation(ns)
	r.AvgTS, r.StddevTS = meanDeviation(r.SamplesTS)
	if r.LimitTS != nil {
		r.LimitShare = positive(r.AvgTS / *r.LimitTS)
	}
	if len(r.watts) == len(ns) {
		watts, _ := meanDeviation(r.watts)
		r.Joules = positive(watts * r.AvgNS * 1e-9 / float64(t.tokens()))
	}
	// only the processor's memory is this process's memory
	if n, ok := readPeak(); ok && peak && r.Backends == "cpu" {
		r.PeakBytes = &n
	}
}

// meanDeviation is the mean and the sample deviation (n-1), 0 for one value.
func meanDeviation(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)-1))
}

// fingerprint tells apart what must not be compared unsaid: eight hex digits of
// the hardware, a dash, eight of the program itself (zeros if it cannot be read).
func fingerprint(info backend.Info, cpu string) string {
	hardware := sha256.Sum256(fmt.Appendf(nil, "%s/%s %d %q %q %q %q %q %d %d", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		cpu, info.Kind, info.Name, info.UUID, info.Driver, info.Cores, info.Total))
	return hex.EncodeToString(hardware[:4]) + "-" + program()
}

// program is the first eight hex digits of the running file's SHA-256.
func program() string {
	const unknown = "00000000"
	path, err := os.Executable()
	if err != nil {
		return unknown
	}
	f, err := os.Open(path)
	if err != nil {
		return unknown
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return unknown
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
}

// modelType describes a model as llama-bench does: "llama 6.7B Q4_0".
func modelType(s Subject) string {
	n, unit := float64(s.Params), ""
	for _, u := range []string{"K", "M", "B", "T"} {
		if n < 1000 {
			break
		}
		n, unit = n/1000, u
	}
	return fmt.Sprintf("%s %.1f%s %s", s.Model.Config.Arch, n, unit, s.TypeName)
}

// text is nil for what is not known.
func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// positive is nil for what was not measured.
func positive(x float64) *float64 {
	if !(x > 0) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}
