package model

import (
	"strings"

	"drover/internal/gguf"
)

// Metadata is what the model's GGUF file says of it, in the file's order,
// without the keys of a split set; for a synthetic model what Write writes.
func (f *File) Metadata() []gguf.Entry {
	if f.Meta == nil {
		return f.describe()
	}
	var all []gguf.Entry
	for _, key := range f.Meta.Keys() {
		if v, ok := f.Meta.Value(key); ok && !strings.HasPrefix(key, "split.") {
			all = append(all, gguf.Entry{Key: key, Value: v})
		}
	}
	return all
}

// describe is a synthetic model's metadata.
func (f *File) describe() []gguf.Entry {
	c := &f.Model.Config
	var all []gguf.Entry
	add := func(key string, value any) { all = append(all, gguf.Entry{Key: key, Value: gguf.Of(value)}) }
	count := func(key string, n int) { add(c.Arch+"."+key, uint32(n)) }
	add("general.architecture", c.Arch)
	add("general.type", "model")
	add("general.name", c.Name)
	add("general.description", "random weights: "+f.Path)
	add("general.quantization_version", uint32(2))
	add("general.file_type", fileType(f.spec.mix.name))
	count("vocab_size", c.Vocab)
	count("context_length", c.Context)
	count("embedding_length", c.Dim)
	count("block_count", c.Layers)
	count("feed_forward_length", c.FFN)
	count("attention.head_count", c.Heads)
	count("attention.head_count_kv", c.KVHeads)
	count("attention.key_length", c.HeadDim)
	count("attention.value_length", c.HeadDim)
	add(c.Arch+".attention.layer_norm_rms_epsilon", c.NormEps)
	if c.Window > 0 {
		count("attention.sliding_window", c.Window)
	}
	if c.Experts > 0 {
		count("expert_count", c.Experts)
		count("expert_used_count", c.ExpertsUsed)
	}
	count("rope.dimension_count", c.Rope.Dims)
	add(c.Arch+".rope.freq_base", float32(c.Rope.Base))
	return append(all, f.describeVocab()...)
}

func (f *File) describeVocab() []gguf.Entry {
	v := f.Vocab()
	var all []gguf.Entry
	for _, e := range []struct {
		name  string
		value any
	}{
		{"model", v.Model}, {"pre", v.Pre}, {"tokens", v.Tokens}, {"scores", v.Scores}, {"token_type", v.Types},
		{"bos_token_id", uint32(v.BOS)}, {"eos_token_id", uint32(v.EOS)}, {"unknown_token_id", uint32(v.UNK)},
		{"add_bos_token", *v.AddBOS}, {"add_eos_token", *v.AddEOS}, {"add_space_prefix", *v.AddSpacePrefix},
	} {
		all = append(all, gguf.Entry{Key: "tokenizer.ggml." + e.name, Value: gguf.Of(e.value)})
	}
	return all
}
