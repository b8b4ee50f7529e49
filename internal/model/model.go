// Package model opens models: GGUF files of the llama, mistral and qwen2
// architectures, and synthetic ones. It is the door where shapes and limits are
// checked, once: what it gives as a backend.Model can be computed with without
// further doubts. It also writes models (convert). It knows no device and
// computes nothing.
package model

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"drover/backend"
	"drover/internal/gguf"
	"drover/internal/token"
)

// ErrBad: the model file is bad, missing or unreadable.
var ErrBad = errors.New("bad model file")

// ErrSpec: a synthetic model's description is not understood.
var ErrSpec = errors.New("bad synthetic model")

// File is an open model. It may be used from several goroutines.
type File struct {
	Model        *backend.Model // nil where only the vocabulary was opened
	Path         string         // the file, or the synthetic model's description
	TypeName     string         // of the weights, as llama.cpp names file types: Q4_0, Q4_K_M
	Params       uint64         // weights; a matrix that embedding and output share counts once
	Bytes        uint64         // of the weights
	ChatTemplate string         // tokenizer.chat_template, or empty
	Problems     []string       // what was wrong in the file and did not matter
	Meta         *gguf.File     // nil for synthetic models

	vocab func() token.Config
	spec  *spec // synthetic models only
}

// Open opens the model that spec names: a GGUF file, the first file of a split
// set, or synthetic:SHAPE[:TYPE][:SEED]. Errors: ErrBad, ErrSpec.
func Open(spec string) (*File, error) {
	if s, ok := strings.CutPrefix(spec, "synthetic:"); ok {
		return openSynthetic(s)
	}
	meta, err := gguf.Open(spec)
	if err != nil {
		return nil, openError(spec, err)
	}
	return open(meta)
}

// OpenBytes opens a model that is in memory; name is for messages. The bytes
// must not change. Error: ErrBad.
func OpenBytes(name string, data []byte) (*File, error) {
	meta, err := gguf.OpenBytes(name, data)
	if err != nil {
		return nil, openError(name, err)
	}
	return open(meta)
}

// OpenVocab opens a model for its vocabulary and chat template alone, of any
// architecture; a file without tensors will do. Model is nil, but for synthetic
// models. Errors: ErrBad, ErrSpec.
func OpenVocab(spec string) (*File, error) {
	if strings.HasPrefix(spec, "synthetic:") {
		return Open(spec)
	}
	meta, err := gguf.Open(spec)
	if err != nil {
		return nil, openError(spec, err)
	}
	f := &File{Path: spec, Meta: meta}
	if err := f.readVocab(); err != nil {
		meta.Close()
		return nil, openError(spec, err)
	}
	if _, ok := meta.Value(keyTokenizer); !ok {
		meta.Close()
		return nil, openError(spec, fmt.Errorf("it holds no vocabulary (key %q)", keyTokenizer))
	}
	return f, nil
}

// open reads a GGUF file's configuration, tensors and vocabulary.
func open(meta *gguf.File) (*File, error) {
	f := &File{Path: meta.Path, Meta: meta}
	err := f.readModel()
	if err == nil {
		err = f.readVocab()
	}
	if err != nil {
		meta.Close()
		return nil, openError(meta.Path, err)
	}
	return f, nil
}

func (f *File) readModel() error {
	cfg, err := readConfig(f.Meta)
	if err != nil {
		return err
	}
	if len(f.Meta.Tensors()) == 0 {
		return errors.New("it holds no tensors, only a vocabulary: a model is wanted here")
	}
	if f.Model, err = fromGGUF(f.Meta, cfg); err != nil {
		return err
	}
	f.count()
	f.TypeName, err = typeName(f.Meta, f.Model)
	return err
}

// count sums up the weights.
func (f *File) count() {
	seen := map[*backend.Tensor]bool{}
	for _, t := range f.Model.Tensors(backend.Range{Lo: 0, Hi: f.Model.Config.Blocks()}) {
		if !seen[t] {
			seen[t] = true
			f.Params += uint64(t.Rows) * uint64(t.Cols)
			f.Bytes += t.Bytes()
		}
	}
}

// Vocab is the model's vocabulary; with an empty Model where the file has none.
// Its types, lengths and ids were checked on opening; token.New checks the rest.
func (f *File) Vocab() token.Config { return f.vocab() }

// Close lets go of the file. The model's tensors cannot be read afterwards.
func (f *File) Close() error {
	if f.Meta == nil {
		return nil
	}
	return f.Meta.Close()
}

// badFile is an ErrBad that says which file, and why, and nothing else.
type badFile struct {
	path string
	err  error
}

func (e *badFile) Error() string        { return e.path + ": " + e.err.Error() }
func (e *badFile) Unwrap() error        { return e.err }
func (e *badFile) Is(target error) bool { return target == ErrBad }

// noFile is fs.ErrNotExist in words for people.
type noFile struct{}

func (noFile) Error() string        { return "no such model file" }
func (noFile) Is(target error) bool { return target == fs.ErrNotExist }

// openError wraps what is wrong with the file at path.
func openError(path string, err error) error {
	var sys *fs.PathError
	if errors.As(err, &sys) && sys.Path == path {
		err = sys.Err // the path is said once
		if errors.Is(err, fs.ErrNotExist) {
			err = noFile{}
		}
	}
	return &badFile{path, err}
}
