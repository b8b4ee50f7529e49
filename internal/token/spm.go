package token

import (
	"fmt"
	"math"
	"strings"
)

// space is how SentencePiece writes a space (U+2581).
const space = "▁"

// spm is SentencePiece BPE: of all neighbours that make a token, the pair with
// the highest score is joined first. Characters that are no token become bytes.
type spm struct {
	ids     map[string]int32
	ranks   []uint32 // (vocab) lowest for the highest score
	longest int      // bytes of the longest token
	bytes   [256]int32
	unk     int32
	prefix  bool
	words   bool // no token holds a space after another character: words merge apart
}

func newSPM(c *Config, kinds []kind, bytes [256]int32, unk int32, prefix bool) (*spm, error) {
	s := &spm{ids: make(map[string]int32, len(c.Tokens)), bytes: bytes, unk: unk, prefix: prefix, words: true}
	s.ranks = make([]uint32, len(c.Tokens))
	for id, text := range c.Tokens {
		if len(c.Scores) != 0 {
			score := c.Scores[id]
			if math.IsNaN(float64(score)) {
				return nil, fmt.Errorf("token %d %q has a score that is not a number", id, text)
			}
			s.ranks[id] = rank(score)
		} else {
			s.ranks[id] = rank(0)
		}
		switch kinds[id] {
		case kindControl, kindUnknown, kindByte:
			continue // no text merges into these: what a user types is never structure
		}
		if _, ok := s.ids[text]; text == "" || ok {
			continue
		}
		s.ids[text] = int32(id)
		s.longest = max(s.longest, len(text))
		if strings.Contains(strings.TrimLeft(text, space), space) {
			s.words = false
		}
	}
	return s, nil
}

// rank orders scores, highest first.
func rank(score float32) uint32 {
	bits := math.Float32bits(score)
	if score >= 0 { // and -0
		return ^(bits | 1<<31)
	}
	return bits
}

func (s *spm) encode(dst []int32, text string, first bool) []int32 {
	if s.prefix && first {
		text = " " + text
	}
	text = strings.ReplaceAll(text, " ", space)
	var m merger
	word, inside := 0, false // where the word begins; whether it is past its spaces
	for i := 0; i < len(text); {
		n := min(runeLen(text[i]), len(text)-i)
		char := text[i : i+n]
		if char != space {
			inside = true
		} else if inside && s.words {
			dst = s.merge(dst, text[word:i], &m)
			word, inside = i, false
		}
		id, ok := s.ids[char]
		if !ok {
			id = -1
		}
		m.add(n, id)
		i += n
	}
	return s.merge(dst, text[word:], &m)
}

// merge joins the characters that m holds, those of text, and empties m.
func (s *spm) merge(dst []int32, text string, m *merger) []int32 {
	m.run(func(l, r *symbol) (uint32, int32, bool) {
		lo, hi := int(l.off), int(r.off+r.n)
		if hi-lo > s.longest {
			return 0, 0, false
		}
		id, ok := s.ids[text[lo:hi]]
		if !ok {
			return 0, 0, false
		}
		return s.ranks[id], id, true
	})
	for y := range m.left() {
		if y.id >= 0 {
			dst = append(dst, y.id)
		} else {
			dst = s.fallback(dst, text[y.off:y.off+y.n])
		}
	}
	m.reset()
	return dst
}

// fallback spells out a character that is no token, or says unknown.
func (s *spm) fallback(dst []int32, char string) []int32 {
	from := len(dst)
	for i := range len(char) {
		id := s.bytes[char[i]]
		if id < 0 {
			if dst = dst[:from]; s.unk >= 0 {
				dst = append(dst, s.unk)
			}
			return dst
		}
		dst = append(dst, id)
	}
	return dst
}

// runeLen is how many bytes a character takes, going by its first byte alone;
// malformed text is cut as SentencePiece vocabularies in llama.cpp cut it.
func runeLen(b byte) int {
	switch {
	case b < 0xC0:
		return 1
	case b < 0xE0:
		return 2
	case b < 0xF0:
		return 3
	}
	return 4
}
