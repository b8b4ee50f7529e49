package model

import (
	"strings"

	"drover/backend"
	"drover/internal/quant"
)

// mix chooses the format of each matrix.
type mix struct {
	name string     // Q4_0, Q4_K_M
	base quant.Type // what most matrices are in
	more bool       // the M mixtures: some matrices get more bits
}

func parseMix(name string) (mix, error) {
	if t, err := quant.Parse(name); err == nil {
		return mix{name: t.String(), base: t}, nil
	}
	names := []string{"Q4_K_M", "Q5_K_M"}
	for i, t := range []quant.Type{quant.Q4_K, quant.Q5_K} {
		if strings.EqualFold(name, names[i]) {
			return mix{name: names[i], base: t, more: true}, nil
		}
	}
	for _, t := range quant.Types() {
		names = append(names, t.String())
	}
	return mix{}, badSpec("no number format %q%s; there are %s", name, suggest(name, names), strings.Join(names, ", "))
}

// choose is the format that llama-quantize would give the matrix of that name
// and width (llama-quant.cpp). tied says that the embedding is the output too.
func (x *mix) choose(c *backend.Config, layer int, name string, cols int, tied bool) quant.Type {
	if strings.Contains(name, "ffn_gate_inp") {
		return quant.F32 // the router decides: it is never quantised
	}
	t := x.base
	if x.more {
		t = x.chooseMore(c, layer, name, tied)
	}
	return fit(t, cols)
}

func (x *mix) chooseMore(c *backend.Config, layer int, name string, tied bool) quant.Type {
	// the first and the last eighth of the layers, and every third between
	n := c.Layers
	important := layer < n/8 || layer >= 7*n/8 || (layer-n/8)%3 == 2
	switch {
	case name == "output.weight", name == "token_embd.weight" && tied:
		return quant.Q6_K
	case strings.Contains(name, "attn_v"):
		switch {
		case c.Experts == 8:
			return quant.Q8_0
		case important:
			return quant.Q6_K
		case n == 80 && c.Heads != c.KVHeads && x.base == quant.Q4_K:
			return quant.Q5_K // 70B: eight query heads share these weights
		}
	case strings.Contains(name, "attn_k") && c.Experts == 8:
		return quant.Q8_0
	case strings.Contains(name, "attn_output") && c.Experts == 8:
		return quant.Q5_K
	case strings.Contains(name, "ffn_down") && important:
		return quant.Q6_K
	}
	return x.base
}

// fit is t, or llama-quantize's substitute where rows of cols weights are no
// whole blocks of t.
func fit(t quant.Type, cols int) quant.Type {
	if cols%t.BlockElems() == 0 {
		return t
	}
	switch t {
	case quant.IQ1_S, quant.IQ1_M, quant.IQ2_XXS, quant.IQ2_XS, quant.IQ2_S, quant.IQ3_XXS, quant.IQ3_S, quant.IQ4_XS:
		t = quant.IQ4_NL
	case quant.Q2_K, quant.Q3_K, quant.TQ1_0, quant.TQ2_0, quant.Q1_0, quant.Q2_0, quant.NVFP4:
		t = quant.Q4_0
	case quant.Q4_K:
		t = quant.Q5_0
	case quant.Q5_K:
		t = quant.Q5_1
	case quant.Q6_K:
		t = quant.Q8_0
	}
	if cols%t.BlockElems() == 0 {
		return t
	}
	return quant.F16
}
