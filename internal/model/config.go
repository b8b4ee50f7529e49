package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"drover/backend"
	"drover/internal/gguf"
)

// Bounds on a model's shape, well above any that was published.
const (
	maxLayers  = 4096
	maxDim     = 1 << 20
	maxHeads   = 1 << 14
	maxHeadDim = 1 << 14
	maxFFN     = 1 << 24
	maxVocab   = 1 << 24
	maxContext = 1 << 30
	maxExperts = 1024
)

// architectures that are supported.
func architectures() []string { return []string{"llama", "mistral", "qwen2"} }

// keys reads an architecture's metadata. The first error stays.
type keys struct {
	file *gguf.File
	arch string
	err  error
}

// readConfig reads a model's shape from its metadata. The vocabulary's size is
// the embedding's rows, and Llama 3's frequency factors are a tensor: both are
// left to fromGGUF.
func readConfig(file *gguf.File) (*backend.Config, error) {
	arch, err := file.Text("general.architecture")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(architectures(), arch) {
		return nil, fmt.Errorf("architecture %q is not supported; supported: %s", arch, strings.Join(architectures(), ", "))
	}
	k := &keys{file: file, arch: arch}
	c := &backend.Config{
		Arch:    arch,
		Name:    k.text("general.name"),
		Dim:     k.count("embedding_length", required, 1, maxDim),
		Layers:  k.count("block_count", required, 1, maxLayers),
		Context: k.count("context_length", required, 1, maxContext),
		Window:  k.count("attention.sliding_window", 0, 0, maxContext),
		Experts: k.count("expert_count", 0, 0, maxExperts),
	}
	c.Heads = k.each("attention.head_count", required, 1, maxHeads, c.Layers)
	c.KVHeads = k.each("attention.head_count_kv", c.Heads, 1, maxHeads, c.Layers)
	c.FFN = k.each("feed_forward_length", required, 1, maxFFN, c.Layers)
	if c.Experts > 0 {
		c.ExpertsUsed = k.each("expert_used_count", required, 1, c.Experts, c.Layers)
		c.FFN = k.count("expert_feed_forward_length", c.FFN, 1, maxFFN)
	}
	if k.err == nil {
		k.readHeadDim(c)
	}
	eps := k.float("attention.layer_norm_rms_epsilon", math.NaN())
	if k.err == nil && (math.IsNaN(eps) || eps < 0 || eps > 1) {
		k.fail("attention.layer_norm_rms_epsilon", "must be there and between 0 and 1")
	}
	c.NormEps = float32(eps)
	if k.err == nil {
		k.readRope(c)
	}
	if k.err != nil {
		return nil, k.err
	}
	return c, checkConfig(c)
}

// readHeadDim reads the width of a head, or derives it.
func (k *keys) readHeadDim(c *backend.Config) {
	derived := required
	if c.Dim%c.Heads == 0 {
		derived = c.Dim / c.Heads
	}
	c.HeadDim = k.count("attention.key_length", derived, 1, maxHeadDim)
	if v := k.count("attention.value_length", derived, 1, maxHeadDim); k.err == nil && v != c.HeadDim {
		k.fail("attention.value_length", "is %d and key_length %d; different ones are not supported", v, c.HeadDim)
	}
}

// checkConfig holds a shape to the contract of backend.Config.
func checkConfig(c *backend.Config) error {
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("%d attention heads are not a multiple of %d key/value heads", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("heads are %d wide; it must be an even number", c.HeadDim)
	case c.Heads*c.HeadDim > maxDim:
		return fmt.Errorf("%d heads of %d are wider than %d", c.Heads, c.HeadDim, maxDim)
	case c.Rope.Dims < 2 || c.Rope.Dims%2 != 0 || c.Rope.Dims > c.HeadDim:
		return fmt.Errorf("%d rotary dimensions with heads of %d; it must be an even number from 2 to that", c.Rope.Dims, c.HeadDim)
	case c.Arch == "llama" && c.Rope.Dims != c.HeadDim:
		return fmt.Errorf("%d rotary dimensions with heads of %d; in architecture llama they are equal", c.Rope.Dims, c.HeadDim)
	case c.ExpertsUsed > c.Experts || c.Experts > 0 && c.ExpertsUsed < 1:
		return fmt.Errorf("%d of %d experts used", c.ExpertsUsed, c.Experts)
	}
	return nil
}

