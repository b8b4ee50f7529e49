package engine

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// whole is the definition: the text before the stop string that is complete first, of several the longest.
func whole(text string, stops []string) (string, bool) {
	for end := range len(text) + 1 {
		longest := ""
		for _, s := range stops {
			if strings.HasSuffix(text[:end], s) && len(s) > len(longest) {
				longest = s
			}
		}
		if longest != "" {
			return text[:end-len(longest)], true
		}
	}
	return text, false
}

// However a text is cut, the same comes out, and never a part of a stop string
// that is completed later.
func TestStopper(t *testing.T) {
	for _, c := range []struct {
		text  string
		stops []string
		want  string
		found bool
	}{
		{"hello END world", []string{"END"}, "hello ", true},
		{"hello EN", []string{"END"}, "hello EN", false},
		{"aaab", []string{"aab"}, "a", true},
		{"ababac", []string{"abac"}, "ab", true},
		{"x</s>y", []string{"</s>", "<"}, "x", true},
		{"abd", []string{"abd", "b"}, "a", true}, // b is complete first
		{"abd", []string{"bd", "abd"}, "", true},
		{"one\n\ntwo", []string{"\n\n", "two"}, "one", true},
		{"né né", []string{"né n"}, "", true},
		{"abcabd", []string{"abd"}, "abc", true},
		{"plain", nil, "plain", false},
	} {
		r := rand.New(rand.NewPCG(7, uint64(len(c.text))))
		for range 50 {
			h := stopper{stops: c.stops}
			got, found := "", false
			for rest := c.text; rest != "" && !found; {
				n := 1 + r.IntN(len(rest))
				var out string
				out, found = h.push(rest[:n])
				got, rest = got+out, rest[n:]
			}
			if !found {
				got += h.flush()
			}
			if got != c.want || found != c.found {
				t.Fatalf("%q with %q: %q %v, want %q %v", c.text, c.stops, got, found, c.want, c.found)
			}
		}
	}
}

func FuzzStopper(f *testing.F) {
	f.Add("abcabcabd", "abd", "ca", uint64(1))
	f.Add("abd", "abd", "b", uint64(45))
	f.Fuzz(func(t *testing.T, text, a, b string, seed uint64) {
		if checkStops([]string{a, b}) != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		h := stopper{stops: []string{a, b}}
		got, seen, found := "", 0, false
		for seen < len(text) && !found {
			n := 1 + r.IntN(len(text)-seen)
			var out string
			out, found = h.push(text[seen : seen+n])
			got, seen = got+out, seen+n
			if before, _ := whole(text, []string{a, b}); !strings.HasPrefix(before, got) {
				t.Fatalf("%q was let out, the text before the stop is %q", got, before)
			}
		}
		if !found {
			got += h.flush()
		}
		want, wantFound := whole(text[:seen], []string{a, b})
		if got != want || found != wantFound {
			t.Fatalf("%q %v, want %q %v", got, found, want, wantFound)
		}
	})
}
