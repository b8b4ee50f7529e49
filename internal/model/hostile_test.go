package model

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"drover/internal/gguf"
	"drover/internal/quant"
)

// TestRefuses: a file whose metadata and tensors do not fit each other, or that
// asks for what is not supported, is an ErrBad that says what is wrong.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		edit       func(*draft)
		want       string
	}{
		{"architecture", tiny, func(d *draft) { d.arch("gemma") }, `"gemma" is not supported; supported: llama, mistral, qwen2`},
		{"no architecture", tiny, func(d *draft) { d.set("general.architecture", nil) }, "general.architecture"},
		{"architecture of a number", tiny, func(d *draft) { d.set("general.architecture", uint32(1)) }, "wrong type"},
		{"no tensors", tiny, func(d *draft) { d.items = nil }, "no tensors"},
		{"more layers", tiny, func(d *draft) { d.set("llama.block_count", uint32(3)) }, `tensor "blk.2.attn_norm.weight" is missing`},
		{"many more layers", tiny, func(d *draft) { d.set("llama.block_count", uint32(4096)) }, `tensor "blk.2.attn_norm.weight" is missing`},
		{"fewer layers", tiny, func(d *draft) { d.set("llama.block_count", uint32(1)) }, "1 layers"},
		{"no layers", tiny, func(d *draft) { d.set("llama.block_count", uint32(0)) }, "block_count"},
		{"layers without end", tiny, func(d *draft) { d.set("llama.block_count", uint32(math.MaxUint32)) }, "block_count"},
		{"layers by the sign bit", tiny, func(d *draft) { d.set("llama.block_count", int32(-1)) }, "block_count"},
		{"layers of text", tiny, func(d *draft) { d.set("llama.block_count", "2") }, "wrong type"},
		{"layers of floats", tiny, func(d *draft) { d.set("llama.block_count", float32(2)) }, "wrong type"},
		{"wider", tiny, func(d *draft) { d.set("llama.embedding_length", uint32(128)) }, `tensor "token_embd.weight" has shape`},
		{"wider without end", tiny, func(d *draft) { d.set("llama.embedding_length", uint32(1<<31)) }, "embedding_length"},
		{"no heads", tiny, func(d *draft) { d.set("llama.attention.head_count", uint32(0)) }, "head_count"},
		{"heads without end", tiny, func(d *draft) { d.set("llama.attention.head_count", uint32(1<<31)) }, "head_count"},
		{"no key/value heads", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", uint32(0)) }, "head_count_kv"},
		{"more key/value heads", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", uint32(8)) }, "not a multiple"},
		{"heads that differ", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", []uint32{2, 4}) }, "differs from layer to layer"},
		{"heads of too few layers", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", []uint32{2}) }, "1 values for 2 layers"},
		{"heads of no layers", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", []uint32{}) }, "0 values for 2 layers"},
		{"heads of texts", tiny, func(d *draft) { d.set("llama.attention.head_count_kv", []string{"2", "2"}) }, "integers are wanted"},
		{"odd heads", tiny, func(d *draft) {
			d.set("llama.attention.key_length", uint32(15)).set("llama.attention.value_length", uint32(15))
		}, "even"},
		{"values of another width", tiny, func(d *draft) { d.set("llama.attention.value_length", uint32(32)) }, "value_length"},
		{"heads that do not divide", tiny, func(d *draft) {
			d.set("llama.attention.key_length", nil).set("llama.attention.head_count", uint32(6))
		}, "key_length"},
		{"rotary dimensions", tiny, func(d *draft) { d.set("llama.rope.dimension_count", uint32(18)) }, "rotary"},
		{"odd rotary dimensions", tiny, func(d *draft) { d.arch("qwen2").set("qwen2.rope.dimension_count", uint32(7)) }, "rotary"},
		{"no rotary dimensions", tiny, func(d *draft) { d.set("llama.rope.dimension_count", uint32(0)) }, "rotary"},
		{"rope base", tiny, func(d *draft) { d.set("llama.rope.freq_base", float32(0)) }, "freq_base"},
		{"rope base of NaN", tiny, func(d *draft) { d.set("llama.rope.freq_base", float32(math.NaN())) }, "freq_base"},
		{"rope base of an integer", tiny, func(d *draft) { d.set("llama.rope.freq_base", uint32(10000)) }, "freq_base"},
		{"rope scaling", tiny, func(d *draft) { d.set("llama.rope.scaling.type", "longrope") }, "longrope"},
		{"rope factor", tiny, func(d *draft) { d.set("llama.rope.scaling.factor", float32(-4)) }, "scaling.factor"},
		{"yarn", tiny, func(d *draft) {
			d.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.yarn_beta_fast", float32(0))
		}, "YaRN"},
		{"epsilon", tiny, func(d *draft) { d.set("llama.attention.layer_norm_rms_epsilon", nil) }, "layer_norm_rms_epsilon"},
		{"negative epsilon", tiny, func(d *draft) { d.set("llama.attention.layer_norm_rms_epsilon", float32(-1)) }, "layer_norm_rms_epsilon"},
		{"no context", tiny, func(d *draft) { d.set("llama.context_length", uint32(0)) }, "context_length"},
		{"no feed-forward", tiny, func(d *draft) { d.set("llama.feed_forward_length", nil) }, "feed_forward_length"},
		{"wider feed-forward", tiny, func(d *draft) { d.set("llama.feed_forward_length", uint32(128)) }, `"blk.0.ffn_gate.weight" has shape [64 96]`},
		{"experts that are not there", tiny, func(d *draft) {
			d.set("llama.expert_count", uint32(4)).set("llama.expert_used_count", uint32(2))
		}, "ffn_gate_inp"},
		{"experts not counted", tinyMoE, func(d *draft) { d.set("llama.expert_count", nil) }, `"blk.0.ffn_gate.weight" is missing`},
		{"more experts", tinyMoE, func(d *draft) { d.set("llama.expert_count", uint32(8)) }, "ffn_gate_inp"},
		{"more experts used", tinyMoE, func(d *draft) { d.set("llama.expert_used_count", uint32(5)) }, "expert_used_count"},
		{"no experts used", tinyMoE, func(d *draft) { d.set("llama.expert_used_count", uint32(0)) }, "expert_used_count"},
		{"experts without end", tinyMoE, func(d *draft) { d.set("llama.expert_count", uint32(1<<31)) }, "expert_count"},
		{"an expert's shape", tinyMoE, func(d *draft) { d.replace("blk.1.ffn_up_exps.weight", quant.Q4_0, 64, 96, 3) }, "blk.1.ffn_up_exps"},
		{"a flat expert", tinyMoE, func(d *draft) { d.replace("blk.1.ffn_up_exps.weight", quant.Q4_0, 64, 96*4) }, "blk.1.ffn_up_exps"},
		{"missing tensor", tiny, func(d *draft) { d.remove("blk.1.attn_v.weight") }, `tensor "blk.1.attn_v.weight" is missing`},
		{"missing embedding", tiny, func(d *draft) { d.remove("token_embd.weight") }, `tensor "token_embd.weight" is missing`},
		{"shape", tiny, func(d *draft) { d.replace("blk.1.attn_v.weight", quant.Q8_0, 64, 31) }, "blk.1.attn_v.weight"},
		{"shape turned over", tiny, func(d *draft) { d.replace("blk.1.attn_v.weight", quant.Q8_0, 32, 64) }, "blk.1.attn_v.weight"},
		{"third dimension", tiny, func(d *draft) { d.replace("blk.1.attn_v.weight", quant.Q8_0, 64, 32, 2) }, "blk.1.attn_v.weight"},
		{"format", tiny, func(d *draft) { d.replace("blk.1.attn_v.weight", 26, 64, 32) }, "number format"},
		{"quantised norm", tiny, func(d *draft) { d.replace("blk.1.attn_norm.weight", quant.Q8_0, 64) }, "vectors must be"},
		{"embedding as a vector", tiny, func(d *draft) { d.replace("token_embd.weight", quant.Q8_0, 64) }, "token_embd.weight"},
		{"bias", tiny, func(d *draft) { d.addFloats("blk.0.attn_q.bias", 1, 2) }, "blk.0.attn_q.bias"},
		{"feed-forward bias", tiny, func(d *draft) { d.addFloats("blk.0.ffn_up.bias", make([]float32, 96)...) }, "ffn_up.bias"},
		{"norm of queries", tiny, func(d *draft) { d.addFloats("blk.0.attn_q_norm.weight", make([]float32, 16)...) }, "attn_q_norm"},
		{"shared expert", tinyMoE, func(d *draft) { d.add("blk.0.ffn_up_shexp.weight", quant.F32, 64, 96) }, "ffn_up_shexp"},
		{"frequency factors", tiny, func(d *draft) { d.addFloats("rope_freqs.weight", 1, 2, 3) }, "rope_freqs"},
		{"frequency factor of 0", tiny, func(d *draft) { d.addFloats("rope_freqs.weight", make([]float32, 8)...) }, "rope_freqs"},
		{"tokens", tiny, func(d *draft) { d.set(keyTokens, make([]string, 299)) }, "299 tokens"},
		{"tokens of numbers", tiny, func(d *draft) { d.set(keyTokens, make([]uint32, 300)) }, "strings"},
		{"tokens of one text", tiny, func(d *draft) { d.set(keyTokens, "abc") }, "tokens"},
		{"tokens missing", tiny, func(d *draft) { d.set(keyTokens, nil) }, "tokens"},
		{"scores", tiny, func(d *draft) { d.set("tokenizer.ggml.scores", make([]float32, 3)) }, "3 scores"},
		{"scores of numbers", tiny, func(d *draft) { d.set("tokenizer.ggml.scores", make([]int32, 300)) }, "scores"},
		{"token types", tiny, func(d *draft) { d.set("tokenizer.ggml.token_type", make([]int32, 301)) }, "301 token types"},
		{"token types of floats", tiny, func(d *draft) { d.set("tokenizer.ggml.token_type", make([]float32, 300)) }, "token_type"},
		{"token types too large", tiny, func(d *draft) { d.set("tokenizer.ggml.token_type", []uint64{1 << 40}) }, "token_type"},
		{"merges of numbers", tiny, func(d *draft) { d.set(keyMerges, make([]int32, 3)) }, "merges"},
		{"id of text", tiny, func(d *draft) { d.set("tokenizer.ggml.bos_token_id", "1") }, "bos_token_id"},
		{"flag of a number", tiny, func(d *draft) { d.set("tokenizer.ggml.add_bos_token", uint32(1)) }, "add_bos_token"},
		{"template of a number", tiny, func(d *draft) { d.set("tokenizer.chat_template", uint32(1)) }, "chat_template"},
		{"file type of a float", tiny, func(d *draft) { d.set("general.file_type", float32(2)) }, "file_type"},
		{"vocabulary size", tiny, func(d *draft) {
			d.set(keyTokenizer, nil).set(keyTokens, nil).set("llama.vocab_size", uint32(299))
		}, "vocab_size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := draftOf(t, c.spec)
			c.edit(d)
			data := d.bytes()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := OpenBytes("m.gguf", data)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "m.gguf: ") {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("refusing took %d bytes", n)
			}
		})
	}
}

func TestExpertsApartRefuses(t *testing.T) {
	for want, edit := range map[string]func(*draft){
		`"blk.1.ffn_up.3.weight" is missing`: func(d *draft) { d.remove("blk.1.ffn_up.3.weight") },
		"different formats":                  func(d *draft) { d.replace("blk.0.ffn_down.2.weight", quant.Q8_0, 96, 64) },
		`"blk.0.ffn_up.4.weight"`:            func(d *draft) { d.add("blk.0.ffn_up.4.weight", quant.Q4_0, 64, 96) },
	} {
		d := oldMoE(t)
		edit(d)
		if _, err := OpenBytes("m", d.bytes()); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// FuzzOpenBytes: any bytes are opened or refused with ErrBad; what was opened
// keeps its promises: every tensor can be read and every id lies in the
// vocabulary. The corpus is made by our own writer.
func FuzzOpenBytes(f *testing.F) {
	// small files: the fuzzer spends its time on shrinking large ones
	small := func(more string) *draft {
		d := draftOf(f, "dim=8,layers=1,heads=2,kv=1,ffn=8,vocab=259"+more+":F16").set(keyTokens, []string{"<unk>", "a", "b"}).
			set("tokenizer.ggml.scores", []float32{0, 1, 2}).set("tokenizer.ggml.token_type", []int32{2, 1, 6}).set("general.description", nil)
		return d.replace("token_embd.weight", quant.F16, 8, 3).replace("output.weight", quant.F16, 8, 3)
	}
	for _, d := range []*draft{
		small(""),
		small(",experts=2,used=1"),
		small("").arch("qwen2").remove("output.weight").addFloats("blk.0.attn_q.bias", make([]float32, 8)...),
		small("").addFloats("rope_freqs.weight", 1, 8).set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", float32(4)),
		small("").set(keyMerges, []string{"a b"}).set("llama.attention.head_count", []uint32{2}),
	} {
		d.open()
		f.Add(d.bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := OpenBytes("m", data)
		if err != nil {
			if !errors.Is(err, ErrBad) {
				t.Fatalf("not an ErrBad: %v", err)
			}
			return
		}
		c := &file.Model.Config
		if c.Heads%c.KVHeads != 0 || c.Rope.Dims > c.HeadDim || c.ExpertsUsed > c.Experts || len(file.Model.Layers) != c.Layers {
			t.Fatalf("config %+v", c)
		}
		for _, it := range file.items() {
			b := make([]byte, it.row)
			if err := it.src.Rows(b, it.rows-1, it.rows); err != nil {
				t.Fatal(err)
			}
		}
		v := file.Vocab()
		for _, id := range []int32{v.BOS, v.EOS, v.UNK, v.SEP, v.PAD, v.EOT, v.EOM} {
			if id < -1 || int(id) >= len(v.Tokens) {
				t.Fatalf("id %d in a vocabulary of %d", id, len(v.Tokens))
			}
		}
		if _, err := gguf.NewLayout(file.Metadata(), nil); err != nil {
			t.Fatal(err)
		}
	})
}
