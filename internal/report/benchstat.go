package report

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"drover/internal/bench"
)

// benchstat is Go's benchmark format, a line a sample, so that golang.org/x/perf
// compares two runs (golang.org/design/14313-benchmark-format).
type benchstat struct {
	w   io.Writer
	cpu string // as last written
}

func (b *benchstat) Add(r bench.Record) error {
	var out strings.Builder
	cpu := "unknown"
	if r.CPUInfo != nil {
		cpu = *r.CPUInfo
	}
	if cpu != b.cpu {
		b.cpu = cpu
		fmt.Fprintf(&out, "goos: %s\ngoarch: %s\npkg: drover\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpu)
	}
	name := fmt.Sprintf("BenchmarkDecode/n=%d", r.Gen)
	if r.Prompt > 0 {
		name = fmt.Sprintf("BenchmarkPrompt/n=%d", r.Prompt)
	}
	name += fmt.Sprintf("/model=%s/device=%s/isa=%s/depth=%d/sequences=%d/cache=%s", word(r.ModelType), word(devices(r)), word(r.ISA), r.Depth, r.Sequences, word(r.TypeK+"_"+r.TypeV))
	if r.Threads != nil {
		name += fmt.Sprintf("-%d", *r.Threads)
	}
	for i, ns := range r.SamplesNS {
		tokens := float64(r.Sequences * (r.Prompt + r.Gen))
		fmt.Fprintf(&out, "%s 1 %.0f ns/token %.6g tokens/s", name, float64(ns)/tokens, r.SamplesTS[i])
		if r.LimitTS != nil {
			fmt.Fprintf(&out, " %.4g %%limit", 100*r.SamplesTS[i] / *r.LimitTS)
		}
		out.WriteString("\n")
	}
	_, err := io.WriteString(b.w, out.String())
	return err
}

func (b *benchstat) Close() error { return nil }

// word is text without what separates fields and names in the format.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == '=' || r == '-' {
			return '_'
		}
		return r
	}, s)
}
