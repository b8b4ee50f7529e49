package token

import (
	"errors"
	"fmt"
	"math"
)

// kind is a token's type, numbered as in tokenizer.ggml.token_type.
type kind uint8

const (
	kindNone    kind = iota // undefined: has no text
	kindNormal              // reached by merges
	kindUnknown             // stands for what the vocabulary cannot say
	kindControl             // structure, as <s>: read from text only when asked for
	kindUser                // found in text before anything else
	kindUnused              // reached by merges, but has no text
	kindByte                // <0x00> to <0xFF>
)

// Tokenizer encodes and decodes with one vocabulary. It never changes after
// New, so any number of goroutines may use it.
type Tokenizer struct {
	tokens   []string // (vocab) as in the file
	kinds    []kind   // (vocab)
	special  specials
	encoder  encoder
	spelled  bool // tokens spell bytes as GPT-2 does
	dropLead bool // decoding drops the space that encoding put in front

	bos, eos, unk  int32 // -1: none
	addBOS, addEOS bool
	ends           map[int32]bool
}

// encoder turns text that holds no special token into ids.
type encoder interface {
	// encode appends the ids of text to dst. first: nothing, or a special
	// token, stands before text.
	encode(dst []int32, text string, first bool) []int32
}

// New checks a vocabulary and prepares it. The error names what is wrong with
// it: an unknown model or pre-tokenizer, lists of the wrong length, a byte token
// that names no byte, a merge that is no pair, an id outside the vocabulary.
func New(c Config) (*Tokenizer, error) {
	t := &Tokenizer{tokens: c.Tokens, spelled: c.Model == "gpt2"}
	if c.Model != "llama" && c.Model != "gpt2" {
		return nil, fmt.Errorf("tokenizer model %q is not supported (only \"llama\", SentencePiece BPE, and \"gpt2\", byte-level BPE)", c.Model)
	}
	if err := t.setKinds(&c); err != nil {
		return nil, err
	}
	known := t.markKnown()
	if err := t.setIDs(&c, known); err != nil {
		return nil, err
	}
	t.special = newSpecials(t.tokens, t.kinds)

	bytes, err := t.byteTokens()
	if err != nil {
		return nil, err
	}
	if c.Model == "llama" {
		t.addBOS = true
		t.dropLead = or(c.AddSpacePrefix, true)
		t.encoder, err = newSPM(&c, t.kinds, bytes, t.unk, t.dropLead)
	} else {
		t.dropLead = or(c.AddSpacePrefix, false)
		t.encoder, t.addBOS, err = newBPE(&c, t.kinds)
	}
	if err != nil {
		return nil, err
	}
	t.addBOS = or(c.AddBOS, t.addBOS) && t.bos >= 0
	t.addEOS = or(c.AddEOS, false) && t.eos >= 0
	return t, nil
}

// setKinds checks the lists' lengths and the tokens' types.
func (t *Tokenizer) setKinds(c *Config) error {
	n := len(c.Tokens)
	switch {
	case n == 0:
		return errors.New("the vocabulary is empty (tokenizer.ggml.tokens)")
	case n > math.MaxInt32:
		return fmt.Errorf("the vocabulary has %d tokens, more than ids can name", n)
	case len(c.Scores) != 0 && len(c.Scores) < n:
		return fmt.Errorf("the vocabulary has %d tokens but %d scores", n, len(c.Scores))
	case len(c.Types) != 0 && len(c.Types) < n:
		return fmt.Errorf("the vocabulary has %d tokens but %d token types", n, len(c.Types))
	}
	t.kinds = make([]kind, n)
	for i := range t.kinds {
		t.kinds[i] = kindNormal
		if len(c.Types) != 0 {
			if c.Types[i] < 0 || c.Types[i] > int32(kindByte) {
				return fmt.Errorf("token %d %q has type %d: want 0 to %d", i, c.Tokens[i], c.Types[i], kindByte)
			}
			t.kinds[i] = kind(c.Types[i])
		} else if _, ok := byteOf(c.Tokens[i]); ok && c.Model == "llama" {
			t.kinds[i] = kindByte
		}
	}
	return nil
}

