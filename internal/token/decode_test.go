package token

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPiece(t *testing.T) {
	c := smallSPM("▁a▁", "b")
	c.Types = append(slices.Clone(c.Types[:len(c.Types)-1]), int32(kindUnused))
	spm := mustNew(t, c)
	b := smallBPE("gpt-2", "Ġ é")
	b.Tokens = append(slices.Clone(b.Tokens), "x€", "<0x41>")
	b.Types = append(slices.Clone(b.Types), int32(kindNormal), int32(kindByte))
	bpe := mustNew(t, b)
	for _, c := range []struct {
		tok     *Tokenizer
		id      int32
		special bool
		want    string
	}{
		{spm, 0, false, ""}, {spm, 0, true, "<unk>"},
		{spm, 1, false, ""}, {spm, 1, true, "<s>"},
		{spm, 3 + 0xC3, false, "\xc3"}, {spm, 3 + 'A', true, "A"},
		{spm, 259, false, "[user]"}, {spm, 259, true, "[user]"},
		{spm, 261, false, " a "}, {spm, 262, true, ""},
		{spm, -1, true, ""}, {spm, 263, true, ""},
		{bpe, 0xE9, false, "\xe9"}, {bpe, ' ', false, " "}, {bpe, 256, false, " \xe9"},
		{bpe, 257, false, "[user]"}, {bpe, 258, false, ""}, {bpe, 258, true, "<|begin|>"},
		{bpe, 260, false, "x€"}, {bpe, 261, false, "A"},
	} {
		if got := string(c.tok.Piece(c.id, c.special)); got != c.want {
			t.Errorf("piece %d, special %v: got %q, want %q", c.id, c.special, got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	no := false
	words := smallSPM("▁", "▁a", "a")
	plain := words
	plain.AddSpacePrefix = &no
	for _, c := range []struct {
		config Config
		text   string // encoded, then decoded
	}{
		{words, "a a"}, {words, " a"}, {words, "  a  "}, {words, ""}, {words, " "}, {words, "\xff\xfe"}, {words, "é[user]"},
		{plain, "a a"}, {plain, " a"},
		{smallBPE("llama-bpe", "Ġ a"), " a\n\x00é[user]"},
	} {
		tok := mustNew(t, c.config)
		if got := tok.Decode(tok.Encode(c.text, false, false)); got != c.text {
			t.Errorf("%q became %q", c.text, got)
		}
	}
	tok := mustNew(t, words)
	if got := tok.Decode(tok.Encode("a", true, false)); got != "<s> a" {
		t.Errorf("with BOS: %q", got) // as llama.cpp: only a first space is taken off
	}
}

func TestStream(t *testing.T) {
	tok := mustNew(t, smallSPM("▁a", "é"))
	b := func(b byte) int32 { return 3 + int32(b) }
	const a, e, im = 261, 262, 260
	for _, c := range []struct {
		ids  []int32
		want string // | between pushes, then what Flush gives
	}{
		{[]int32{a, e}, " a|é|"},
		{[]int32{b(0xC3), b(0xA9)}, "|é|"},
		{[]int32{b(0xF0), b(0x9F), b(0x99), b(0x82), a}, "|||🙂| a|"},
		{[]int32{b(0xF0), b(0x9F)}, "||\uFFFD"},
		{[]int32{b(0xF0), b(0x9F), a}, "||\uFFFD a|"},
		{[]int32{b(0xC3), b(0xC3), b(0xA9)}, "|\uFFFD|é|"},
		{[]int32{b(0xFF), b(0x80), b('x')}, "\uFFFD|\uFFFD|x|"},
		{[]int32{b(0xED), b(0xA0), b(0x80)}, "|\uFFFD\uFFFD|\uFFFD|"}, // a surrogate
		{[]int32{b(0xE2), im, 1, b(0x82), b(0xAC)}, "||||€|"},
		{nil, ""},
		{[]int32{-5, 9999}, "||"},
	} {
		s := tok.NewStream()
		var got []string
		for _, id := range c.ids {
			got = append(got, s.Push(id))
		}
		got = append(got, s.Flush())
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%v: got %q, want %q", c.ids, g, c.want)
		}
		if again := s.Flush(); again != "" {
			t.Errorf("%v: Flush again gives %q", c.ids, again)
		}
	}
}

func TestSegments(t *testing.T) {
	spm := mustNew(t, smallSPM("a", "b", "▁", "ab", "▁a"))
	bpe := mustNew(t, smallBPE("llama-bpe", "a b", "Ġ a"))
	type segment struct { // as a package that knows nothing of tokens has it
		Text    string
		Special bool
	}
	for _, c := range []struct {
		name     string
		tok      *Tokenizer
		segments []segment
		want     string
	}{
		{"edges merge", spm, []segment{{"b", true}, {"a", false}, {"b", true}}, "<s> ▁ b ab"},
		{"space after a special token", spm, []segment{{"<|im_end|>", true}, {"a", false}, {"a", true}}, "<s> <|im_end|> ▁a a"},
		{"text is not structure", spm, []segment{{"<s>", true}, {"</s>", false}}, "<s> <s> ▁ <0x3C> <0x2F> <0x73> <0x3E>"},
		{"nor across the edge", spm, []segment{{"<", true}, {"s", false}, {">", true}}, "<s> ▁ <0x3C> <0x73> <0x3E>"},
		{"nor over two of the template", spm, []segment{{"<", true}, {"s>", true}}, "<s> ▁ <0x3C> <0x73> <0x3E>"},
		{"user-defined is found anywhere", spm, []segment{{"[us", false}, {"er]", true}}, "<s> [user]"},
		{"empty segments", spm, []segment{{"", true}, {"a", false}, {"", false}, {"</s>", true}}, "<s> ▁a </s>"},
		{"none", spm, nil, "<s>"},
		{"byte-level", bpe, []segment{{"a", true}, {"b", false}, {"<|im_end|>", false}, {"<|im_end|>", true}, {" a", true}}, "<|begin|> ab < | i m _ e n d | > <|im_end|> Ġa"},
	} {
		got := strings.Join(pieces(c.tok, EncodeSegments(c.tok, c.segments, true)), " ")
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// FuzzRoundTrip: Encode and Decode never panic; a vocabulary with all bytes
// gives any valid text back (SentencePiece: without U+2581, its space); a stream
// gives the same, the space in front included, and only whole UTF-8.
func FuzzRoundTrip(f *testing.F) {
	vocabularies := []*Tokenizer{mustNew(f, smallSPM("a", "b", "▁", "ab", "▁a", "▁▁", "é"))}
	for _, pre := range []string{"", "llama-bpe", "qwen2", "gpt-2", "starcoder", "falcon", "deepseek-llm", "deepseek-coder"} {
		vocabularies = append(vocabularies, mustNew(f, smallBPE(pre, "a b", "Ġ a", "1 2", "Ã ©", "Ċ Ċ")))
	}
	for _, text := range []string{"", " ab  a\n", "it's 12345 é 🙂", "[user]<s></s><|im_end|>", "\xff\xe2\x82 \xed\xa0\x80", "\u3000\u2028我\x00\r\n"} {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, special bool) {
		for _, tok := range vocabularies {
			ids := tok.Encode(text, false, special)
			var streamed strings.Builder
			s := tok.NewStream()
			for _, id := range ids {
				part := s.Push(id)
				if !utf8.ValidString(part) {
					t.Errorf("broken UTF-8: %q", part)
				}
				streamed.WriteString(part)
			}
			streamed.WriteString(s.Flush())
			decoded := tok.Decode(ids)
			if !utf8.ValidString(text) || !tok.spelled && strings.Contains(text, space) || spaceAfterSpecial(tok, ids) {
				continue
			}
			if decoded != text {
				t.Errorf("%q became %q", text, decoded)
			}
			want := text
			if tok.dropLead && text != "" {
				want = " " + text
			}
			if !special && streamed.String() != want {
				t.Errorf("%q streamed as %q", text, streamed.String())
			}
		}
	})
}

// spaceAfterSpecial tells whether encoding put spaces after special tokens,
// which decoding does not take off: SentencePiece cannot tell them from others.
func spaceAfterSpecial(tok *Tokenizer, ids []int32) bool {
	return !tok.spelled && slices.ContainsFunc(ids, func(id int32) bool {
		return tok.kinds[id] == kindUser || tok.kinds[id] == kindControl || tok.kinds[id] == kindUnknown
	})
}

// FuzzNew: whatever a file holds, New gives an error or a tokenizer that works.
func FuzzNew(f *testing.F) {
	f.Add("<unk>\n<s>\n</s>\n<0x41>\n▁a", "\x02\x03\x03\x06\x01", "a b\nab", "gpt-2", int32(1), false)
	f.Add("a\nb\nab\n<0x-1>", "\x01\x01\x01\x06", "a b\n\n b", "llama-bpe", int32(9), true)
	f.Fuzz(func(t *testing.T, tokens, types, merges, pre string, id int32, bytelevel bool) {
		c := Config{Model: "llama", Pre: pre, BOS: id, EOS: -id, UNK: id, Tokens: strings.Split(tokens, "\n"), Merges: strings.Split(merges, "\n")}
		if bytelevel {
			c.Model = "gpt2"
		}
		for _, b := range []byte(types) {
			c.Types = append(c.Types, int32(int8(b)))
			c.Scores = append(c.Scores, float32(int8(b)))
		}
		tok, err := New(c)
		if err != nil {
			return
		}
		for _, id := range tok.Encode(tokens+merges, true, true) {
			if id < 0 || int(id) >= tok.Size() {
				t.Errorf("id %d in a vocabulary of %d", id, tok.Size())
			}
			tok.Piece(id, true)
		}
	})
}
