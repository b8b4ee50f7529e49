package ref

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// tiny is one model of testdata/tiny_models.py.
type tiny struct {
	Name, Arch string
	Config     struct {
		Vocab    int     `json:"vocab_size"`
		Dim      int     `json:"hidden_size"`
		FFN      int     `json:"intermediate_size"`
		Layers   int     `json:"num_hidden_layers"`
		Heads    int     `json:"num_attention_heads"`
		KVHeads  int     `json:"num_key_value_heads"`
		HeadDim  int     `json:"head_dim"`
		Context  int     `json:"max_position_embeddings"`
		Eps      float32 `json:"rms_norm_eps"`
		Base     float64 `json:"rope_theta"`
		Bias     bool    `json:"attention_bias"`
		Tied     bool    `json:"tie_word_embeddings"`
		Window   int     `json:"sliding_window"`
		Experts  int     `json:"num_local_experts"`
		Used     int     `json:"num_experts_per_tok"`
		RopeKind struct {
			Type       string   `json:"rope_type"`
			Factor     float64  `json:"factor"`
			Orig       int      `json:"original_max_position_embeddings"`
			BetaFast   float64  `json:"beta_fast"`
			BetaSlow   float64  `json:"beta_slow"`
			AttnFactor *float64 `json:"attention_factor"`
			LowFreq    float64  `json:"low_freq_factor"`
			HighFreq   float64  `json:"high_freq_factor"`
		} `json:"rope_scaling"`
	}
	Tokens []int32
	logits []float32
}

// limit is what the NMSE must stay under; ours is about 1e-14, from rounding
// the hidden state to float32 after every block, and the cache to float32.
const limit = 1e-9

func TestTransformers(t *testing.T) {
	doc, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range readTiny(t) {
		t.Run(m.Name, func(t *testing.T) { // -v prints the table of docs/reference.md
			halves, pairs := m.nmse(t, m.model(true)), m.nmse(t, m.model(false))
			t.Logf("| %-19s | %7.1e | %7.1e |", m.Name, halves, pairs)
			if !(halves < limit) || !(pairs < limit) {
				t.Errorf("NMSE %g (halves), %g (pairs), want < %g", halves, pairs, limit)
			}
			var docHalves, docPairs float64
			_, row, _ := strings.Cut(string(doc), "\n| "+m.Name+" ")
			if _, err := fmt.Sscanf(strings.TrimLeft(row, " "), "| %g | %g |", &docHalves, &docPairs); err != nil {
				t.Fatalf("docs/reference.md has no figures for this model: %v", err)
			}
			if halves > 2*docHalves || pairs > 2*docPairs {
				t.Errorf("docs/reference.md says %g and %g", docHalves, docPairs)
			}
		})
	}
}

// Each feature must matter, or its agreement above would say nothing.
func TestTransformersNoticesFaults(t *testing.T) {
	faults := map[string]func(m *backend.Model){
		"llama-mha":      func(m *backend.Model) { m.Config.Rope.Halves = false },
		"llama-gqa":      func(m *backend.Model) { m.Layers[1].K = m.Layers[0].K },
		"llama-mqa":      func(m *backend.Model) { m.Config.NormEps = 1e-3 },
		"llama-head-dim": func(m *backend.Model) { m.Config.Rope.Dims -= 2 },
		"llama-bias":     func(m *backend.Model) { m.Layers[1].OBias = nil },
		"llama-tied": func(m *backend.Model) {
			m.Output = &backend.Tensor{Rows: m.Embed.Rows, Cols: m.Embed.Cols, Source: m.Layers[0].Gate.Source}
		},
		"llama-rope-base":     func(m *backend.Model) { m.Config.Rope.Base = 10000 },
		"llama-linear":        func(m *backend.Model) { m.Config.Rope.Scaling = backend.ScaleNone },
		"llama-yarn":          func(m *backend.Model) { m.Config.Rope.AttnFactor = 0.9 },
		"llama-yarn-betas":    func(m *backend.Model) { m.Config.Rope.BetaFast = 32 },
		"llama-llama3":        func(m *backend.Model) { m.Config.Rope.Factors = nil },
		"mistral-window":      func(m *backend.Model) { m.Config.Window++ },
		"mistral-wide-window": func(m *backend.Model) { m.Config.Window-- },
		"qwen2":               func(m *backend.Model) { m.Layers[0].KBias = nil },
		"qwen2-tied":          func(m *backend.Model) { m.Layers[1].VBias = nil },
		"mixtral-2-of-4":      func(m *backend.Model) { m.Config.ExpertsUsed = 1 },
		"mixtral-3-of-8":      func(m *backend.Model) { m.Layers[0].Router = m.Layers[1].Router },
	}
	for _, m := range readTiny(t) {
		model := m.model(true)
		faults[m.Name](model)
		if got := m.nmse(t, model); got < 100*limit {
			t.Errorf("%s: NMSE %g with a fault in the model", m.Name, got)
		}
	}
}

