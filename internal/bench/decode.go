package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrRecord: what should be a record is not one, or says what cannot be.
var ErrRecord = errors.New("not a record of drover bench")

// Bounds on what a record may hold.
const (
	maxSamples = 1 << 20
	maxText    = 1 << 12 // bytes of a name
)

// Decode reads one record as json writes it. Errors: ErrRecord.
func Decode(text []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := r.Check(); err != nil {
		return r, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return r, nil
}

// Check holds a record to what a measurement can be.
func (r *Record) Check() error {
	if r.Schema != Schema {
		return fmt.Errorf("schema %d, this drover reads %d", r.Schema, Schema)
	}
	for name, s := range map[string]string{"model_type": r.ModelType, "model_filename": r.ModelFilename, "backends": r.Backends, "isa": r.ISA,
		"fingerprint": r.Fingerprint, "device_set": r.DeviceSet, "version": r.Machine.Version, "type_k": r.TypeK, "type_v": r.TypeV, "cpu_info": known(r.CPUInfo), "gpu_info": known(r.GPUInfo), "driver": known(r.Driver)} {
		if len(s) > maxText {
			return fmt.Errorf("%s of %d bytes, more than %d", name, len(s), maxText)
		}
	}
	for name, n := range map[string]int{"n_prompt": r.Prompt, "n_gen": r.Gen, "n_depth": r.Depth, "n_batch": r.Batch} {
		if n < 0 || n > maxContext {
			return fmt.Errorf("%s is %d, which is not from 0 to %d", name, n, maxContext)
		}
	}
	switch {
	case strings.TrimSpace(r.ModelType) == "":
		return errors.New("model_type is missing")
	case r.Prompt+r.Gen == 0:
		return errors.New("n_prompt and n_gen are both 0")
	case r.Sequences < 1 || r.Sequences > maxSequences:
		return fmt.Errorf("sequences is %d, which is not from 1 to %d", r.Sequences, maxSequences)
	case len(r.SamplesTS) > maxSamples || len(r.SamplesNS) > maxSamples:
		return fmt.Errorf("%d samples, more than %d", max(len(r.SamplesTS), len(r.SamplesNS)), maxSamples)
	case !measured(r.AvgTS):
		return fmt.Errorf("avg_ts is %v, which is not a speed", r.AvgTS)
	}
	for _, x := range r.SamplesTS {
		if !measured(x) {
			return fmt.Errorf("samples_ts has %v, which is not a speed", x)
		}
	}
	for name, x := range map[string]*float64{"limit_ts": r.LimitTS, "predicted_ts": r.PredictedTS, "bytes_per_token": r.BytesPerToken} {
		if x != nil && !measured(*x) {
			return fmt.Errorf("%s is %v, which is no amount", name, *x)
		}
	}
	return nil
}

// measured: the amounts that a test can find, with room for machines to come.
func measured(x float64) bool { return x >= 1e-9 && x <= 1e18 && !math.IsNaN(x) }

func known(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