// readRope reads how positions turn queries and keys, as llama.cpp does
// (llama_model::load_hparams, llama_context::llama_context).
func (k *keys) readRope(c *backend.Config) {
	r := backend.Rope{
		Base:        k.float("rope.freq_base", 10000),
		Dims:        k.count("rope.dimension_count", c.HeadDim, 0, maxHeadDim),
		Halves:      c.Arch == "qwen2", // llama's queries and keys are stored permuted, so that pairs are neighbours
		Factor:      k.float("rope.scaling.factor", k.float("rope.scale_linear", 1)),
		OrigContext: k.count("rope.scaling.original_context_length", c.Context, 1, maxContext),
		BetaFast:    k.float("rope.scaling.yarn_beta_fast", 32),
		BetaSlow:    k.float("rope.scaling.yarn_beta_slow", 1),
		ExtFactor:   k.float("rope.scaling.yarn_ext_factor", 1),
		AttnFactor:  k.float("rope.scaling.attn_factor", 1),
	}
	kind, all := k.text(k.arch+".rope.scaling.type"), k.float("rope.scaling.yarn_log_multiplier", 0)
	plain := k.float("rope.scaling.yarn_attn_factor", 1)
	if k.err != nil {
		return
	}
	if r.Factor == 0 {
		r.Factor = 1
	}
	if r.Base <= 1 || r.Base > 1e15 {
		k.fail("rope.freq_base", "is %g; it must be above 1", r.Base)
	}
	if r.Factor < 1e-3 || r.Factor > 1e6 {
		k.fail("rope.scaling.factor", "is %g; it must be from 0.001 to 1000000", r.Factor)
	}
	switch kind {
	case "none":
		r.Factor = 1
	case "", "linear":
		if r.Factor != 1 {
			r.Scaling = backend.ScaleLinear
		}
	case "yarn":
		r.Scaling = backend.ScaleYaRN
		k.checkYaRN(&r, all, plain)
	default:
		k.fail("rope.scaling.type", "is %q; none, linear and yarn are supported", kind)
	}
	c.Rope = r
}

// checkYaRN checks the YaRN figures and brings the magnitude to backend.Rope's
// terms, where Frequencies multiplies AttnFactor by 1+0.1*ln(factor) unless
// ExtFactor is 0. all is mscale_all_dim, plain the magnitude without YaRN's mix.
func (k *keys) checkYaRN(r *backend.Rope, all, plain float64) {
	if r.ExtFactor < 0 {
		r.ExtFactor = 1 // not set, by llama.cpp's convention
	}
	if r.BetaFast <= 0 || r.BetaSlow <= 0 || r.ExtFactor > 1e3 {
		k.fail("rope.scaling.yarn_*", "beta_fast %g, beta_slow %g, ext_factor %g: not a YaRN scaling", r.BetaFast, r.BetaSlow, r.ExtFactor)
	}
	if r.ExtFactor == 0 {
		r.AttnFactor *= plain
	} else {
		scale := func(m float64) float64 { return 1 + 0.1*m*math.Log(math.Max(1, r.Factor)) }
		magnitude := scale(1)
		if all != 0 {
			magnitude /= scale(all)
		}
		r.AttnFactor *= magnitude / (1 + 0.1*math.Log(r.Factor))
	}
	if !(r.AttnFactor > 0 && r.AttnFactor < 1e6) {
		k.fail("rope.scaling.attn_factor", "gives a magnitude of %g", r.AttnFactor)
	}
}

// required, as the fallback of a count, says that the key must be there.
const required = -1

func (k *keys) fail(name, format string, args ...any) {
	if k.err == nil {
		k.err = fmt.Errorf("key %q %s", k.arch+"."+name, fmt.Sprintf(format, args...))
	}
}

// count reads an integer from least to most.
func (k *keys) count(name string, fallback, least, most int) int {
	n, err := k.file.Uint(k.arch + "." + name)
	switch {
	case k.err != nil:
	case errors.Is(err, gguf.ErrMissing) && fallback != required:
		return fallback
	case err != nil:
		k.err = err
	case n < uint64(least) || n > uint64(most):
		k.fail(name, "is %d; it must be from %d to %d", n, least, most)
	default:
		return int(n)
	}
	return least
}

// each reads a count that a file may give for every layer apart, where all must
// be equal.
func (k *keys) each(name string, fallback, least, most, layers int) int {
	v, _ := k.file.Value(k.arch + "." + name)
	if v.Type != gguf.Array || k.err != nil {
		return k.count(name, fallback, least, most)
	}
	list, ok := v.Int32s()
	switch {
	case !ok:
		k.fail(name, "is an array of %v; integers are wanted", v.Elem)
	case len(list) < layers:
		k.fail(name, "has %d values for %d layers", len(list), layers)
	case slices.Min(list) != slices.Max(list):
		k.fail(name, "differs from layer to layer (%d and %d), which is not supported", slices.Min(list), slices.Max(list))
	case int(list[0]) < least || int(list[0]) > most:
		k.fail(name, "is %d; it must be from %d to %d", list[0], least, most)
	default:
		return int(list[0])
	}
	return least
}

// float reads a finite number.
func (k *keys) float(name string, fallback float64) float64 {
	x, err := k.file.Float(k.arch + "." + name)
	if errors.Is(err, gguf.ErrMissing) {
		return fallback
	}
	if err != nil && k.err == nil {
		k.err = err
	}
	return x
}

// text reads a string by its whole key; empty where it is missing.
func (k *keys) text(key string) string {
	s, err := k.file.Text(key)
	if err != nil && !errors.Is(err, gguf.ErrMissing) && k.err == nil {
		k.err = err
	}
	return s
}