// setIDs takes the special ids from the configuration, or the model's
// customary ones.
func (t *Tokenizer) setIDs(c *Config, known []int32) error {
	n := int32(len(t.tokens))
	t.ends = make(map[int32]bool)
	named := []struct {
		name string
		id   int32
	}{{"bos", c.BOS}, {"eos", c.EOS}, {"eot", c.EOT}, {"eom", c.EOM}}
	for _, id := range c.EOG {
		named = append(named, struct {
			name string
			id   int32
		}{"end-of-generation", id})
	}
	for i, s := range named {
		if s.id >= n {
			return fmt.Errorf("the %s token is %d, outside the vocabulary of %d tokens", s.name, s.id, n)
		}
		if i > 0 && s.id >= 0 {
			t.ends[s.id] = true
		}
	}
	t.bos, t.eos, t.unk = c.BOS, c.EOS, c.UNK
	if t.unk >= n { // harmless, and found in real files
		t.unk = -1
	}
	if !t.spelled {
		t.bos, t.eos, t.unk = custom(t.bos, 1, n), custom(t.eos, 2, n), custom(t.unk, 0, n)
	} else if n > 11 && t.kinds[11] == kindControl {
		t.bos, t.eos = custom(t.bos, 11, n), custom(t.eos, 11, n)
	}
	t.bos, t.eos, t.unk = max(t.bos, -1), max(t.eos, -1), max(t.unk, -1)
	if t.eos >= 0 {
		t.ends[t.eos] = true
	}
	for _, id := range known {
		t.ends[id] = true
	}
	return nil
}

// custom is id, or the customary one where id is absent and the vocabulary
// reaches that far.
func custom(id, customary, n int32) int32 {
	if id < 0 && customary < n {
		return customary
	}
	return id
}

func or(b *bool, otherwise bool) bool {
	if b != nil {
		return *b
	}
	return otherwise
}

// Encode turns text into ids. addSpecial puts BOS in front and EOS behind where
// the model wants them; parseSpecial reads control tokens that text spells out
// (user-defined ones are always read). Text need not be valid UTF-8:
// SentencePiece falls back to bytes, byte-level BPE reads U+FFFD for each bad
// byte.
func (t *Tokenizer) Encode(text string, addSpecial, parseSpecial bool) []int32 {
	var control func(lo, hi int) bool
	if parseSpecial {
		control = func(int, int) bool { return true }
	}
	return t.encodeScoped(text, addSpecial, control)
}

// encodeScoped is Encode, reading a control token at text[lo:hi] only where
// control agrees; nil: nowhere.
func (t *Tokenizer) encodeScoped(text string, addSpecial bool, control func(lo, hi int) bool) []int32 {
	var ids []int32
	if addSpecial && t.addBOS {
		ids = append(ids, t.bos)
	}
	first := true
	for _, f := range t.special.partition(text, control) {
		if f.id >= 0 {
			ids = append(ids, f.id)
		} else {
			ids = t.encoder.encode(ids, text[f.lo:f.hi], first)
		}
		first = f.id >= 0
	}
	if addSpecial && t.addEOS {
		ids = append(ids, t.eos)
	}
	return ids
}

// EndOfGeneration tells whether id ends an answer: EOS, end of turn or message,
// or a token with a text customary for that.
func (t *Tokenizer) EndOfGeneration(id int32) bool { return t.ends[id] }

// BOS is the token before a text, or -1.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the token after a text, or -1.
func (t *Tokenizer) EOS() int32 { return t.eos }

// AddsBOS tells whether Encode with addSpecial puts BOS in front.
func (t *Tokenizer) AddsBOS() bool { return t.addBOS }

// Size is the number of tokens in the vocabulary.
func (t *Tokenizer) Size() int { return len(t.tokens) }
