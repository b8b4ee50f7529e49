package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"drover/backend"
	"drover/internal/quant"
)

// random makes a synthetic model's tensors. Matrices have the standard
// deviation 1/sqrt(cols), so that an input of unit variance, which the norms
// see to, gives an output of unit variance: the hidden state grows as the
// square root of the layers and nothing overflows or dies out.
type random struct {
	spec   *spec
	config *backend.Config
	made   uint64 // tensors so far: each has its own seed
}

func (w *random) has(name string) bool {
	if name == "output.weight" {
		return !w.spec.shape.tied
	}
	for _, kind := range []string{".attn_q.bias", ".attn_k.bias", ".attn_v.bias"} { // qwen2's
		if strings.HasSuffix(name, kind) {
			return w.spec.shape.biases
		}
	}
	return false
}

func (w *random) matrix(name string, rows, cols int) (*backend.Tensor, error) {
	layer := 0
	fmt.Sscanf(name, "blk.%d.", &layer)
	t := w.spec.mix.choose(w.config, layer, name, cols, w.spec.shape.tied)
	return w.tensor(name, t, rows, cols, 1/math.Sqrt(float64(cols))), nil
}

func (w *random) experts(layer int, kind string, n, rows, cols int) (*backend.Tensor, error) {
	return w.matrix(fmt.Sprintf("blk.%d.%s_exps.weight", layer, kind), n*rows, cols)
}

// vector is a norm's ones, or biases.
func (w *random) vector(name string, n int) (*backend.Tensor, error) {
	if w.has(name) {
		return w.tensor(name, quant.F32, 1, n, 0.1), nil
	}
	return &backend.Tensor{Name: name, Type: quant.F32, Rows: 1, Cols: n, Source: ones{}}, nil
}

func (w *random) tensor(name string, t quant.Type, rows, cols int, sigma float64) *backend.Tensor {
	w.made++
	return &backend.Tensor{Name: name, Type: t, Rows: rows, Cols: cols, Source: &generated{
		name: name, t: t, row: t.RowBytes(cols), sigma: float32(sigma), seed: mingle(w.spec.seed, w.made)}}
}

// generated is a tensor whose rows are made when they are read, each from its
// own seed: any rows, in any order, are always the same.
type generated struct {
	name  string
	t     quant.Type
	row   int // bytes
	sigma float32
	seed  uint64
}

func (g *generated) Rows(dst []byte, lo, hi int) error {
	if lo < 0 || lo > hi || len(dst) != (hi-lo)*g.row {
		panic(fmt.Sprintf("BUG: rows [%d, %d) of %q into %d bytes", lo, hi, g.name, len(dst)))
	}
	for r := lo; r < hi; r++ {
		quant.Random(g.t, dst[:g.row], mingle(g.seed, uint64(r)), g.sigma)
		dst = dst[g.row:]
	}
	return nil
}

func (g *generated) Mapped() []byte { return nil }
func (g *generated) Drop(_, _ int)  {}

// ones is a norm that changes nothing.
type ones struct{}

func (ones) Rows(dst []byte, _, _ int) error {
	for ; len(dst) >= 4; dst = dst[4:] {
		binary.LittleEndian.PutUint32(dst, math.Float32bits(1))
	}
	return nil
}

func (ones) Mapped() []byte { return nil }
func (ones) Drop(_, _ int)  {}

// mingle makes one seed of two (the finaliser of splitmix64, Steele et al. 2014).
func mingle(seed, n uint64) uint64 {
	x := seed + (n+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
