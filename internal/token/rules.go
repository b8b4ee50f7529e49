package token

import (
	"fmt"
	"strings"
	"unicode"
)

// pretokenizer is what tokenizer.ggml.pre stands for.
type pretokenizer struct {
	rules  []rule
	whole  bool // a word that is a token is not merged up from bytes
	addBOS bool // customary
}

// pretokenizerFor knows the names that llama.cpp's conversion writes.
func pretokenizerFor(pre string) (pretokenizer, error) {
	switch pre {
	case "", "default":
		return pretokenizer{rules: []rule{puncts("$+<=>^~|"), gpt2, numbers, threeDigits}}, nil
	case "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2":
		return pretokenizer{rules: []rule{llama3(3)}, whole: true, addBOS: true}, nil
	case "dbrx", "smaug-bpe":
		return pretokenizer{rules: []rule{llama3(3)}}, nil
	case "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez":
		return pretokenizer{rules: []rule{llama3(1)}}, nil
	case "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "a.x-4.0", "mellum":
		return pretokenizer{rules: []rule{gpt2}}, nil
	case "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b":
		return pretokenizer{rules: []rule{oneNumber, gpt2}}, nil
	case "falcon":
		return pretokenizer{rules: []rule{puncts("$+<=>^~|`"), gpt2, threeDigits}}, nil
	case "deepseek-llm":
		return pretokenizer{rules: deepseekLLM()}, nil
	case "deepseek-coder":
		return pretokenizer{rules: deepseekCoder()}, nil
	}
	return pretokenizer{}, fmt.Errorf("pre-tokenizer %q (tokenizer.ggml.pre) is not supported: "+
		"its words are unknown, and any other would give wrong tokens", pre)
}

// gpt2 matches 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func gpt2(s span, i int) int {
	if n := s.contraction(i, false); n > 0 {
		return n
	}
	lead := 0
	if s.r[i] == ' ' {
		lead = 1
	}
	for _, n := range [...]int{s.run(i+lead, letter), s.run(i+lead, number), s.others(i + lead)} {
		if n > 0 {
			return lead + n
		}
	}
	return s.spaces(i)
}

// llama3 matches, with up to the given number of digits together,
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func llama3(digits int) rule {
	return func(s span, i int) int {
		if n := s.contraction(i, true); n > 0 {
			return n
		}
		if s.c[i]&number != 0 {
			return span{s.r, s.c[:min(i+digits, len(s.c))]}.run(i, number)
		}
		if n := s.run(i, letter); n > 0 {
			return n
		}
		if s.breaks(i) == 0 {
			if n := s.run(i+1, letter); n > 0 {
				return 1 + n
			}
		}
		lead := 0
		if s.r[i] == ' ' {
			lead = 1
		}
		if n := s.others(i + lead); n > 0 {
			n += lead
			return n + s.breaks(i+n)
		}
		for n := s.run(i, white); n > 0; n-- {
			if s.breaks(i+n-1) > 0 {
				return n
			}
		}
		return s.spaces(i)
	}
}

// oneNumber matches \p{N}
func oneNumber(s span, i int) int { return one(s.c[i]&number != 0) }

// numbers matches \p{N}+
func numbers(s span, i int) int { return s.run(i, number) }

// threeDigits matches [0-9][0-9][0-9]
func threeDigits(s span, i int) int {
	if i+3 > len(s.r) {
		return 0
	}
	for _, r := range s.r[i : i+3] {
		if r < '0' || r > '9' {
			return 0
		}
	}
	return 3
}

// puncts matches [\p{P}...]+ with the characters of extra.
func puncts(extra string) rule {
	return func(s span, i int) int {
		n := 0
		for i+n < len(s.r) && (s.c[i+n]&punct != 0 || strings.ContainsRune(extra, s.r[i+n])) {
			n++
		}
		return n
	}
}

// oneBreak matches [\r\n]
func oneBreak(s span, i int) int { return one(s.r[i] == '\r' || s.r[i] == '\n') }

func one(match bool) int {
	if match {
		return 1
	}
	return 0
}

// spaced matches \s?[...]+ with the characters that in takes.
func spaced(in func(r rune, c class) bool) rule {
	return func(s span, i int) int {
		n := 0
		if s.c[i]&white != 0 {
			n = 1
		}
		start := n
		for i+n < len(s.r) && in(s.r[i+n], s.c[i+n]) {
			n++
		}
		if n == start {
			return 0
		}
		return n
	}
}

// lastSpaces matches \s+$
func lastSpaces(s span, i int) int {
	n := s.run(i, white)
	if i+n < len(s.r) {
		return -n
	}
	return n
}

// table makes a set of ascending pairs of first and last characters.
func table(pairs string) *unicode.RangeTable {
	var t unicode.RangeTable
	r := []rune(pairs)
	for i := 0; i+1 < len(r); i += 2 {
		t.R32 = append(t.R32, unicode.Range32{Lo: uint32(r[i]), Hi: uint32(r[i+1]), Stride: 1})
	}
	return &t
}
