package token

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, c Config) *Tokenizer {
	t.Helper()
	tok, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestSPM(t *testing.T) {
	yes, no := true, false
	words := smallSPM("l", "o", "w", "e", "r", "h", "▁", "lo", "er", "low", "▁h", "▁low", "▁he", "llo")
	plain := words
	plain.AddSpacePrefix = &no
	ended := words
	ended.AddBOS, ended.AddEOS = &no, &yes
	across := smallSPM("a", "b", "▁", "▁b", "a▁b")
	unknown := smallSPM("a", "▁")
	unknown.Types = slices.Clone(unknown.Types)
	unknown.Types[3+0xE2] = int32(kindUnused) // no byte token for 0xE2 any more
	for _, c := range []struct {
		name       string
		config     Config
		text       string
		add, parse bool
		want       string
	}{
		{"merges", words, "lower low", false, false, "▁low er ▁low"},
		{"leftmost of equals", words, "lolo", false, false, "▁ lo lo"},
		{"higher score first", words, "hello", false, false, "▁he llo"},
		{"empty", words, "", true, false, "<s>"},
		{"bos", words, "low", true, false, "<s> ▁low"},
		{"eos", ended, "low", true, false, "▁low </s>"},
		{"no prefix", plain, "low low", false, false, "low ▁low"},
		{"bytes", words, "é", false, false, "▁ <0xC3> <0xA9>"},
		{"newline", words, "\n", false, false, "▁ <0x0A>"},
		{"bad utf-8", words, "\xffw", false, false, "▁ <0xFF> <0x77>"},
		{"bad utf-8 swallows a space", words, "\xe2\x82 low", false, false, "▁ <0xE2> <0x82> <0xE2> <0x96> <0x81> low"},
		{"no byte token", unknown, "a€", false, false, "▁ a <unk>"},
		{"across a space", across, "a b", false, false, "▁ a▁b"},
		{"user-defined", words, "low[user]low", false, false, "▁low [user] ▁low"},
		{"control", words, "low<s>", false, false, "▁low <0x3C> <0x73> <0x3E>"},
		{"control parsed", words, "low<s></s>low", false, true, "▁low <s> </s> ▁low"},
		{"unknown parsed", words, "<unk>", false, true, "<unk>"},
	} {
		tok := mustNew(t, c.config)
		if got := strings.Join(pieces(tok, tok.Encode(c.text, c.add, c.parse)), " "); got != c.want {
			t.Errorf("%s: %q: got %q, want %q", c.name, c.text, got, c.want)
		}
	}
}

func TestBPE(t *testing.T) {
	merges := []string{"o w", "l ow", "e r", "Ġ low", "h e", "l l", "he ll", "hell o"}
	gpt2, llama := smallBPE("gpt-2", merges...), smallBPE("llama-bpe", merges...)
	// a whole word that no merges reach
	llama.Tokens, llama.Types = append(slices.Clone(llama.Tokens), "wow"), append(slices.Clone(llama.Types), int32(kindNormal))
	for _, c := range []struct {
		name       string
		config     Config
		text       string
		add, parse bool
		want       string
	}{
		{"merges", gpt2, "lower low", false, false, "low er Ġlow"},
		{"chain", gpt2, "hello", false, false, "hello"},
		{"words apart", gpt2, "lo1lo", false, false, "l o 1 l o"},
		{"empty", gpt2, "", true, false, ""},
		{"no bos", gpt2, "low", true, false, "low"},
		{"bos", llama, "low", true, false, "<|begin|> low"},
		{"whole word", llama, "wow", false, false, "wow"},
		{"bytes", gpt2, "é\n", false, false, "Ã © Ċ"},
		{"bad utf-8", gpt2, "\xff", false, false, "ï ¿ ½"},
		{"user-defined", gpt2, "low[user]low", false, false, "low [user] low"},
		{"control", gpt2, "<|im_end|>", false, false, "< | i m _ e n d | >"},
		{"control parsed", gpt2, "low<|im_end|> low", false, true, "low <|im_end|> Ġlow"},
	} {
		tok := mustNew(t, c.config)
		if got := strings.Join(pieces(tok, tok.Encode(c.text, c.add, c.parse)), " "); got != c.want {
			t.Errorf("%s: %q: got %q, want %q", c.name, c.text, got, c.want)
		}
	}
}

// TestTrims: phi-3's special tokens take the white space after them.
func TestTrims(t *testing.T) {
	c := smallSPM("a", "▁", "▁a")
	c.Tokens = append(c.Tokens, "<|assistant|>", "<|placeholder1|>")
	c.Types = append(c.Types, int32(kindControl), int32(kindControl))
	c.Scores = append(c.Scores, 0, 0)
	tok := mustNew(t, c)
	got := strings.Join(pieces(tok, tok.Encode("<|assistant|>\n \ta<s>\na<|assistant|> ", false, true)), " ")
	if want := "<|assistant|> ▁a <s> ▁ <0x0A> a <|assistant|>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSpecialOrder: the longest special token is looked for first, in the whole
// text.
func TestSpecialOrder(t *testing.T) {
	kinds := []kind{kindUser, kindUser, kindControl, kindUser, kindUser}
	s := newSpecials([]string{"ab", "bcd", "cdef", "", "ab"}, kinds)
	for _, c := range []struct {
		text    string
		control bool
		want    []fragment
	}{
		{"xabcdx", false, []fragment{{0, 2, -1}, {2, 5, 1}, {5, 6, -1}}},
		{"abcdef", false, []fragment{{0, 1, -1}, {1, 4, 1}, {4, 6, -1}}},
		{"abcdef", true, []fragment{{0, 2, 0}, {2, 6, 2}}},
		{"abab", true, []fragment{{0, 2, 0}, {2, 4, 0}}},
		{"a", true, []fragment{{0, 1, -1}}},
		{"", true, nil},
	} {
		var control func(int, int) bool
		if c.control {
			control = func(int, int) bool { return true }
		}
		if got := s.partition(c.text, control); !slices.Equal(got, c.want) {
			t.Errorf("%q, control %v: got %v, want %v", c.text, c.control, got, c.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	spm := func(change func(*Config)) Config {
		c := smallSPM("a")
		change(&c)
		return c
	}
	bpe := func(change func(*Config)) Config {
		c := smallBPE("gpt-2", "a b")
		change(&c)
		return c
	}
	for _, c := range []struct {
		name, want string
		config     Config
	}{
		{"model", `"bert"`, spm(func(c *Config) { c.Model = "bert" })},
		{"no model", `""`, Config{}},
		{"pre-tokenizer", `"klingon"`, bpe(func(c *Config) { c.Pre = "klingon" })},
		{"no tokens", "empty", spm(func(c *Config) { c.Tokens = nil })},
		{"scores", "262 tokens but 1 scores", spm(func(c *Config) { c.Scores = c.Scores[:1] })},
		{"types", "262 tokens but 2 token types", spm(func(c *Config) { c.Types = c.Types[:2] })},
		{"type", "has type 7", spm(func(c *Config) { c.Types[0] = 7 })},
		{"negative type", "has type -1", spm(func(c *Config) { c.Types[0] = -1 })},
		{"byte -1", `"<0x-1>"`, spm(func(c *Config) { c.Tokens[3] = "<0x-1>" })},
		{"byte G", `"<0xGG>"`, spm(func(c *Config) { c.Tokens[3] = "<0xGG>" })},
		{"byte empty", `token 3 ""`, spm(func(c *Config) { c.Tokens[3] = "" })},
		{"byte short", `"<0x"`, spm(func(c *Config) { c.Tokens[3] = "<0x" })},
		{"score", "not a number", spm(func(c *Config) { c.Scores[261] = float32(math.NaN()) })},
		{"bos", "bos token is 262", spm(func(c *Config) { c.BOS = 262 })},
		{"eos", "eos token is 2147483647", spm(func(c *Config) { c.EOS = math.MaxInt32 })},
		{"end", "end-of-generation token is 999", spm(func(c *Config) { c.EOG = []int32{999} })},
		{"no merges", "no merges", bpe(func(c *Config) { c.Merges = nil })},
		{"merge of one", `merge 1 "ab"`, bpe(func(c *Config) { c.Merges = []string{"a b", "ab"} })},
		{"merge without right", `merge 0 "a "`, bpe(func(c *Config) { c.Merges = []string{"a "} })},
		{"merge without left", `merge 0 " b"`, bpe(func(c *Config) { c.Merges = []string{" b"} })},
		{"empty merge", `merge 0 ""`, bpe(func(c *Config) { c.Merges = []string{""} })},
	} {
		if _, err := New(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.want)
		}
	}
}

// TestOddVocabulary: what is odd but harmless loads.
func TestOddVocabulary(t *testing.T) {
	c := smallSPM("a", "a", "", "▁")
	c.UNK, c.PAD, c.SEP = 5000, 5000, -7
	tok := mustNew(t, c)
	if got, want := tok.Encode("a", false, false), []int32{264, 261}; !slices.Equal(got, want) {
		t.Errorf("duplicates: got %v, want %v: the first", got, want)
	}
	c = smallBPE("", "a b", "€ b", "ab c", "a b")
	c.Tokens = slices.Clone(c.Tokens)
	c.Tokens['z'], c.Tokens[257], c.Tokens[258] = "", "", "" // no z, no ab, no abc
	tok = mustNew(t, c)
	if got := strings.Join(pieces(tok, tok.Encode("abczx", false, false)), " "); got != "a b c x" {
		t.Errorf("merged to what is no token: %q", got)
	}
}

func TestCustomaryIDs(t *testing.T) {
	c := smallSPM("a")
	c.BOS, c.EOS, c.UNK = -1, -1, -1
	if tok := mustNew(t, c); tok.BOS() != 1 || tok.EOS() != 2 || !tok.AddsBOS() || tok.Size() != 262 {
		t.Errorf("SentencePiece: bos %d, eos %d, %v, size %d", tok.BOS(), tok.EOS(), tok.AddsBOS(), tok.Size())
	}
	c = smallBPE("gpt-2", "a b")
	c.BOS, c.EOS = -1, -1
	tok := mustNew(t, c)
	if tok.BOS() != -1 || tok.EOS() != -1 || tok.AddsBOS() {
		t.Errorf("byte-level: bos %d, eos %d, %v", tok.BOS(), tok.EOS(), tok.AddsBOS())
	}
	yes := true
	c.AddBOS, c.AddEOS = &yes, &yes
	if got := mustNew(t, c).Encode("a", true, false); len(got) != 1 {
		t.Errorf("a BOS that is not there: %v", got)
	}
}

func TestEndOfGeneration(t *testing.T) {
	c := smallSPM("a", "<|eot_id|>", "<|endoftext|>")
	n := int32(len(c.Tokens))
	c.EOT, c.EOG = 10, []int32{11, 12}
	tok := mustNew(t, c)
	for id, want := range map[int32]bool{0: false, 1: false, 2: true, 10: true, 11: true, 12: true, 13: false, 260: true, n - 3: false, n - 2: true, n - 1: true, -1: false, n: false} {
		if got := tok.EndOfGeneration(id); got != want {
			t.Errorf("token %d ends: %v, want %v", id, got, want)
		}
	}
	// a text that is structure is, whatever its type says
	if got := tok.Encode("<|eot_id|>", false, false); slices.Contains(got, n-2) {
		t.Errorf("<|eot_id|> read from plain text: %v", got)
	}
	if got := tok.Encode("<|eot_id|>", false, true); !slices.Equal(got, []int32{n - 2}) {
		t.Errorf("<|eot_id|> parsed: %v", got)
	}
}
