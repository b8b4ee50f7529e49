package model

import (
	"fmt"

	"drover/internal/token"
)

// Token types of SentencePiece.
const (
	typeNormal  = 1
	typeUnknown = 2
	typeControl = 3
	typeByte    = 6
)

// leastVocab is <unk>, <s>, </s> and the 256 bytes.
const leastVocab = 3 + 256

// words is a SentencePiece vocabulary of n tokens: <unk>, <s>, </s>, the bytes,
// single characters, then made-up words of syllables, so that what a synthetic
// model writes can be read.
func words(n int) token.Config {
	c := token.Config{
		Model: "llama", Pre: "default",
		Tokens: make([]string, 0, n), Scores: make([]float32, 0, n), Types: make([]int32, 0, n),
		BOS: 1, EOS: 2, UNK: 0, SEP: -1, PAD: -1, EOT: -1, EOM: -1,
	}
	yes, no := true, false
	c.AddBOS, c.AddEOS, c.AddSpacePrefix = &yes, &no, &yes
	add := func(text string, score float32, kind int32) {
		if len(c.Tokens) < n {
			c.Tokens, c.Scores, c.Types = append(c.Tokens, text), append(c.Scores, score), append(c.Types, kind)
		}
	}
	add("<unk>", 0, typeUnknown)
	add("<s>", 0, typeControl)
	add("</s>", 0, typeControl)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), 0, typeByte)
	}
	const space = "\u2581"
	add(space, -1, typeNormal)
	for ch := '!'; ch <= '~'; ch++ {
		add(string(ch), -float32(len(c.Tokens)-leastVocab), typeNormal)
	}
	for i := 0; len(c.Tokens) < n; i++ {
		add(space+word(i), -float32(len(c.Tokens)-leastVocab), typeNormal)
	}
	return c
}

// word is the i-th of two syllables, then three and so on; no two are equal.
func word(i int) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aeiou"
	count, syllables := 6400, 2 // 80^2
	for ; i >= count; count, syllables = count*80, syllables+1 {
		i -= count
	}
	i = i * 7919 % count // every i once, as 7919 and 80 share no factor; neighbours unlike each other
	b := make([]byte, 0, 12)
	for range syllables {
		b = append(b, consonants[i%16], vowels[i/16%5])
		i /= 80
	}
	return string(b)
}
