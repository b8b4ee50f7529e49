package model

import (
	"errors"
	"fmt"

	"drover/internal/gguf"
	"drover/internal/token"
)

const (
	keyTokenizer = "tokenizer.ggml.model"
	keyTokens    = "tokenizer.ggml.tokens"
	keyMerges    = "tokenizer.ggml.merges"
)

// readVocab checks the vocabulary's types, lengths and ids. The long lists of
// texts stay in the file until Vocab is called.
func (f *File) readVocab() error {
	m := f.Meta
	if err := ignoreMissing(assign(&f.ChatTemplate, m.Text, "tokenizer.chat_template")); err != nil {
		return err
	}
	c := token.Config{BOS: -1, EOS: -1, UNK: -1, SEP: -1, PAD: -1, EOT: -1, EOM: -1}
	f.vocab = func() token.Config { return c }
	if _, ok := m.Value(keyTokenizer); !ok {
		return nil
	}
	tokens, err := texts(m, keyTokens)
	if err != nil {
		return err
	}
	merges, err := texts(m, keyMerges)
	if err := ignoreMissing(err); err != nil {
		return err
	}
	if tokens.Len == 0 || tokens.Len > maxVocab {
		return fmt.Errorf("the vocabulary lists %d tokens; it must be from 1 to %d", tokens.Len, maxVocab)
	}
	for _, err := range []error{
		assign(&c.Model, m.Text, keyTokenizer),
		assign(&c.Pre, m.Text, "tokenizer.ggml.pre"),
		assign(&c.Scores, m.Float32s, "tokenizer.ggml.scores"),
		assign(&c.Types, m.Int32s, "tokenizer.ggml.token_type"),
		flag(&c.AddBOS, m, "tokenizer.ggml.add_bos_token"),
		flag(&c.AddEOS, m, "tokenizer.ggml.add_eos_token"),
		flag(&c.AddSpacePrefix, m, "tokenizer.ggml.add_space_prefix"),
		assign(&c.RemoveExtraWhitespaces, m.Bool, "tokenizer.ggml.remove_extra_whitespaces"),
	} {
		if err := ignoreMissing(err); err != nil {
			return err
		}
	}
	if n := len(c.Scores); n > 0 && n != tokens.Len {
		return fmt.Errorf("the vocabulary lists %d tokens and %d scores", tokens.Len, n)
	}
	if n := len(c.Types); n > 0 && n != tokens.Len {
		return fmt.Errorf("the vocabulary lists %d tokens and %d token types", tokens.Len, n)
	}
	if err := f.readSpecial(&c, tokens.Len); err != nil {
		return err
	}
	f.vocab = func() token.Config {
		full := c
		full.Tokens, _ = tokens.Texts()
		full.Merges, _ = merges.Texts()
		return full
	}
	return nil
}

// readSpecial reads the ids of special tokens. One outside the vocabulary is as
// good as absent: files with a padding token that was never added are common.
func (f *File) readSpecial(c *token.Config, vocab int) error {
	for _, s := range []struct {
		name string
		id   *int32
	}{
		{"bos", &c.BOS}, {"eos", &c.EOS}, {"unknown", &c.UNK}, {"seperator", &c.SEP}, {"separator", &c.SEP}, // the key was misspelt, and is
		{"padding", &c.PAD}, {"eot", &c.EOT}, {"eom", &c.EOM},
	} {
		key := "tokenizer.ggml." + s.name + "_token_id"
		n, err := f.Meta.Int(key)
		switch {
		case errors.Is(err, gguf.ErrMissing):
		case err != nil:
			return err
		case n < 0 || n >= int64(vocab):
			f.Problems = append(f.Problems, fmt.Sprintf("key %q is %d, outside the vocabulary of %d tokens: ignored", key, n, vocab))
		default:
			*s.id = int32(n)
		}
	}
	return nil
}

// assign reads a key into dst.
func assign[T any](dst *T, read func(string) (T, error), key string) error {
	x, err := read(key)
	if err == nil {
		*dst = x
	}
	return err
}

// flag reads a bool of which the absence means something.
func flag(dst **bool, m *gguf.File, key string) error {
	x, err := m.Bool(key)
	if err == nil {
		*dst = &x
	}
	return err
}

// texts is an array of strings, not copied yet.
func texts(m *gguf.File, key string) (gguf.Value, error) {
	v, ok := m.Value(key)
	if !ok {
		return v, fmt.Errorf("key %q: %w", key, gguf.ErrMissing)
	}
	if v.Type != gguf.Array || v.Elem != gguf.String {
		return v, fmt.Errorf("key %q: %w: an array of strings is wanted", key, gguf.ErrType)
	}
	return v, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, gguf.ErrMissing) {
		return nil
	}
	return err
}
