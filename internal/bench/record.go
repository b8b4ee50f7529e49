package bench

import (
	"fmt"
	"math"
	"slices"
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
	Fingerprint   string    `json:"fingerprint"` // hardware-build, see Machine
	Machine       Machine   `json:"fingerprint_parts"`
	Backends      string    `json:"backends"`   // the kinds of device in use: "cuda,cpu"
	DeviceSet     string    `json:"device_set"` // as asked for: "auto", "cuda:0,cpu"
	Devices       string    `json:"devices"`    // of it that carry something, "cuda:0,cpu": the plan says what
	CPUInfo       *string   `json:"cpu_info"`
	GPUInfo       *string   `json:"gpu_info"`
	Driver        *string   `json:"driver"`
	ISA           string    `json:"isa"` // the kernel sets in use
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

	// A sample is one repeat: its time, the mean of its passes, and the tokens/s of
	// all sequences together. Deviations are of the sample (n-1), 0 for a single one.
	AvgNS     float64   `json:"avg_ns"`
	StddevNS  float64   `json:"stddev_ns"`
	AvgTS     float64   `json:"avg_ts"`
	StddevTS  float64   `json:"stddev_ts"`
	SamplesNS []int64   `json:"samples_ns"`
	SamplesTS []float64 `json:"samples_ts"`
	Interval  *float64  `json:"interval_ts"` // half the 95 % confidence interval of avg_ts, by Student's t
	Outliers  []int     `json:"outliers"`    // indices of samples far from the median; they count all the same

	FirstToken    *float64  `json:"first_token_ms"` // from the request to its first token, mean of sequences and repeats; null for generation
	PredictedTS   *float64  `json:"predicted_ts"`
	BytesPerToken *float64  `json:"bytes_per_token"`  // read by decode, mean over the steps; null for prompts
	LimitTS       *float64  `json:"limit_ts"`         // by the rates measured in this run
	LimitShare    *float64  `json:"limit_share"`      // avg_ts / limit_ts
	Joules        *float64  `json:"joules_per_token"` // of the devices in use, by their own meters
	PeakBytes     *uint64   `json:"peak_bytes"`       // of the devices in use, from before loading on
	Clocks        []float64 `json:"clocks"`           // MHz, before the test and at the end of each repeat
	Celsius       []float64 `json:"celsius"`          // the same moments
	Throttled     *bool     `json:"throttled"`
	ThrottledBy   []string  `json:"throttled_by"` // why; null: not told
	Simulated     *bool     `json:"simulated"`    // a software device's time says nothing about a real one
	Profile       []Op      `json:"profile"`      // where the time went, by op; null: not asked for, or not told

	first  []float64 // ms
	joules []float64 // of each repeat; fewer than repeats where a device does not tell
}

// newRecord is a record of a test on those devices that carry the model.
func newRecord(in []backend.Info, s Subject, parts []part, t Test, o *Options) Record {
	m := newMachine(in, o)
	r := Record{
		Schema: Schema, Fingerprint: m.fingerprint(), Machine: m, DeviceSet: o.Set, CPUInfo: text(o.CPU), Outliers: []int{},
		ModelFilename: s.Filename, ModelType: modelType(s), ModelSize: s.Bytes, ModelParams: s.Params,
		Batch: o.Batch, TypeK: strings.ToLower(o.K.String()), TypeV: strings.ToLower(o.V.String()),
		Prompt: t.Prompt, Gen: t.Gen, Depth: t.Depth, Sequences: t.Sequences,
		TestTime: time.Now().UTC().Truncate(time.Second),
	}
	r.describe(in, o)
	if t.Gen > 0 {
		r.BytesPerToken = positive(stepBytes(s.Model, whole(s.Model), t, o.K, o.V) / float64(t.Sequences))
	}
	if o.Describe != nil {
		plan, predicted := o.Describe(t)
		r.Plan, r.PredictedTS = plan, positive(predicted)
	}
	r.LimitTS = positive(limit(s.Model, parts, t, o))
	return r
}

// describe names the devices in use.
func (r *Record) describe(in []backend.Info, o *Options) {
	var ids, kinds, sets, names, drivers []string
	simulated := false
	add := func(list *[]string, s string, twice bool) {
		if s != "" && (twice || !slices.Contains(*list, s)) {
			*list = append(*list, s)
		}
	}
	for _, i := range in {
		add(&ids, i.ID, true)
		add(&kinds, i.Kind, false)
		add(&sets, i.ISA, false)
		add(&drivers, i.Driver, false)
		if i.Kind == "cpu" && o.Threads > 0 {
			r.Threads = &o.Threads
		}
		if i.Kind == "cuda" || i.Kind == "metal" {
			add(&names, i.Name, true)
		}
		simulated = simulated || i.Simulated
	}
	r.Simulated = &simulated
	r.Devices, r.Backends, r.ISA = strings.Join(ids, ","), strings.Join(kinds, ","), strings.Join(sets, ",")
	r.GPUInfo, r.Driver = text(strings.Join(names, ", ")), text(strings.Join(drivers, ", "))
}

// add takes a repeat.
func (r *Record) add(passes []pass, m *meter) {
	var took, first time.Duration
	joules, told := 0.0, true
	for _, p := range passes {
		j, ok := m.energy(p.from, p.to)
		took, first, told = took+p.took, first+p.first, told && ok
		joules += j / float64(p.to.Sub(p.from)) * float64(p.took)
	}
	n := len(passes)
	took = max(1, took/time.Duration(n))
	r.SamplesNS = append(r.SamplesNS, took.Nanoseconds())
	r.SamplesTS = append(r.SamplesTS, float64(r.test().tokens())/took.Seconds())
	if first > 0 {
		r.first = append(r.first, float64(first)/float64(n)/1e6)
	}
	if told {
		r.joules = append(r.joules, joules/float64(n))
	}
}

func (r *Record) test() Test {
	return Test{Prompt: r.Prompt, Gen: r.Gen, Depth: r.Depth, Sequences: r.Sequences}
}

// sense keeps clock and temperature of a moment.
func (r *Record) sense(s backend.Sensors) {
	if s.MHz != nil {
		r.Clocks = append(r.Clocks, *s.MHz)
	}
	if s.Celsius != nil {
		r.Celsius = append(r.Celsius, *s.Celsius)
	}
}

// finish derives means and shares from the samples.
func (r *Record) finish(m *meter) {
	if len(r.SamplesNS) == 0 {
		return
	}
	ns := make([]float64, len(r.SamplesNS))
	for i, n := range r.SamplesNS {
		ns[i] = float64(n)
	}
	r.AvgNS, r.StddevNS = meanDeviation(ns)
	r.AvgTS, r.StddevTS = meanDeviation(r.SamplesTS)
	if half, ok := interval(r.SamplesTS); ok {
		r.Interval = &half
	}
	r.Outliers = outliers(r.SamplesTS)
	if r.LimitTS != nil {
		r.LimitShare = positive(r.AvgTS / *r.LimitTS)
	}
	if len(r.first) == len(ns) {
		mean, _ := meanDeviation(r.first)
		r.FirstToken = positive(mean)
	}
	if len(r.joules) == len(ns) {
		mean, _ := meanDeviation(r.joules)
		r.Joules = positive(mean / float64(r.test().tokens()))
	}
	if r.ThrottledBy = m.throttled(); r.ThrottledBy != nil {
		slow := len(r.ThrottledBy) > 0
		r.Throttled = &slow
	}
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
