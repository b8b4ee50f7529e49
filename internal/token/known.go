package token

import (
	"fmt"
	"strconv"
	"strings"
)

// Texts that are structure whatever type a file gives them; conversions get
// some wrong. endTexts also end an answer. (llama.cpp goes by the same texts.)
const (
	endTexts = " <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|end_of_text|> <|endoftext|> <end_of_turn> <EOT> _<EOT> <｜end▁of▁sentence｜>" +
		" <|fim_pad|> <fim-pad> <fim_pad> <PAD> <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <|file_sep|> "
	controlTexts = " <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE>" +
		" <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF>" +
		" <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> "
)

// markKnown makes control tokens of those with such a text, and returns the ids
// that end an answer.
func (t *Tokenizer) markKnown() (ends []int32) {
	ending, control := make(map[string]bool), make(map[string]bool)
	for _, text := range strings.Fields(endTexts) {
		ending[text] = true
	}
	for _, text := range strings.Fields(controlTexts) {
		control[text] = true
	}
	for id, text := range t.tokens {
		if len(text) < 4 || text[len(text)-1] != '>' {
			continue
		}
		if ending[text] || control[text] {
			t.kinds[id] = kindControl
		}
		// </s> is an ordinary text in some vocabularies, and then stays one
		if ending[text] || text == "</s>" && t.kinds[id] != kindNormal {
			ends = append(ends, int32(id))
		}
	}
	return ends
}

// byteTokens gives the token of each byte, -1 for none.
func (t *Tokenizer) byteTokens() (ids [256]int32, err error) {
	for b := range ids {
		ids[b] = -1
	}
	for id, k := range t.kinds {
		if k != kindByte {
			continue
		}
		b, ok := byteOf(t.tokens[id])
		if !ok {
			return ids, fmt.Errorf("token %d %q is of type byte but names none: want <0x00> to <0xFF>", id, t.tokens[id])
		}
		if ids[b] < 0 {
			ids[b] = int32(id)
		}
	}
	return ids, nil
}

// byteOf reads <0xHH>.
func byteOf(text string) (byte, bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(text[3:5], 16, 8)
	return byte(b), err == nil
}
