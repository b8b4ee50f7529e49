package token

import (
	"fmt"
	"strings"
)

// Hand-made vocabularies, so that the package is tested without reference data.

// smallSPM is a SentencePiece vocabulary: <unk> <s> </s>, the bytes, a
// user-defined and a control token, then pieces, the best ones last.
func smallSPM(pieces ...string) Config {
	c := Config{Model: "llama", BOS: 1, EOS: 2, UNK: 0, SEP: -1, PAD: -1, EOT: -1, EOM: -1}
	add := func(text string, score float32, k kind) {
		c.Tokens, c.Scores, c.Types = append(c.Tokens, text), append(c.Scores, score), append(c.Types, int32(k))
	}
	add("<unk>", 0, kindUnknown)
	add("<s>", 0, kindControl)
	add("</s>", 0, kindControl)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), 0, kindByte)
	}
	add("[user]", 0, kindUser)
	add("<|im_end|>", 0, kindControl)
	for i, p := range pieces {
		add(p, float32(i-len(pieces)), kindNormal)
	}
	return c
}

// smallBPE is a byte-level vocabulary: the bytes, what the merges make, then a
// user-defined and control tokens.
func smallBPE(pre string, merges ...string) Config {
	c := Config{Model: "gpt2", Pre: pre, BOS: -1, EOS: -1, UNK: -1, SEP: -1, PAD: -1, EOT: -1, EOM: -1}
	for b := range 256 {
		c.Tokens = append(c.Tokens, spell(string([]byte{byte(b)})))
	}
	for _, m := range merges {
		left, right, _ := strings.Cut(m, " ")
		c.Tokens = append(c.Tokens, left+right)
	}
	c.Merges = merges
	for range c.Tokens {
		c.Types = append(c.Types, int32(kindNormal))
	}
	c.Tokens = append(c.Tokens, "[user]", "<|begin|>", "<|im_end|>")
	c.Types = append(c.Types, int32(kindUser), int32(kindControl), int32(kindControl))
	c.BOS, c.EOS = int32(len(c.Tokens)-2), int32(len(c.Tokens)-1)
	return c
}

// spell is the inverse of unspell.
func spell(bytes string) string {
	var s strings.Builder
	for _, b := range []byte(bytes) {
		for r := rune(0x21); r < 0x144; r++ {
			if got, ok := unspell(nil, string(r)); ok && got[0] == b {
				s.WriteRune(r)
			}
		}
	}
	return s.String()
}

// texts of ids, for messages and comparisons that people can read.
func pieces(t *Tokenizer, ids []int32) []string {
	var s []string
	for _, id := range ids {
		s = append(s, t.tokens[id])
	}
	return s
}
