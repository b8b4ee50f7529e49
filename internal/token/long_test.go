package token

import (
	"strings"
	"testing"
)

// longTexts are what makes careless encoders quadratic: no words, or no end to
// them.
func longTexts(size int) map[string]string {
	texts := make(map[string]string)
	for name, unit := range map[string]string{
		"letter": "a", "pair": "ab", "spaces": " ", "breaks": "\n", "digits": "1234567890", "marks": "=", "special": "[user", "kanji": "我",
		"prose": "It's a quick brown fox, isn't it? 12 of them... ",
	} {
		texts[name] = strings.Repeat(unit, size/len(unit)+1)[:size/len(unit)*len(unit)]
	}
	texts["spaces before a letter"] = texts["spaces"] + "a"
	return texts
}

func longVocabularies(t testing.TB) map[string]*Tokenizer {
	v := map[string]*Tokenizer{"spm": mustNew(t, smallSPM("b", "1", "▁", "a", "aaaa", "▁▁", "aa", "ab"))}
	for _, pre := range []string{"llama-bpe", "falcon", "starcoder", "deepseek-llm", "deepseek-coder"} {
		v[pre] = mustNew(t, smallBPE(pre, "a b", "a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ", "= ="))
	}
	return v
}

// TestLongTexts does not end in time where encoding is quadratic.
func TestLongTexts(t *testing.T) {
	for v, tok := range longVocabularies(t) {
		for name, text := range longTexts(1 << 18) {
			if got := tok.Decode(tok.Encode(text, false, true)); got != text {
				t.Errorf("%s, %s: %d bytes became %d", v, name, len(text), len(got))
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	texts := longTexts(1 << 20)
	for _, v := range []string{"spm", "llama-bpe"} {
		tok := longVocabularies(b)[v]
		for _, name := range []string{"prose", "letter", "spaces"} {
			b.Run(v+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(texts[name])))
				for b.Loop() {
					tok.Encode(texts[name], true, true)
				}
			})
		}
	}
}
