package token

import (
	"unicode"
	"unicode/utf8"
)

// Byte-level BPE merges within words only. A model's pre-tokenizer is a row of
// regular expressions: the first cuts the text into what it matches and what
// lies between, the next cuts each of these pieces, and so on. The expressions
// need look-ahead and Unicode classes and have to be linear in the text, so
// each is a rule written by hand, with the expression in its comment.

// class is what the expressions ask of a character.
type class uint8

const (
	letter class = 1 << iota // \p{L}
	number                   // \p{N}
	punct                    // \p{P}
	white                    // \s
)

// span is a piece of text as characters and their classes.
type span struct {
	r []rune
	c []class
}

// rule tells how many characters its expression matches at s.r[i]; 0: none.
// -n: none there, nor at the n-1 characters that follow.
type rule func(s span, i int) int

// classOf is r's class; s.c holds them for a whole text.
func classOf(r rune) class {
	if r < utf8.RuneSelf {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
			return letter
		case '0' <= r && r <= '9':
			return number
		case r == ' ', '\t' <= r && r <= '\r':
			return white
		case r == '$', r == '+', r == '<', r == '=', r == '>', r == '^', r == '`', r == '|', r == '~':
			return 0
		case '!' <= r && r <= '~':
			return punct
		}
		return 0
	}
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return white
	case unicode.IsPunct(r):
		return punct
	}
	return 0
}

// words calls emit with each word of text, which is valid UTF-8, in order.
func words(text string, rules []rule, emit func(word string)) {
	var s span
	for _, r := range text {
		s.r = append(s.r, r)
		s.c = append(s.c, classOf(r))
	}
	sizes := []int{len(s.r)} // characters
	for _, match := range rules {
		var next []int
		at := 0
		for _, n := range sizes {
			next = cut(next, span{s.r[at : at+n], s.c[at : at+n]}, match)
			at += n
		}
		sizes = next
	}
	at := 0
	for _, n := range sizes {
		bytes := 0
		for _, r := range s.r[at : at+n] {
			bytes += utf8.RuneLen(r)
		}
		emit(text[:bytes])
		text = text[bytes:]
		at += n
	}
}

// cut appends the sizes of the pieces that match makes of s.
func cut(dst []int, s span, match rule) []int {
	from := 0
	for i := 0; i < len(s.r); {
		n := match(s, i)
		if n <= 0 {
			i += max(1, -n)
			continue
		}
		if i > from {
			dst = append(dst, i-from)
		}
		dst = append(dst, n)
		i += n
		from = i
	}
	if from < len(s.r) {
		dst = append(dst, len(s.r)-from)
	}
	return dst
}

// run is how many characters from i on have one of the classes.
func (s span) run(i int, any class) int {
	n := 0
	for i+n < len(s.c) && s.c[i+n]&any != 0 {
		n++
	}
	return n
}

// others is how many characters from i on match [^\s\p{L}\p{N}].
func (s span) others(i int) int {
	n := 0
	for i+n < len(s.c) && s.c[i+n]&(white|letter|number) == 0 {
		n++
	}
	return n
}

// breaks is how many characters from i on match [\r\n].
func (s span) breaks(i int) int {
	n := 0
	for i+n < len(s.r) && (s.r[i+n] == '\r' || s.r[i+n] == '\n') {
		n++
	}
	return n
}

// spaces matches \s+(?!\S)|\s+ where s.r[i] is white.
func (s span) spaces(i int) int {
	n := s.run(i, white)
	if n > 1 && i+n < len(s.r) {
		return n - 1
	}
	return n
}

// contraction matches 's|'t|'re|'ve|'m|'ll|'d; fold: in capitals too.
func (s span) contraction(i int, fold bool) int {
	at := func(i int) rune {
		if i >= len(s.r) {
			return 0
		}
		if r := s.r[i]; fold && 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return s.r[i]
	}
	if s.r[i] != '\'' {
		return 0
	}
	switch at(i + 1) {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if at(i+2) == 'e' {
			return 3
		}
	case 'l':
		if at(i+2) == 'l' {
			return 3
		}
	}
	return 0
}
