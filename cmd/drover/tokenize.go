package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"drover/internal/token"
)

func tokenizeCommand() *cli.Command {
	file := stringFlag(catPrompt, "", "file", "", "text from `FILE` (-: the standard input)", "f")
	file.TakesFile = true
	return &cli.Command{
		Name:      "tokenize",
		Usage:     "show the token ids of a text, or the text of ids",
		ArgsUsage: "[TEXT]",
		Flags: []cli.Flag{
			modelFlag(),
			file,
			stringFlag(catPrompt, "", "decode", "", "the text of these `IDS`: 1,2,3", "d"),
			boolFlag(catPrompt, "", "no-bos", false, "do not add the tokens that open a text"),
			boolFlag(catPrompt, "", "no-special", false, "read <s> and the like as plain text"),
			// no environment: DROVER_BATCH is the batch size of run
			&cli.BoolFlag{Category: catPrompt, Name: "batch", Usage: "JSON lines in, JSON lines out"},
		},
		Action: tokenize,
	}
}

func tokenize(c *cli.Context) error {
	if err := wrongArgs(c, 1); err != nil {
		return err
	}
	sources := []string{}
	for _, s := range []struct {
		name string
		on   bool
	}{{"TEXT", c.NArg() > 0}, {"--file", given(c, "file")}, {"--decode", given(c, "decode")}, {"--batch", c.Bool("batch")}} {
		if s.on {
			sources = append(sources, s.name)
		}
	}
	if len(sources) > 1 {
		return usageError(helpHint(c.Command), "%s: give one text", strings.Join(sources, " and "))
	}
	if c.String("decode") != "" || given(c, "decode") {
		return decode(c)
	}
	if c.Bool("batch") {
		return tokenizeBatch(c)
	}
	text, err := tokenizeText(c)
	if err != nil {
		return err
	}
	f, t, err := openVocab(c)
	if err != nil {
		return err
	}
	defer f.Close()
	ids := t.Encode(text, !c.Bool("no-bos"), !c.Bool("no-special"))
	if wantJSON(c) {
		pieces := make([]string, len(ids))
		for i, id := range ids {
			pieces[i] = pieceText(t.Piece(id, true))
		}
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "tokens": list(ids), "pieces": pieces})
	}
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = strconv.Itoa(int(id))
	}
	_, err = fmt.Fprintln(c.App.Writer, strings.Join(words, " "))
	return err
}

// tokenizeText is the text to tokenize, byte for byte.
func tokenizeText(c *cli.Context) (string, error) {
	switch {
	case c.NArg() > 0:
		return c.Args().First(), nil
	case c.String("file") != "":
		return readFile(c, c.String("file"))
	case isTerminal(c.App.Reader):
		return "", usageError("drover tokenize TEXT, or -f FILE", "no text")
	}
	return readFile(c, "-")
}

// list keeps an empty list from becoming null.
func list(ids []int32) []int32 {
	if ids == nil {
		return []int32{}
	}
	return ids
}

// pieceText is a token's bytes as text; bytes that are no whole UTF-8 are
// written as SentencePiece writes them, <0xE2>.
func pieceText(piece []byte) string {
	if utf8.Valid(piece) {
		return string(piece)
	}
	var b strings.Builder
	for len(piece) > 0 {
		r, n := utf8.DecodeRune(piece)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "<0x%02X>", piece[0])
		} else {
			b.Write(piece[:n])
		}
		piece = piece[n:]
	}
	return b.String()
}

func decode(c *cli.Context) error {
	ids, err := parseIDs("decode", c.String("decode"))
	if err != nil {
		return err
	}
	f, t, err := openVocab(c)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := checkIDs(ids, t.Size()); err != nil {
		return err
	}
	text := t.Decode(ids)
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "text": text})
	}
	_, err = fmt.Fprintln(c.App.Writer, text)
	return err
}

// parseIDs reads "1,2,3".
func parseIDs(flag, s string) ([]int32, error) {
	var ids []int32
	for _, field := range strings.Split(s, ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(field), 10, 32)
		if err != nil || id < 0 {
			return nil, usageError("ids are numbers with commas: 1,2,3", "flag --%s: %q is not a token id", flag, field)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// checkIDs holds ids against the size of the vocabulary.
func checkIDs(ids []int32, vocab int) error {
	for _, id := range ids {
		if int(id) >= vocab {
			return usageError(fmt.Sprintf("ids are 0 to %d", vocab-1), "token id %d is outside the vocabulary of %d", id, vocab)
		}
	}
	return nil
}

// tokenizeBatch answers each line of JSON with a line of JSON.
func tokenizeBatch(c *cli.Context) error {
	f, t, err := openVocab(c)
	if err != nil {
		return err
	}
	defer f.Close()
	in, out := bufio.NewReaderSize(newStdin(c), 1<<16), bufio.NewWriter(c.App.Writer)
	bad := 0
	for c.Context.Err() == nil {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("read the standard input: %w", err)
		}
		if len(line) == 0 {
			break
		}
		answer, ok := tokenizeLine(t, line, !c.Bool("no-bos"), !c.Bool("no-special"))
		if !ok {
			bad++
		}
		if err := writeJSON(out, answer); err != nil {
			return err
		}
		if in.Buffered() == 0 { // whoever waits for this answer before the next line gets it
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(out.Flush(), c.Context.Err()); err != nil {
		return err
	}
	if bad > 0 {
		return &failure{exit: exitRuntime, code: "runtime", told: true, err: fmt.Errorf("tokenize --batch: %d bad line(s), each answered with its error", bad)}
	}
	return nil
}

// tokenizeLine answers one line: {"tokens":[..]}, or {"error":..} and false.
func tokenizeLine(t *token.Tokenizer, line []byte, addSpecial, parseSpecial bool) (any, bool) {
	q := struct {
		Hex, Text    *string
		AddSpecial   *bool `json:"add_special"`
		ParseSpecial *bool `json:"parse_special"`
	}{AddSpecial: &addSpecial, ParseSpecial: &parseSpecial}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	err := d.Decode(&q)
	switch {
	case err == nil && (q.Hex == nil) == (q.Text == nil):
		err = errors.New(`either "hex" or "text" is wanted`)
	case err == nil && (q.AddSpecial == nil || q.ParseSpecial == nil):
		err = errors.New(`"add_special" and "parse_special" are true or false`)
	case err == nil && d.More():
		err = errors.New("more than one JSON value in a line")
	}
	var text []byte
	if err == nil && q.Hex != nil {
		text, err = hex.DecodeString(*q.Hex)
	} else if err == nil {
		text = []byte(*q.Text)
	}
	if err != nil {
		return map[string]string{"error": err.Error()}, false
	}
	return map[string][]int32{"tokens": list(t.Encode(string(text), *q.AddSpecial, *q.ParseSpecial))}, true
}
