package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
			return nil, openError(spec, err)
		}
		f, err := model.OpenBytes(spec, data)
		return f, modelError(err)
	}
	f, err := model.Open(spec)
	return f, openError(spec, err)
}

// openError is modelError with what to name instead of spec, where that is no file.
func openError(spec string, err error) error {
	err = modelError(err)
	var f *failure
	if errors.As(err, &f) && f.code == "model" && f.hint == "" {
		f.hint = modelHint(spec, err)
	}
	return err
}

// modelHint is the remedy for a model that does not open; empty: the error says it.
func modelHint(spec string, err error) string {
	info, statErr := os.Stat(spec)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "ls -l shows who may read it"
	case statErr == nil && info.IsDir():
		return cmp.Or(modelsIn(spec), "name a GGUF file in it: this folder has none")
	case !errors.Is(err, fs.ErrNotExist):
		return ""
	}
	if synthetic, err := model.Open("synthetic:" + spec); err == nil {
		synthetic.Close()
		return "-m synthetic:" + spec + " makes a model of that shape in memory"
	}
	return cmp.Or(modelsIn(filepath.Dir(spec)), "-m takes a GGUF file, or synthetic:SHAPE such as synthetic:llama-7b:Q4_0; without -m the embedded demo runs")
}

// modelsIn tells of the GGUF files of a folder; empty: there are none.
func modelsIn(dir string) string {
	entries, _ := os.ReadDir(dir) // a folder that cannot be read has nothing to suggest
	var names []string
	for _, e := range entries {
		if strings.EqualFold(filepath.Ext(e.Name()), ".gguf") && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	const most = 8
	switch more := len(names) - most; {
	case len(names) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf("models in %s: %s and %d more", dir, strings.Join(names[:most], ", "), more)
	}
	return fmt.Sprintf("models in %s: %s", dir, strings.Join(names, ", "))
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
		return nil, nil, openError(spec, err)
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
