package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/urfave/cli/v2"
)

func logitsCommand() *cli.Command {
	output := stringFlag(catGeneral, "", "output", "", "write to `FILE` (-: the standard output)", "o")
	output.TakesFile = true
	return &cli.Command{
		Name:        "logits",
		Usage:       "write the logits that follow tokens",
		UsageText:   "drover logits --tokens 1,2,3 [--all] -o FILE",
		Description: "FILE gets little-endian float32: (vocab) of the last token, or with --all (tokens, vocab).",
		Flags: append([]cli.Flag{
			stringFlag(catPrompt, "", "tokens", "", "token ids `1,2,3`, used exactly"),
			boolFlag(catPrompt, "", "all", false, "the logits after every token, not the last alone"),
			output,
		}, sessionFlags(0)...),
		Action: logits,
	}
}

func logits(c *cli.Context) (err error) {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	if c.String("tokens") == "" {
		return usageError("drover logits --tokens 1,2,3 -o FILE", "no tokens given with --tokens")
	}
	ids, err := parseIDs("tokens", c.String("tokens"))
	if err != nil {
		return err
	}
	path := c.String("output")
	switch {
	case path == "":
		return usageError("drover logits --tokens 1,2,3 -o FILE", "no file given with --output")
	case path == "-" && wantJSON(c):
		return usageError("name a file", "--json and -o - both want the standard output")
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	vocab := s.file.Model.Config.Vocab
	if err := checkIDs(ids, vocab); err != nil {
		return err
	}
	context, err := s.contextFor(c, len(ids))
	if err != nil {
		return err
	}
	if err := s.start(c, context); err != nil {
		return err
	}
	rows := 1
	if c.Bool("all") {
		rows = len(ids)
	}
	if err := writeOutput(c, path, func(w io.Writer) error { return s.writeLogits(c, w, ids, rows > 1) }); err != nil {
		return err
	}
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "model": describeModel(s.file), "plan": s.placer.current(),
			"file": path, "rows": rows, "vocab": vocab})
	}
	return nil
}

// contextFor is the context to load for a text of known length: no more than
// it needs, unless -c says so. A text longer than -c or the model allow is an
// error with both numbers.
func (s *session) contextFor(c *cli.Context, tokens int) (int, error) {
	context := c.Int("ctx-size")
	if context == 0 {
		context = s.file.Model.Config.Context
	}
	if err := checkLength(tokens, context); err != nil {
		return 0, err
	}
	if c.Int("ctx-size") == 0 {
		return tokens, nil
	}
	return context, nil
}

func (s *session) writeLogits(c *cli.Context, w io.Writer, ids []int32, all bool) error {
	buf := make([]byte, 4*s.file.Model.Config.Vocab)
	return s.engine.Logits(c.Context, ids, all, func(_ int, logits []float32) error {
		for i, x := range logits {
			binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(x))
		}
		_, err := w.Write(buf)
		return err
	})
}

// writeOutput lets write fill the file at path ("-": the standard output). A
// file that was not completed is removed.
func writeOutput(c *cli.Context, path string, write func(io.Writer) error) error {
	if path == "-" {
		b := bufio.NewWriter(c.App.Writer)
		return errors.Join(write(b), b.Flush())
	}
	f, err := os.Create(path)
	if err != nil {
		return usageError("", "%w", err)
	}
	info, err := f.Stat()
	b := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(err, write(b), b.Flush(), f.Close()); err != nil {
		err = fmt.Errorf("write %s: %w", path, err)
		if info != nil && info.Mode().IsRegular() { // not a device
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	return nil
}
