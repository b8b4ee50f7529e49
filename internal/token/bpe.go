package token

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe is byte-level BPE: text is cut into words, a word into bytes, and of all
// neighbours that the merges name, the pair named first is joined first.
type bpe struct {
	pretokenizer
	ids   map[string]int32 // bytes that a token stands for
	bytes [256]int32       // symbol of each byte
	pairs map[uint64]joint // left<<32 | right
	size  int32            // of the vocabulary: symbols below are ids, those above are no token
}

// joint is what two symbols become.
type joint struct {
	rank   uint32
	symbol int32
}

func newBPE(c *Config, kinds []kind) (b *bpe, addBOS bool, err error) {
	b = &bpe{ids: make(map[string]int32, len(c.Tokens)), pairs: make(map[uint64]joint, len(c.Merges)), size: int32(len(c.Tokens))}
	if b.pretokenizer, err = pretokenizerFor(c.Pre); err != nil {
		return nil, false, err
	}
	if len(c.Merges) == 0 {
		return nil, false, errors.New("the vocabulary has no merges (tokenizer.ggml.merges), which byte-level BPE needs")
	}
	var buf []byte
	for id, text := range c.Tokens {
		switch kinds[id] {
		case kindControl, kindUnknown, kindByte:
			continue // no text merges into these: what a user types is never structure
		}
		var ok bool
		if buf, ok = unspell(buf[:0], text); !ok || text == "" {
			continue // a token that no bytes spell is found as a special one, or never
		}
		if _, ok := b.ids[string(buf)]; !ok {
			b.ids[string(buf)] = int32(id)
		}
	}
	if err := b.addMerges(c.Merges); err != nil {
		return nil, false, err
	}
	return b, b.addBOS, nil
}

// addMerges fills pairs. Symbols that merges or bytes speak of and that are no
// token get numbers beyond the vocabulary.
func (b *bpe) addMerges(merges []string) error {
	extra := make(map[string]int32)
	symbol := func(bytes []byte) int32 {
		s, ok := b.ids[string(bytes)]
		if !ok {
			if s, ok = extra[string(bytes)]; !ok {
				s = b.size + int32(len(extra))
				extra[string(bytes)] = s
			}
		}
		return s
	}
	for i := range b.bytes {
		b.bytes[i] = symbol([]byte{byte(i)})
	}
	var buf []byte
	for i, text := range merges {
		cut := -1
		if text != "" {
			cut = 1 + strings.IndexByte(text[1:], ' ') // a left part may begin with a space
		}
		if cut <= 0 || cut == len(text)-1 {
			return fmt.Errorf("merge %d %q is not two parts with a space between", i, text)
		}
		var left, right bool
		buf, left = unspell(buf[:0], text[:cut])
		n := len(buf)
		if buf, right = unspell(buf, text[cut+1:]); !left || !right {
			continue // speaks of something else than bytes: nothing to join
		}
		key := uint64(symbol(buf[:n]))<<32 | uint64(symbol(buf[n:]))
		if _, ok := b.pairs[key]; !ok {
			b.pairs[key] = joint{uint32(i), symbol(buf)}
		}
	}
	return nil
}

func (b *bpe) encode(dst []int32, text string, _ bool) []int32 {
	if !utf8.ValidString(text) {
		text = string([]rune(text)) // U+FFFD for each bad byte
	}
	var m merger
	words(text, b.rules, func(word string) { dst = b.encodeWord(dst, word, &m) })
	return dst
}

func (b *bpe) encodeWord(dst []int32, word string, m *merger) []int32 {
	if b.whole {
		if id, ok := b.ids[word]; ok {
			return append(dst, id)
		}
	}
	m.reset()
	for i := range len(word) {
		m.add(1, b.bytes[word[i]])
	}
	m.run(func(l, r *symbol) (uint32, int32, bool) {
		j, ok := b.pairs[uint64(l.id)<<32|uint64(r.id)]
		return j.rank, j.symbol, ok
	})
	for y := range m.left() {
		if y.id < b.size {
			dst = append(dst, y.id)
			continue
		}
		for _, c := range []byte(word[y.off : y.off+y.n]) { // merged to what is no token
			if id := b.bytes[c]; id < b.size {
				dst = append(dst, id)
			}
		}
	}
	return dst
}
