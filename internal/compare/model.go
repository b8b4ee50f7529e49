package compare

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"drover/internal/bench"
)

// Model is what must be the same for two speeds to be of the same work.
type Model struct {
	Arch   string `json:"arch"`
	Params uint64 `json:"params"`
	Format string `json:"format"`
}

// modelOf takes apart what both tools write as "llama 6.7B Q4_0". The number
// of weights stands for the shape: it is exact in both, and the words between
// are rounded in different ways.
func modelOf(r bench.Record) Model {
	words := strings.Fields(r.ModelType)
	format := ""
	if len(words) > 2 {
		format = formatOf(strings.Join(words[2:], " "))
	}
	return Model{Arch: strings.ToLower(words[0]), Params: r.ModelParams, Format: format}
}

// formatOf is a file type's short name, of llama.cpp's long one ("Q4_K - Medium",
// "IQ2_XS - 2.3125 bpw", llama_ftype_name) or of drover's ("Q4_K_M").
func formatOf(long string) string {
	long = regexp.MustCompile(`(?i)^all |\s*\(guessed\)\s*`).ReplaceAllString(long, "")
	name, detail, _ := strings.Cut(long, " - ")
	name = strings.ToUpper(name)
	switch {
	case name == "IQ3_S MIX":
		return "IQ3_M"
	case name == "Q2_K" && detail == "Medium":
		return name
	}
	switch detail {
	case "Small":
		name += "_S"
	case "Medium":
		name += "_M"
	case "Large":
		name += "_L"
	}
	return name
}

func (m Model) less(n Model) int {
	return cmp.Or(strings.Compare(m.Arch, n.Arch), cmp.Compare(m.Params, n.Params), strings.Compare(m.Format, n.Format))
}

// Test is a measurement's lengths. Unlike drover's own tests, one of llama-bench
// may have a prompt and generation both.
type Test struct {
	Prompt    int `json:"n_prompt"`
	Gen       int `json:"n_gen"`
	Depth     int `json:"n_depth"`
	Sequences int `json:"sequences"`
}

func testOf(r bench.Record) Test { return Test{r.Prompt, r.Gen, r.Depth, r.Sequences} }

// Name is the test's short name: "pp512", "tg128 @ d4096 x 4", "pp512+tg128".
func (t Test) Name() string {
	name := bench.Test(t).Name()
	if t.Prompt > 0 && t.Gen > 0 {
		name = strings.Replace(name, fmt.Sprintf("pp%d", t.Prompt), fmt.Sprintf("pp%d+tg%d", t.Prompt, t.Gen), 1)
	}
	return name
}

// Kind is "prompt", "decode" or "both".
func (t Test) Kind() string {
	switch {
	case t.Gen == 0:
		return "prompt"
	case t.Prompt == 0:
		return "decode"
	}
	return "both"
}

func (t Test) less(u Test) int {
	return cmp.Or(cmp.Compare(t.Gen, u.Gen), cmp.Compare(t.Prompt, u.Prompt), cmp.Compare(t.Depth, u.Depth), cmp.Compare(t.Sequences, u.Sequences))
}
