package model

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/demo"
	"drover/internal/gguf"
	"drover/internal/quant"
)

// sameModel compares shapes and every weight.
func sameModel(t *testing.T, got, want *backend.Model) {
	t.Helper()
	if !reflect.DeepEqual(got.Config, want.Config) {
		t.Errorf("config\n got %+v\nwant %+v", got.Config, want.Config)
	}
	whole := backend.Range{Lo: 0, Hi: want.Config.Blocks()}
	a, b := got.Tensors(whole), want.Tensors(whole)
	if len(a) != len(b) {
		t.Fatalf("%d tensors, want %d", len(a), len(b))
	}
	for i := range a {
		if a[i].Name != b[i].Name || a[i].Type != b[i].Type || a[i].Rows != b[i].Rows || a[i].Cols != b[i].Cols {
			t.Fatalf("tensor %d: got %s %v (%d, %d), want %s %v (%d, %d)", i, a[i].Name, a[i].Type, a[i].Rows, a[i].Cols, b[i].Name, b[i].Type, b[i].Rows, b[i].Cols)
		}
		if !bytes.Equal(all(t, a[i]), all(t, b[i])) {
			t.Errorf("tensor %s: bytes differ", a[i].Name)
		}
	}
}

func TestOpenFile(t *testing.T) {
	for _, spec := range []string{tiny, tinyMoE} {
		want, err := Open("synthetic:" + spec)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := os.WriteFile(path, draftOf(t, spec).bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		sameModel(t, got.Model, want.Model)
		if got.TypeName != want.TypeName || got.Params != want.Params || got.Bytes != want.Bytes {
			t.Errorf("%s %d %d, want %s %d %d", got.TypeName, got.Params, got.Bytes, want.TypeName, want.Params, want.Bytes)
		}
		if !reflect.DeepEqual(got.Vocab(), want.Vocab()) {
			t.Error("the vocabularies differ")
		}
		q := got.Model.Layers[1].Q
		if q.Source.Mapped() == nil {
			t.Error("a file's tensor is not mapped")
		}
		before := all(t, q)
		q.Source.Drop(0, q.Rows)
		if !bytes.Equal(before, all(t, q)) {
			t.Error("a tensor changed when it was dropped")
		}
		part := make([]byte, 3*q.Type.RowBytes(q.Cols))
		if q.Source.Rows(part, 5, 8); !bytes.Equal(part, before[5*len(part)/3:8*len(part)/3]) {
			t.Error("rows [5, 8) differ from the whole's")
		}
		if err := got.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestConfig: what each key means.
func TestConfig(t *testing.T) {
	base := draftOf(t, tiny).open().Model.Config
	yarn := func(c *backend.Config, factor, attn float64) {
		c.Rope.Scaling, c.Rope.Factor, c.Rope.AttnFactor = backend.ScaleYaRN, factor, attn
	}
	for _, c := range []struct {
		name string
		edit func(*draft)
		want func(*backend.Config)
	}{
		{"plain", func(d *draft) {}, func(c *backend.Config) {}},
		{"mistral", func(d *draft) { d.arch("mistral").set("mistral.attention.sliding_window", uint32(16)) },
			func(c *backend.Config) { c.Arch, c.Window = "mistral", 16 }},
		{"qwen2", func(d *draft) { d.arch("qwen2") }, func(c *backend.Config) { c.Arch, c.Rope.Halves = "qwen2", true }},
		{"derived", func(d *draft) {
			d.set("llama.attention.key_length", nil).set("llama.attention.value_length", nil).set("llama.rope.dimension_count", nil).set("llama.rope.freq_base", nil)
		}, func(c *backend.Config) {}},
		{"counts per layer", func(d *draft) {
			d.set("llama.attention.head_count", []uint32{4, 4}).set("llama.attention.head_count_kv", []int32{2, 2}).set("llama.feed_forward_length", []uint32{96, 96})
		}, func(c *backend.Config) {}},
		{"64-bit counts", func(d *draft) { d.set("llama.block_count", uint64(2)).set("llama.embedding_length", int64(64)) }, func(c *backend.Config) {}},
		{"base and eps", func(d *draft) {
			d.set("llama.rope.freq_base", float32(5e5)).set("llama.attention.layer_norm_rms_epsilon", 1e-6)
		}, func(c *backend.Config) { c.Rope.Base, c.NormEps = 5e5, 1e-6 }},
		{"linear", func(d *draft) {
			d.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", float32(4))
		},
			func(c *backend.Config) { c.Rope.Scaling, c.Rope.Factor = backend.ScaleLinear, 4 }},
		{"linear by the old key", func(d *draft) { d.set("llama.rope.scale_linear", float32(2)) },
			func(c *backend.Config) { c.Rope.Scaling, c.Rope.Factor = backend.ScaleLinear, 2 }},
		{"none", func(d *draft) { d.set("llama.rope.scaling.type", "none").set("llama.rope.scaling.factor", float32(4)) },
			func(c *backend.Config) {}},
		{"yarn", func(d *draft) {
			d.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", float32(4)).set("llama.rope.scaling.original_context_length", uint32(64))
		}, func(c *backend.Config) { yarn(c, 4, 1); c.Rope.OrigContext = 64 }},
		{"yarn figures", func(d *draft) {
			d.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", float32(8)).set("llama.rope.scaling.attn_factor", float32(0.5)).
				set("llama.rope.scaling.yarn_beta_fast", float32(16)).set("llama.rope.scaling.yarn_beta_slow", float32(2)).set("llama.rope.scaling.yarn_log_multiplier", float32(1))
		}, func(c *backend.Config) {
			yarn(c, 8, 0.5/(1+0.1*math.Log(8)))
			c.Rope.BetaFast, c.Rope.BetaSlow = 16, 2
		}},
		{"yarn without its mix", func(d *draft) {
			d.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", float32(8)).set("llama.rope.scaling.yarn_ext_factor", float32(0)).
				set("llama.rope.scaling.yarn_attn_factor", float32(2))
		}, func(c *backend.Config) { yarn(c, 8, 2); c.Rope.ExtFactor = 0 }},
		{"llama 3", func(d *draft) { d.addFloats("rope_freqs.weight", 1, 1, 1, 1, 2, 4, 8, 8) },
			func(c *backend.Config) { c.Rope.Factors = []float32{1, 1, 1, 1, 2, 4, 8, 8} }},
		{"no tokenizer", func(d *draft) {
			d.set(keyTokenizer, nil).set(keyTokens, nil)
		}, func(c *backend.Config) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := draftOf(t, tiny)
			c.edit(d)
			want := base
			c.want(&want)
			got := d.open().Model.Config
			if math.Abs(got.Rope.AttnFactor-want.Rope.AttnFactor) < 1e-12 {
				got.Rope.AttnFactor = want.Rope.AttnFactor
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestTensors: optional tensors, ties, and experts that are not merged.
func TestTensors(t *testing.T) {
	m := draftOf(t, tiny).remove("output.weight").open().Model
	if m.Output != m.Embed {
		t.Error("without output.weight, the output is not the embedding")
	}
	d := draftOf(t, tiny).addFloats("blk.1.attn_k.bias", make([]float32, 32)...).addFloats("blk.0.attn_output.bias", make([]float32, 64)...)
	m = d.replace("output_norm.weight", quant.F16, 64).add("unknown.weight", quant.F32, 3).open().Model
	if m.Layers[1].KBias == nil || m.Layers[0].KBias != nil || m.Layers[0].OBias == nil || m.Layers[0].QBias != nil {
		t.Error("biases are not where the file has them")
	}
	if m.Norm.Type != quant.F16 {
		t.Errorf("norm is %v", m.Norm.Type)
	}
}

// apart replaces a merged tensor of experts by one for each.
func (d *draft) apart(kind string, layer, experts int) *draft {
	i := d.find(fmt.Sprintf("blk.%d.%s_exps.weight", layer, kind))
	it := d.items[i]
	whole := make([]byte, it.rows*it.row)
	if err := it.src.Rows(whole, 0, it.rows); err != nil {
		d.t.Fatal(err)
	}
	d.remove(it.info.Name)
	for e := range experts {
		part := whole[e*len(whole)/experts : (e+1)*len(whole)/experts]
		d.items = append(d.items, item{gguf.Info{Name: fmt.Sprintf("blk.%d.%s.%d.weight", layer, kind, e), Type: it.info.Type, Dims: it.info.Dims[:2]}, 1, len(part), memory(part)})
	}
	return d
}

func oldMoE(t testing.TB) *draft {
	d := draftOf(t, tinyMoE)
	for layer := range 2 {
		for _, kind := range []string{"ffn_gate", "ffn_up", "ffn_down"} {
			d.apart(kind, layer, 4)
		}
	}
	return d
}

func TestExpertsApart(t *testing.T) {
	want, err := Open("synthetic:" + tinyMoE)
	if err != nil {
		t.Fatal(err)
	}
	f := oldMoE(t).open()
	sameModel(t, f.Model, want.Model)
	down := f.Model.Layers[1].Down // (4*64, 96)
	whole := all(t, down)
	row := down.Type.RowBytes(down.Cols)
	for _, r := range [][2]int{{0, 1}, {60, 70}, {63, 193}, {255, 256}, {128, 128}} {
		b := make([]byte, (r[1]-r[0])*row)
		if err := down.Source.Rows(b, r[0], r[1]); err != nil || !bytes.Equal(b, whole[r[0]*row:r[1]*row]) {
			t.Errorf("rows %d of joined experts differ from the whole's (%v)", r, err)
		}
		down.Source.Drop(r[0], r[1])
	}
	path := filepath.Join(t.TempDir(), "merged.gguf")
	if err := Write(f, path, nil); err != nil {
		t.Fatal(err)
	}
	merged, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer merged.Close()
	sameModel(t, merged.Model, want.Model)
	if n := merged.Meta.Tensor("blk.0.ffn_up_exps.weight"); n == nil || !reflect.DeepEqual(n.Dims, []uint64{64, 96, 4}) {
		t.Errorf("merged experts: %+v", n)
	}
}

func TestOpenNoFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.gguf")
	os.WriteFile(empty, nil, 0o666)
	other := filepath.Join(dir, "model.bin")
	os.WriteFile(other, []byte("this is no model at all, only text"), 0o666)
	for path, want := range map[string]string{
		filepath.Join(dir, "absent.gguf"): "no such model file",
		dir:                               "directory",
		empty:                             "empty",
		other:                             "another kind of file",
		"":                                "no such model file",
	} {
		for _, open := range []func(string) (*File, error){Open, OpenVocab} {
			_, err := open(path)
			if !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), dir) > 1 {
				t.Errorf("%q: got %v, want %q in it", path, err, want)
			}
		}
	}
	if _, err := Open(filepath.Join(dir, "absent.gguf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func TestOpenVocab(t *testing.T) {
	d := draftOf(t, tiny).arch("gpt2").set("tokenizer.chat_template", "{{ x }}")
	d.items = nil
	path := filepath.Join(t.TempDir(), "vocab.gguf")
	if err := os.WriteFile(path, d.bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := OpenVocab(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v := f.Vocab()
	if f.Model != nil || len(v.Tokens) != 300 || v.Tokens[1] != "<s>" || len(v.Scores) != 300 || v.BOS != 1 || v.PAD != -1 || f.ChatTemplate != "{{ x }}" {
		t.Errorf("got %+v", f)
	}
	if _, err := Open(path); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), "gpt2") {
		t.Errorf("a vocabulary as a model: %v", err)
	}
}

func TestVocab(t *testing.T) {
	f := draftOf(t, tiny).set("tokenizer.ggml.padding_token_id", uint32(300)).set("tokenizer.ggml.eot_token_id", uint32(7)).
		set("tokenizer.ggml.seperator_token_id", uint32(9)).set("tokenizer.ggml.add_space_prefix", nil).
		set("tokenizer.ggml.merges", []string{"a b", "ab c"}).set("tokenizer.ggml.remove_extra_whitespaces", true).open()
	v := f.Vocab()
	if v.PAD != -1 || v.EOT != 7 || v.EOM != -1 || v.SEP != 9 || v.AddSpacePrefix != nil || !v.RemoveExtraWhitespaces || len(v.Merges) != 2 || !*v.AddBOS || *v.AddEOS {
		t.Errorf("got %+v", v)
	}
	if len(f.Problems) != 1 || !strings.Contains(f.Problems[0], "padding_token_id") {
		t.Errorf("problems: %q", f.Problems)
	}
}

func TestTypeName(t *testing.T) {
	for want, edit := range map[string]func(*draft){
		"Q8_0":   func(d *draft) {},
		"Q4_K_M": func(d *draft) { d.set("general.file_type", uint32(15)) },
		"IQ3_M":  func(d *draft) { d.set("general.file_type", uint32(27)) },
		"Q5_1": func(d *draft) {
			d.set("general.file_type", nil).replace("token_embd.weight", quant.Q5_1, 64, 300).remove("output.weight").replace("blk.0.ffn_up.weight", quant.Q5_1, 64, 96).replace("blk.0.ffn_gate.weight", quant.Q5_1, 64, 96).replace("blk.1.ffn_gate.weight", quant.Q5_1, 64, 96).replace("blk.1.ffn_up.weight", quant.Q5_1, 64, 96)
		},
	} {
		d := draftOf(t, tiny)
		edit(d)
		if f := d.open(); f.TypeName != want {
			t.Errorf("got %s, want %s", f.TypeName, want)
		}
	}
	for _, q := range quant.Types() {
		if n := fileTypes()[fileType(q.String())]; !strings.HasPrefix(n, q.String()) {
			t.Errorf("a model in %v is written as %s", q, n)
		}
	}
}

// TestSizes: gguf and quant agree on every format.
func TestSizes(t *testing.T) {
	for _, q := range quant.Types() {
		elems, bytes, ok := gguf.TensorType(q).Block()
		if !ok || int(elems) != q.BlockElems() || int(bytes) != q.BlockBytes() {
			t.Errorf("%v: gguf says %d weights in %d bytes", q, elems, bytes)
		}
	}
}

// TestDemo: the model that is embedded opens from memory.
func TestDemo(t *testing.T) {
	f, err := OpenBytes(demo.Name, demo.File())
	if err != nil {
		t.Fatal(err)
	}
	if f.Params != 4197120 || f.TypeName != "Q8_0" || f.ChatTemplate == "" || len(f.Vocab().Tokens) != f.Model.Config.Vocab {
		t.Errorf("%d weights in %s", f.Params, f.TypeName)
	}
	if f.Model.Norm.Source.Mapped() == nil {
		t.Error("the embedded bytes are copied")
	}
}