func readTiny(t *testing.T) []*tiny {
	t.Helper()
	text, err := os.ReadFile("testdata/transformers.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/transformers.f32")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		SHA256 string
		Models []*tiny
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != file.SHA256 {
		t.Fatal("transformers.f32 does not belong to transformers.json: run tiny_models.py again")
	}
	for _, m := range file.Models {
		m.logits = make([]float32, len(m.Tokens)*m.Config.Vocab)
		quant.Dequantize(quant.F32, m.logits, data[:4*len(m.logits)])
		data = data[4*len(m.logits):]
	}
	if len(data) > 0 || len(file.Models) < 17 {
		t.Fatalf("%d models, %d bytes left", len(file.Models), len(data))
	}
	return file.Models
}

func (m *tiny) nmse(t *testing.T, model *backend.Model) float64 {
	t.Helper()
	logits, _, err := Trace(context.Background(), model, m.Tokens, quant.F32, quant.F32)
	if err != nil {
		t.Fatal(err)
	}
	return NMSE(logits, m.logits)
}

// model builds the model as it stands (halves), or with the rows of Q and K
// permuted for neighbouring pairs, as GGUF files have them.
func (m *tiny) model(halves bool) *backend.Model {
	s := &m.Config
	c := backend.Config{Arch: m.Arch, Name: m.Name, Dim: s.Dim, Layers: s.Layers, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim,
		FFN: s.FFN, Vocab: s.Vocab, Context: s.Context, NormEps: s.Eps, Window: s.Window, Experts: s.Experts, ExpertsUsed: s.Used}
	if c.HeadDim == 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	c.Rope = m.rope(c.HeadDim, halves)
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	turned := func(t *backend.Tensor) *backend.Tensor {
		if t != nil && !halves {
			permute(t, c.HeadDim)
		}
		return t
	}
	model := &backend.Model{Config: c, Embed: m.tensor("model.embed_tokens.weight", c.Vocab, c.Dim), Norm: m.vector("model.norm.weight", c.Dim)}
	model.Output = model.Embed
	if !s.Tied {
		model.Output = m.tensor("lm_head.weight", c.Vocab, c.Dim)
	}
	for i := range c.Layers {
		name := func(end string) string { return fmt.Sprintf("model.layers.%d.%s", i, end) }
		l := backend.Layer{
			AttnNorm: m.vector(name("input_layernorm.weight"), c.Dim), FFNNorm: m.vector(name("post_attention_layernorm.weight"), c.Dim),
			Q: turned(m.tensor(name("self_attn.q_proj.weight"), q, c.Dim)), K: turned(m.tensor(name("self_attn.k_proj.weight"), kv, c.Dim)),
			V: m.tensor(name("self_attn.v_proj.weight"), kv, c.Dim), O: m.tensor(name("self_attn.o_proj.weight"), c.Dim, q),
		}
		if s.Bias || m.Arch == "qwen2" {
			l.QBias, l.KBias = turned(m.vector(name("self_attn.q_proj.bias"), q)), turned(m.vector(name("self_attn.k_proj.bias"), kv))
			l.VBias = m.vector(name("self_attn.v_proj.bias"), kv)
		}
		if s.Bias {
			l.OBias = m.vector(name("self_attn.o_proj.bias"), c.Dim)
		}
		if c.Experts > 0 {
			l.Router = m.tensor(name("mlp.gate.weight"), c.Experts, c.Dim)
			both := m.tensor(name("mlp.experts.gate_up_proj"), c.Experts*2*c.FFN, c.Dim)
			l.Gate, l.Up = split(both, c.FFN, 0), split(both, c.FFN, 1)
			l.Down = m.tensor(name("mlp.experts.down_proj"), c.Experts*c.Dim, c.FFN)
		} else {
			l.Gate, l.Up = m.tensor(name("mlp.gate_proj.weight"), c.FFN, c.Dim), m.tensor(name("mlp.up_proj.weight"), c.FFN, c.Dim)
			l.Down = m.tensor(name("mlp.down_proj.weight"), c.Dim, c.FFN)
		}
		model.Layers = append(model.Layers, l)
	}
	return model
}

