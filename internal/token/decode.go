package token

import (
	"strings"
	"unicode/utf8"
)

// Piece is the bytes that a token adds to a text: parts of a UTF-8 sequence,
// possibly. Control and unknown tokens are their name where special is set, and
// nothing otherwise; so is an id outside the vocabulary.
func (t *Tokenizer) Piece(id int32, special bool) []byte {
	if id < 0 || int(id) >= len(t.tokens) {
		return nil
	}
	text := t.tokens[id]
	switch t.kinds[id] {
	case kindUser:
		return []byte(text)
	case kindControl, kindUnknown:
		if special {
			return []byte(text)
		}
	case kindByte:
		if b, ok := byteOf(text); ok {
			return []byte{b}
		}
	case kindNormal:
		if t.spelled {
			b, _ := unspell(nil, text)
			return b
		}
		return []byte(strings.ReplaceAll(text, space, " "))
	}
	return nil
}

// Decode is the text of ids, control tokens by name. A space that Encode puts
// before a text (SentencePiece) is taken off again. What the ids do not spell as
// valid UTF-8 comes out as it is.
func (t *Tokenizer) Decode(ids []int32) string {
	var text strings.Builder
	for i, id := range ids {
		piece := t.Piece(id, true)
		if i == 0 && t.dropLead && len(piece) > 0 && piece[0] == ' ' {
			piece = piece[1:]
		}
		text.Write(piece)
	}
	return text.String()
}

// Stream turns ids that arrive one by one into text, control tokens left out.
// It keeps every leading space: what it writes continues a prompt.
type Stream struct {
	t    *Tokenizer
	held []byte // the beginning of a UTF-8 sequence
}

// NewStream begins a text.
func (t *Tokenizer) NewStream() *Stream { return &Stream{t: t} }

// Push gives the text that is complete with id. It is valid UTF-8: the
// beginning of a sequence is held back, and what can no longer become one is
// U+FFFD.
func (s *Stream) Push(id int32) string {
	s.held = append(s.held, s.t.Piece(id, false)...)
	var text strings.Builder
	for len(s.held) > 0 && utf8.FullRune(s.held) {
		r, n := utf8.DecodeRune(s.held)
		if r == utf8.RuneError && n == 1 {
			n = badLen(s.held)
		}
		text.WriteRune(r)
		s.held = s.held[n:]
	}
	return text.String()
}

// Flush ends the text: U+FFFD for a sequence that was never completed.
func (s *Stream) Flush() string {
	if len(s.held) == 0 {
		return ""
	}
	s.held = nil
	return string(utf8.RuneError)
}

// badLen is how many bytes of b, which is no UTF-8, one U+FFFD stands for: the
// longest beginning of a sequence (Unicode, section 3.9), or a byte.
func badLen(b []byte) int {
	for n := min(3, len(b)); n > 1; n-- {
		if !utf8.FullRune(b[:n]) {
			return n
		}
	}
	return 1
}
