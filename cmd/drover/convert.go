package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"drover/internal/model"
)

func convertCommand() *cli.Command {
	output := stringFlag(catGeneral, "", "output", "", "write `FILE`.gguf", "o")
	output.TakesFile = true
	return &cli.Command{
		Name:        "convert",
		Usage:       "write a model as a GGUF file",
		UsageText:   "drover convert -m MODEL -o FILE.gguf",
		Description: "MODEL is any that drover reads: a synthetic one becomes a file that other programs can read too.",
		Flags:       []cli.Flag{modelFlag(), output},
		Action:      convert,
	}
}

func convert(c *cli.Context) error {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	path := c.String("output")
	if path == "" || path == "-" {
		return usageError("drover convert -m MODEL -o FILE.gguf", "no file given with --output")
	}
	f, err := openModel(c, c.String("model"), true)
	if err != nil {
		return err
	}
	defer f.Close()
	bar := newProgress(c.App.ErrWriter, "writing "+path)
	defer bar.end()
	if err := model.WriteContext(c.Context, f, path, bar.step); err != nil {
		return err
	}
	bar.end()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "model": describeModel(f), "file": path, "bytes": info.Size()})
	}
	_, err = fmt.Fprintf(c.App.ErrWriter, "wrote %s, %s\n", path, byteSize(uint64(info.Size())))
	return err
}