func (m *tiny) rope(headDim int, halves bool) backend.Rope {
	k := &m.Config.RopeKind
	r := backend.Rope{Base: m.Config.Base, Dims: headDim, Halves: halves, Factor: 1}
	switch k.Type {
	case "linear":
		r.Scaling, r.Factor = backend.ScaleLinear, k.Factor
	case "yarn":
		r.Scaling, r.Factor, r.OrigContext, r.ExtFactor, r.AttnFactor = backend.ScaleYaRN, k.Factor, k.Orig, 1, 1
		r.BetaFast, r.BetaSlow = 32, 1
		if k.BetaFast > 0 {
			r.BetaFast, r.BetaSlow = k.BetaFast, k.BetaSlow
		}
		if k.AttnFactor != nil { // theirs is the whole magnitude, ours multiplies the paper's
			r.AttnFactor = *k.AttnFactor / (1 + 0.1*math.Log(k.Factor))
		}
	case "llama3":
		// rope_freqs: slow pairs are stretched by factor, fast ones not, those between in part
		for i := range headDim / 2 {
			turns := float64(k.Orig) / (2 * math.Pi) * math.Pow(r.Base, -2*float64(i)/float64(headDim))
			keep := math.Min(1, math.Max(0, (turns-k.LowFreq)/(k.HighFreq-k.LowFreq)))
			r.Factors = append(r.Factors, float32(1/((1-keep)/k.Factor+keep)))
		}
	}
	return r
}

// permute turns the rows of each head from halves to neighbouring pairs.
func permute(t *backend.Tensor, headDim int) {
	w, row := t.Source.(floats), t.Rows*t.Cols/rows(t)
	from := append(floats(nil), w...)
	for at := 0; at < rows(t); at += headDim {
		for i := range headDim / 2 {
			copy(w[(at+2*i)*row:(at+2*i+1)*row], from[(at+i)*row:])
			copy(w[(at+2*i+1)*row:(at+2*i+2)*row], from[(at+i+headDim/2)*row:])
		}
	}
}

// rows is how many outputs a matrix or a bias has.
func rows(t *backend.Tensor) int {
	if t.Rows == 1 {
		return t.Cols
	}
	return t.Rows
}

// split takes the half-th of every two groups of ffn rows.
func split(t *backend.Tensor, ffn, half int) *backend.Tensor {
	var w floats
	for at := half * ffn; at < t.Rows; at += 2 * ffn {
		w = append(w, t.Source.(floats)[at*t.Cols:(at+ffn)*t.Cols]...)
	}
	return &backend.Tensor{Name: t.Name, Type: quant.F32, Rows: t.Rows / 2, Cols: t.Cols, Source: w}
}

func (m *tiny) vector(name string, n int) *backend.Tensor { return m.tensor(name, 1, n) }

// tensor makes the weights that tiny_models.py makes.
func (m *tiny) tensor(name string, rows, cols int) *backend.Tensor {
	w := make(floats, rows*cols)
	for i, z := range splitmix(m.Name+"/"+name, len(w)) {
		u := float64(z>>40)/(1<<23) - 1
		switch {
		case strings.Contains(name, "norm"):
			w[i] = float32(1 + 0.25*u)
		case strings.HasSuffix(name, "bias"):
			w[i] = float32(0.5 * u)
		case strings.Contains(name, "q_proj"), strings.Contains(name, "k_proj"):
			w[i] = float32(2 * math.Sqrt(3/float64(cols)) * u)
		default:
			w[i] = float32(math.Sqrt(3/float64(cols)) * u)
		}
	}
	return &backend.Tensor{Name: name, Type: quant.F32, Rows: rows, Cols: cols, Source: w}
}

func splitmix(name string, n int) []uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	seed, out := h.Sum64(), make([]uint64, n)
	for i := range out {
		seed += 0x9E3779B97F4A7C15
		z := seed
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		out[i] = z ^ z>>31
	}
	return out
}

// floats is a tensor in memory, as float32.
type floats []float32

func (f floats) Rows(dst []byte, lo, hi int) error {
	n := len(dst) / max(1, hi-lo) / 4
	for i, v := range f[lo*n : hi*n] {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
	return nil
}
func (f floats) Mapped() []byte  { return nil }
func (f floats) Drop(lo, hi int) {}
