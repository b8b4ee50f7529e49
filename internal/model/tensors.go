package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"drover/backend"
	"drover/internal/gguf"
	"drover/internal/quant"
)

// fileWeights finds tensors in a GGUF file.
type fileWeights struct {
	file *gguf.File
	used map[string]bool
}

// fromGGUF finds and checks every tensor of a model, and completes c.
func fromGGUF(file *gguf.File, c *backend.Config) (*backend.Model, error) {
	w := &fileWeights{file, map[string]bool{}}
	if err := w.readVocabSize(c); err != nil {
		return nil, err
	}
	if err := w.readFactors(c); err != nil {
		return nil, err
	}
	m, err := assemble(c, w)
	if err != nil {
		return nil, err
	}
	return m, w.checkRest(c)
}

// readVocabSize takes the vocabulary's size from the embedding; the tokenizer's
// list must agree, and vocab_size where there is no list.
func (w *fileWeights) readVocabSize(c *backend.Config) error {
	t := w.file.Tensor("token_embd.weight")
	if t == nil {
		return missing("token_embd.weight")
	}
	if len(t.Dims) < 2 || t.Dims[1] > maxVocab {
		return fmt.Errorf("tensor %q has shape %d; (vocabulary, width) is wanted, at most %d tokens", t.Name, t.Dims, maxVocab)
	}
	c.Vocab = int(t.Dims[1])
	n, err := w.file.Uint(c.Arch + ".vocab_size")
	if err != nil && !errors.Is(err, gguf.ErrMissing) {
		return err
	}
	tokens, listed := w.file.Value(keyTokens)
	switch {
	case listed && tokens.Len != c.Vocab:
		return fmt.Errorf("the vocabulary lists %d tokens and the embedding has %d", tokens.Len, c.Vocab)
	case !listed && err == nil && n != uint64(c.Vocab):
		return fmt.Errorf("key %q is %d and the embedding has %d tokens", c.Arch+".vocab_size", n, c.Vocab)
	}
	return nil
}

// readFactors reads Llama 3's divisors of the rotary frequencies.
func (w *fileWeights) readFactors(c *backend.Config) error {
	const name = "rope_freqs.weight"
	if !w.has(name) {
		return nil
	}
	t, err := w.vector(name, c.Rope.Dims/2)
	if err != nil {
		return err
	}
	b := make([]byte, t.Bytes())
	if err := t.Source.Rows(b, 0, 1); err != nil {
		return err
	}
	c.Rope.Factors = make([]float32, t.Cols)
	quant.Dequantize(t.Type, c.Rope.Factors, b)
	for _, x := range c.Rope.Factors {
		if !(x > 1e-6 && x < math.MaxFloat32) {
			return fmt.Errorf("tensor %q holds %g; positive numbers are wanted", name, x)
		}
	}
	return nil
}

func (w *fileWeights) has(name string) bool { return w.file.Tensor(name) != nil }

func (w *fileWeights) matrix(name string, rows, cols int) (*backend.Tensor, error) {
	return w.find(name, rows, cols, rows, cols)
}

func (w *fileWeights) vector(name string, n int) (*backend.Tensor, error) {
	t, err := w.find(name, 1, n, n)
	if err != nil {
		return nil, err
	}
	switch t.Type {
	case quant.F32, quant.F16, quant.BF16:
		return t, nil
	}
	return nil, fmt.Errorf("tensor %q is %v; vectors must be F32, F16 or BF16", name, t.Type)
}

// find makes a (rows, cols) tensor of the file's tensor of that shape, given
// slowest first.
func (w *fileWeights) find(name string, rows, cols int, shape ...int) (*backend.Tensor, error) {
	t := w.file.Tensor(name)
	if t == nil {
		return nil, missing(name)
	}
	w.used[name] = true
	kind := quant.Type(t.Type)
	if !kind.Known() {
		return nil, fmt.Errorf("tensor %q has the number format %d, which is not supported", name, uint32(t.Type))
	}
	want := make([]uint64, len(shape))
	for i, n := range shape {
		want[len(shape)-1-i] = uint64(n)
	}
	dims := t.Dims
	for len(dims) > len(want) && dims[len(dims)-1] == 1 {
		dims = dims[:len(dims)-1]
	}
	if !slices.Equal(dims, want) {
		return nil, fmt.Errorf("tensor %q has shape %d; the metadata call for %d (fastest dimension first)", name, t.Dims, want)
	}
	if cols%kind.BlockElems() != 0 {
		return nil, fmt.Errorf("tensor %q: rows of %d do not fit %v's blocks of %d", name, cols, kind, kind.BlockElems())
	}
	return &backend.Tensor{Name: name, Type: kind, Rows: rows, Cols: cols,
		Source: &mapped{t, uint64(kind.RowBytes(cols))}}, nil
}

// experts finds the merged tensor, or joins the one per expert that files from
// before April 2024 have.
func (w *fileWeights) experts(layer int, kind string, n, rows, cols int) (*backend.Tensor, error) {
	merged := fmt.Sprintf("blk.%d.%s_exps.weight", layer, kind)
	first := fmt.Sprintf("blk.%d.%s.0.weight", layer, kind)
	if w.has(merged) || !w.has(first) {
		return w.find(merged, n*rows, cols, n, rows, cols)
	}
	all := &backend.Tensor{Name: merged, Rows: n * rows, Cols: cols}
	src := &joined{rows: rows}
	for e := range n {
		t, err := w.matrix(fmt.Sprintf("blk.%d.%s.%d.weight", layer, kind, e), rows, cols)
		if err != nil {
			return nil, err
		}
		if e == 0 {
			all.Type = t.Type
		} else if t.Type != all.Type {
			return nil, fmt.Errorf("tensor %q is %v and expert 0 is %v: experts of different formats are not supported; convert the model again", t.Name, t.Type, all.Type)
		}
		src.parts = append(src.parts, t.Source)
	}
	src.row = all.Type.RowBytes(cols)
	all.Source = src
	return all, nil
}

// checkRest looks at the tensors that nothing reads. Most are harmless. Those
// that a model of this kind would compute with, or that show that a count in
// the metadata is wrong, are not.
func (w *fileWeights) checkRest(c *backend.Config) error {
	for _, t := range w.file.Tensors() {
		if w.used[t.Name] {
			continue
		}
		rest, ok := strings.CutPrefix(t.Name, "blk.")
		number, kind, _ := strings.Cut(rest, ".")
		if ok {
			if n, err := strconv.Atoi(number); err == nil && n >= c.Layers {
				return fmt.Errorf("tensor %q, but the metadata say that there are %d layers", t.Name, c.Layers)
			}
		}
		for _, end := range []string{".bias", "_norm.weight", "_scale", ".scale"} {
			if strings.HasSuffix(t.Name, end) {
				return fmt.Errorf("tensor %q is not supported in models of architecture %s", t.Name, c.Arch)
			}
		}
		if ok && strings.HasPrefix(kind, "ffn_") {
			return fmt.Errorf("tensor %q does not fit the metadata, which say that there are %d experts", t.Name, c.Experts)
		}
	}
	return nil
}

func missing(name string) error {
	return fmt.Errorf("tensor %q is missing: the file is incomplete or of another kind", name)
}
