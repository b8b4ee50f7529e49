package token

import (
	"slices"
	"strings"
)

// special is a token that is found in text before any merge.
type special struct {
	text   string
	id     int32
	always bool // user-defined: found whatever the caller asked for
	trims  bool // takes the white space after it (phi-3)
}

// fragment is text[lo:hi], still to be encoded, or a special token.
type fragment struct {
	lo, hi int
	id     int32 // -1: text
}

// specials are a vocabulary's special tokens, longest first, and an
// Aho-Corasick automaton that tells in one pass which of them a text holds.
// (Vocabularies have thousands; nearly no text holds any.)
type specials struct {
	list  []special
	nodes []node
	edges map[uint64]int32 // node<<8 | byte -> node
	first [256]bool        // bytes that some special token begins with
}

// node is a prefix of some special token. Node 0 is the empty one; a node comes
// after the nodes of all shorter prefixes.
type node struct {
	back int32 // its longest proper suffix that is a node
	item int32 // index in list, -1: not a whole token
}

func newSpecials(tokens []string, kinds []kind) specials {
	var s specials
	phi3 := slices.Contains(tokens, "<|placeholder1|>") && slices.Contains(tokens, "<|assistant|>")
	for id, text := range tokens {
		k := kinds[id]
		if text == "" || k != kindControl && k != kindUnknown && k != kindUser {
			continue
		}
		s.list = append(s.list, special{
			text: text, id: int32(id), always: k == kindUser,
			trims: phi3 && text != "<unk>" && text != "<s>" && text != "<|endoftext|>",
		})
	}
	slices.SortStableFunc(s.list, func(a, b special) int { return len(b.text) - len(a.text) })
	s.link()
	return s
}

// link builds the automaton, level by level.
func (s *specials) link() {
	s.nodes = []node{{item: -1}}
	s.edges = make(map[uint64]int32)
	at := make([]int32, len(s.list)) // node of the prefix of each token
	for depth, open := 0, true; open; depth++ {
		open = false
		for i, sp := range s.list {
			if depth >= len(sp.text) {
				continue
			}
			open = true
			key := uint64(at[i])<<8 | uint64(sp.text[depth])
			to, ok := s.edges[key]
			if !ok {
				to = int32(len(s.nodes))
				s.edges[key] = to
				s.nodes = append(s.nodes, node{item: -1})
				if depth > 0 {
					s.nodes[to].back = s.step(s.nodes[at[i]].back, sp.text[depth])
				}
			}
			if at[i] = to; depth == 0 {
				s.first[sp.text[0]] = true
			}
			if depth == len(sp.text)-1 && s.nodes[to].item < 0 {
				s.nodes[to].item = int32(i)
			}
		}
	}
}

// step is the node after node at and byte b.
func (s *specials) step(at int32, b byte) int32 {
	for {
		if to, ok := s.edges[uint64(at)<<8|uint64(b)]; ok {
			return to
		}
		if at == 0 {
			return 0
		}
		at = s.nodes[at].back
	}
}

// present gives the indexes of the special tokens that text holds, ascending.
func (s *specials) present(text string) []int32 {
	if len(s.list) == 0 {
		return nil
	}
	seen := make([]bool, len(s.nodes))
	for i, at := 0, int32(0); i < len(text); i++ {
		if at == 0 && !s.first[text[i]] {
			continue
		}
		at = s.step(at, text[i])
		seen[at] = true
	}
	var found []int32
	for i := len(seen) - 1; i > 0; i-- {
		if !seen[i] {
			continue
		}
		seen[s.nodes[i].back] = true
		if item := s.nodes[i].item; item >= 0 {
			found = append(found, item)
		}
	}
	slices.Sort(found)
	return found
}

// partition cuts text at its special tokens: the longest token is looked for
// first, through the whole text from the left, then the next in what is left.
// Control and unknown tokens count only where control agrees; nil: nowhere.
func (s *specials) partition(text string, control func(lo, hi int) bool) []fragment {
	if text == "" {
		return nil
	}
	parts := []fragment{{0, len(text), -1}}
	for _, i := range s.present(text) {
		sp := &s.list[i]
		if !sp.always && control == nil {
			continue
		}
		var next []fragment
		for _, f := range parts {
			if f.id >= 0 {
				next = append(next, f)
			} else {
				next = sp.cut(next, text, f, control)
			}
		}
		parts = next
	}
	return parts
}

// cut appends fragment f, cut at the places of sp.
func (sp *special) cut(dst []fragment, text string, f fragment, control func(lo, hi int) bool) []fragment {
	lo, from := f.lo, f.lo
	for {
		i := strings.Index(text[from:f.hi], sp.text)
		if i < 0 {
			break
		}
		i += from
		end := i + len(sp.text)
		if !sp.always && !control(i, end) {
			from = i + 1
			continue
		}
		if i > lo {
			dst = append(dst, fragment{lo, i, -1})
		}
		dst = append(dst, fragment{i, end, sp.id})
		for sp.trims && end < f.hi && strings.IndexByte(" \t\n\v\f\r", text[end]) >= 0 {
			end++
		}
		lo, from = end, end
	}
	if lo < f.hi {
		dst = append(dst, fragment{lo, f.hi, -1})
	}
	return dst
}
