package engine

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// stopper finds stop strings in a text that comes in pieces. Text that may be
// the beginning of one is held back until it is known not to be.
type stopper struct {
	stops []string
	held  string
}

func checkStops(stops []string) error {
	for _, s := range stops {
		if s == "" {
			return errors.New("stop string is empty")
		}
		if !utf8.ValidString(s) { // held-back text would otherwise be cut inside a character
			return errors.New("stop string is not valid UTF-8")
		}
	}
	return nil
}

// push adds text. out is what is known not to belong to a stop string; found
// reports that one is complete: out then is the text before it. Of several the one
// that is complete first counts, then the longer, so that pieces do not matter.
func (h *stopper) push(text string) (out string, found bool) {
	if len(h.stops) == 0 || text == "" {
		return text, false
	}
	if h.held != "" {
		text = h.held + text
	}
	first, end := 0, len(text)+1
	for _, s := range h.stops {
		if i := strings.Index(text, s); i >= 0 && (i+len(s) < end || i+len(s) == end && i < first) {
			first, end, found = i, i+len(s), true
		}
	}
	if found {
		h.held = ""
		return text[:first], true
	}
	keep := 0
	for _, s := range h.stops {
		keep = max(keep, overlap(text, s))
	}
	h.held = text[len(text)-keep:]
	return text[:len(text)-keep], false
}

// flush gives what is still held when no text will follow.
func (h *stopper) flush() string {
	text := h.held
	h.held = ""
	return text
}

// overlap is the length of the longest end of text that begins stop, less than
// all of it.
func overlap(text, stop string) int {
	for n := min(len(text), len(stop)-1); n > 0; n-- {
		if strings.HasPrefix(stop, text[len(text)-n:]) {
			return n
		}
	}
	return 0
}
