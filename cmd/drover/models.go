package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"drover/internal/demo"
	"drover/internal/model"
	"drover/internal/token"
)

// openModel opens what -m names. Nothing named means the embedded demo model,
// and a line on stderr says so. mapped false reads a file into memory at once
// instead of mapping it. Every error is that of a bad model file or a bad
// synthetic spec.
func openModel(c *cli.Context, spec string, mapped bool) (*model.File, error) {
	if spec == "" {
		fmt.Fprintln(c.App.ErrWriter, "no model named with -m: using the embedded demo model, which tells small stories")
		f, err := model.OpenBytes(demo.Name, demo.File())
		return f, modelError(err)
	}
	if info, err := os.Stat(spec); !mapped && err == nil && info.Mode().IsRegular() {
		data, err := os.ReadFile(spec)
		if err != nil {
			return nil, modelError(err)
		}
		f, err := model.OpenBytes(spec, data)
		return f, modelError(err)
	}
	f, err := model.Open(spec)
	return f, modelError(err)
}

// openVocab opens a model for its vocabulary alone: a file without tensors
// will do.
func openVocab(c *cli.Context) (*model.File, *token.Tokenizer, error) {
	spec := c.String("model")
	if spec == "" {
		f, err := openModel(c, "", true)
		if err != nil {
			return nil, nil, err
		}
		return tokenizer(f)
	}
	f, err := model.OpenVocab(spec)
	if err != nil {
		return nil, nil, modelError(err)
	}
	return tokenizer(f)
}

// tokenizer makes the file's tokenizer, and closes the file where it cannot.
func tokenizer(f *model.File) (*model.File, *token.Tokenizer, error) {
	t, err := token.New(f.Vocab())
	if err != nil {
		return nil, nil, errors.Join(modelError(fmt.Errorf("%s: %w", f.Path, err)), f.Close())
	}
	return f, t, nil
}
