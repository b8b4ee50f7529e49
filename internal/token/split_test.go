package token

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestWords shows what each pre-tokenizer takes for words, | between them. (The
// reference data hold all of them to llama.cpp.)
func TestWords(t *testing.T) {
	for _, c := range []struct{ pre, text string }{
		{"gpt-2", "Hello| world|,| it|'s|  | 12345|!!|\n\n|\n|x|  "},
		{"gpt-2", "I|'ll|'|LL| a|\t|\t|b| é|…|١٢"},
		{"llama-bpe", "Hello| world|,| it|'s|  | |123|45|!!\n\n\n|x|  "},
		{"llama-bpe", "I|'LL|'ve|\n\n| |\tb| (|c|)| \n \n| | d|...\r\n"},
		{"llama-bpe", "a|'re|'Rx|$b|$|1²½|x|1²3|4"},
		{"qwen2", "it|'S| |1|2|3| xä|\u3000|\u3000y"},
		{"starcoder", "a|1|2| |3|b| c"},
		{"refact", "x|½|²| y"},
		{"falcon", "a|,|b|123|45|$+|c| |`|d| |123|4"},
		{"mpt", "don|'t| 1234|  | x"},
		{"", "a|$|b| |123|4"},
		{"default", "a|`|112|345|6| |²"},
		{"deepseek-llm", "Hello| world|,| it|'|s|\n|\n|12345| |我能|éü| ("},
		{"deepseek-llm", "a|  |\n|b| ，|\u3000|は"},
		{"deepseek-coder", "x|1|2| y|,| (|我|é|\n| ="},
	} {
		p, err := pretokenizerFor(c.pre)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		words(strings.ReplaceAll(c.text, "|", ""), p.rules, func(w string) { got = append(got, w) })
		if want := strings.Split(c.text, "|"); !slices.Equal(got, want) {
			t.Errorf("%q:\ngot  %q\nwant %q", c.pre, got, want)
		}
	}
}

// TestWordsCoverText: the words are the text, whatever it is.
func TestWordsCoverText(t *testing.T) {
	for _, pre := range []string{"", "llama-bpe", "qwen2", "gpt-2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder"} {
		p, err := pretokenizerFor(pre)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"", " ", "\n", "'", "''s", " '", "a  ", "\r\n \r", "12", "123456", "\u2028x", "  1", "x\u00a0\u00a0y", strings.Repeat(" \n", 50)} {
			var got strings.Builder
			words(text, p.rules, func(w string) {
				if w == "" {
					t.Errorf("%s: an empty word in %q", pre, text)
				}
				got.WriteString(w)
			})
			if got.String() != text {
				t.Errorf("%s: the words of %q are %q", pre, text, got.String())
			}
		}
	}
}

// TestClasses compares the table of ASCII with the unicode package.
func TestClasses(t *testing.T) {
	for r := rune(0); r < 0x80; r++ {
		var want class
		for _, c := range []struct {
			is    func(rune) bool
			class class
		}{{unicode.IsLetter, letter}, {unicode.IsNumber, number}, {unicode.IsPunct, punct}, {unicode.IsSpace, white}} {
			if c.is(r) {
				want |= c.class
			}
		}
		if got := classOf(r); got != want {
			t.Errorf("%q: got class %b, want %b", r, got, want)
		}
	}
}

// TestTablesAscend: package unicode searches a table, so it has to ascend.
func TestTablesAscend(t *testing.T) {
	for _, pairs := range []string{deepseekLetters, deepseekPuncts, deepseekCJK} {
		r := []rune(pairs)
		if len(r)%2 != 0 {
			t.Fatalf("%d characters are no pairs", len(r))
		}
		for i := 0; i < len(r); i += 2 {
			if r[i] > r[i+1] || i > 0 && r[i] <= r[i-1] {
				t.Errorf("%U to %U is out of order", r[i], r[i+1])
			}
		}
	}
}
