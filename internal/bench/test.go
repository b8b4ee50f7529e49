package bench

import (
	"fmt"

	"drover/backend"
)

// Test is one measurement: either Prompt or Gen is zero, as in llama-bench.
type Test struct {
	Prompt    int // tokens of a prompt, read in chunks
	Gen       int // tokens generated one at a time
	Depth     int // tokens already in the cache of each sequence
	Sequences int // sequences at once
}

// Name is the test's short name: "pp512", "tg128 @ d4096 x 4".
func (t Test) Name() string {
	s := fmt.Sprintf("tg%d", t.Gen)
	if t.Prompt > 0 {
		s = fmt.Sprintf("pp%d", t.Prompt)
	}
	if t.Depth > 0 {
		s += fmt.Sprintf(" @ d%d", t.Depth)
	}
	if t.Sequences > 1 {
		s += fmt.Sprintf(" x %d", t.Sequences)
	}
	return s
}

// tokens is how many tokens one repeat is credited with.
func (t Test) tokens() int { return t.Sequences * (t.Prompt + t.Gen) }

// positions is how many of each sequence are used: the first generated token
// comes of one more row than the depth has.
func (t Test) positions() int {
	if t.Gen > 0 {
		return t.Depth + 1 + t.Gen
	}
	return t.Depth + t.Prompt
}

// Check says whether a test can be run at all.
func (t Test) Check() error {
	switch {
	case t.Prompt < 0 || t.Gen < 0 || t.Depth < 0 || (t.Prompt > 0) == (t.Gen > 0):
		return fmt.Errorf("a prompt of %d and %d generated tokens at depth %d: one of the two is measured, from depth 0 on", t.Prompt, t.Gen, t.Depth)
	case t.Sequences < 1 || t.Sequences > maxSequences:
		return fmt.Errorf("%d sequences at once: 1 to %d can be measured", t.Sequences, maxSequences)
	case max(t.Prompt, t.Gen, t.Depth) > maxContext || t.positions() > maxContext:
		return fmt.Errorf("%s: at most %d positions can be measured", t.Name(), maxContext)
	}
	return nil
}

// Bounds that keep counts within int32 positions and pages.
const (
	maxContext   = 1 << 22
	maxSequences = 1 << 10
)

// Tests makes the list of llama-bench, for each number of sequences: for each
// depth, each prompt length and then each generation length. Zeros are left out.
func Tests(prompts, gens, depths, sequences []int) []Test {
	var tests []Test
	for _, s := range sequences {
		for _, d := range depths {
			for _, p := range prompts {
				if p != 0 {
					tests = append(tests, Test{Prompt: p, Depth: d, Sequences: s})
				}
			}
			for _, g := range gens {
				if g != 0 {
					tests = append(tests, Test{Gen: g, Depth: d, Sequences: s})
				}
			}
		}
	}
	return tests
}

// Demand is what all tests together ask of an engine: positions of a sequence,
// sequences at once, and cache pages. Each sequence has a page to spare, or the
// engine would hold the last one back.
func Demand(tests []Test) (context, sequences, pages int) {
	for _, t := range tests {
		context, sequences = max(context, t.positions()), max(sequences, t.Sequences)
	}
	return context, sequences, sequences * ((context+backend.PageRows-1)/backend.PageRows + 1)
}
