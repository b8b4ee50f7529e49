package main

import (
	"fmt"
	"io"

	"drover/backend"
	"drover/internal/engine"
	"drover/internal/quant"
	"drover/internal/rates"
	"drover/internal/sched"
)

// outcome is what a run was, beside what the plan had predicted for it.
type outcome struct {
	timings timings
	prompt  int // tokens read: without those that were in the cache
	tokens  int // decoded, each from the one before
	stages  []stageTime

	predicted *sched.Plan // for this request; nil: the plan predicts nothing
}

// stageTime is what a decoded token takes on a stage, in milliseconds.
type stageTime struct {
	device    string
	measured  float64 // 0: not known
	predicted float64
}

// outcome is that of one request, before which the engine had counted so much.
func (s *session) outcome(r engine.Result, before engine.Stats) *outcome {
	o := &outcome{timings: s.timings(r), prompt: r.PromptTokens - r.Reused, tokens: max(0, len(r.Tokens)-1)}
	p := s.placer.current()
	if p.Predicted == 0 {
		return o
	}
	q, err := p.For(sched.Request{Depth: r.Reused, Prompt: o.prompt, Generate: max(1, o.tokens)})
	if err != nil {
		return o // the devices were asked the same before
	}
	o.predicted = q
	for i := range q.Stages {
		o.stages = append(o.stages, stageTime{device: q.Stages[i].Device, predicted: float64(q.Stages[i].MS)})
	}
	now := s.engine.Stats()
	steps := now.DecodeSteps - before.DecodeSteps
	for i := range o.stages {
		switch {
		case len(o.stages) == 1 && o.timings.DecodeRate > 0:
			o.stages[i].measured = 1000 / o.timings.DecodeRate
		case now.Replanned == before.Replanned && len(now.Stages) == len(o.stages) && steps > 0:
			busy := now.Stages[i].Decode - before.Stages[i].Decode
			o.stages[i].measured = 1000 * busy.Seconds() / float64(steps)
		}
	}
	return o
}

// write prints measured beside predicted.
func (o *outcome) write(w io.Writer) {
	t := &o.timings
	fmt.Fprintf(w, "prompt: %d tokens in %.1f ms, %.1f tokens/s", o.prompt, t.PromptMS, t.PromptRate)
	if o.predicted != nil && o.predicted.Prompt > 0 {
		fmt.Fprintf(w, " (predicted %.1f)", o.predicted.Prompt)
	}
	fmt.Fprintf(w, "\ndecode: %d tokens in %.1f ms", o.tokens, t.DecodeMS)
	if o.tokens > 0 && t.DecodeRate > 0 {
		fmt.Fprintf(w, ", %.2f ms a token", 1000/t.DecodeRate)
		if o.predicted != nil {
			fmt.Fprintf(w, " (predicted %.2f)", 1000/o.predicted.Predicted)
		}
		fmt.Fprintf(w, ", %.1f tokens/s", t.DecodeRate)
		if o.predicted != nil {
			fmt.Fprintf(w, " (predicted %.1f)", o.predicted.Predicted)
		}
	}
	if t.BandwidthShare != nil {
		fmt.Fprintf(w, ", %.0f %% of the memory bandwidth", 100**t.BandwidthShare)
	}
	fmt.Fprintln(w)
	for _, s := range o.stages {
		if len(o.stages) > 1 && s.measured > 0 {
			fmt.Fprintf(w, "%s: %.2f ms a token (predicted %.2f)\n", s.device, s.measured, s.predicted)
		}
	}
}

// learn lets what the stages showed correct the speeds that are kept.
func (s *session) learn(o *outcome) {
	p := s.placer.current()
	for i, st := range o.stages {
		known := s.machine.speeds.known[st.device]
		if known == nil || known.guessed || st.measured == 0 {
			continue
		}
		format, bytes := decodeReads(s.file.Model, p.Stages[i].Runs)
		s.machine.speeds.learn(known, rates.Run{Format: format, Tokens: o.tokens, Bytes: bytes, Predicted: st.predicted, Measured: st.measured})
	}
}

// decodeReads is how many bytes of weights a token reads, of mixtures of experts
// all, and the format of most of them.
func decodeReads(m *backend.Model, runs []backend.Range) (most quant.Type, all uint64) {
	bytes := map[quant.Type]uint64{}
	for _, r := range runs {
		for _, t := range m.Tensors(backend.Range{Lo: max(r.Lo, 1), Hi: r.Hi}) {
			all += t.Bytes()
			if bytes[t.Type] += t.Bytes(); bytes[t.Type] > bytes[most] {
				most = t.Type
			}
		}
	}
	return most, all
}
