package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"drover/internal/engine"
)

func perplexityCommand() *cli.Command {
	file := stringFlag(catPrompt, "", "file", "", "text from `FILE` (-: the standard input)", "f")
	file.TakesFile = true
	return &cli.Command{
		Name:      "perplexity",
		Usage:     "measure how well a model predicts a text",
		UsageText: "drover perplexity -f FILE [-c 512]",
		Description: "llama.cpp's method: the text is cut into chunks of -c tokens, each beginning with BOS;\n" +
			"the second half of each chunk is scored.",
		Flags:  append([]cli.Flag{file}, sessionFlags(512)...),
		Action: perplexity,
	}
}

func perplexity(c *cli.Context) (err error) {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	if c.String("file") == "" {
		return usageError("drover perplexity -f FILE", "no text given with --file")
	}
	text, err := readFile(c, c.String("file"))
	if err != nil {
		return err
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	t, err := s.vocab()
	if err != nil {
		return err
	}
	ids := t.Encode(text, true, false)
	context := c.Int("ctx-size")
	if context == 0 {
		context = s.file.Model.Config.Context
	}
	if err := s.start(c, context); err != nil {
		return err
	}
	bos := int32(-1)
	if t.AddsBOS() {
		bos = t.BOS()
	}
	var progress func(engine.Perplexity, int)
	if isTerminal(c.App.ErrWriter) && os.Getenv("TERM") != "dumb" && !wantJSON(c) {
		progress = func(p engine.Perplexity, chunks int) {
			fmt.Fprintf(c.App.ErrWriter, "\rchunk %d of %d: %.4f ", p.Chunks, chunks, p.Perplexity)
		}
		defer fmt.Fprintln(c.App.ErrWriter)
	}
	p, err := s.engine.Perplexity(c.Context, ids, context, bos, progress)
	if err != nil {
		return err
	}
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "perplexity": p.Perplexity, "nll": p.NLL, "tokens": p.Tokens, "chunks": p.Chunks})
	}
	_, err = fmt.Fprintf(c.App.Writer, "perplexity %.4f (nll %.5f) over %d tokens in %d chunks of %d\n", p.Perplexity, p.NLL, p.Tokens, p.Chunks, context)
	return err
}
