package model

import (
	"errors"

	"drover/backend"
	"drover/internal/gguf"
	"drover/internal/quant"
)

// fileTypes are llama.cpp's mixtures of formats by their number in the key
// general.file_type (llama.h, enum llama_ftype), and the format that gives the
// mixture its name.
func fileTypes() map[uint32]string {
	return map[uint32]string{
		0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1",
		10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
		19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S",
		27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
		38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
	}
}

// typeName is the file's mixture as its metadata name it, else the format that
// most weights are in.
func typeName(file *gguf.File, m *backend.Model) (string, error) {
	n, err := file.Uint("general.file_type")
	if err != nil && !errors.Is(err, gguf.ErrMissing) {
		return "", err
	}
	if name, ok := fileTypes()[uint32(n)]; ok && err == nil && n < 1<<10 {
		return name, nil
	}
	most, counts := quant.F32, map[quant.Type]uint64{}
	for _, t := range m.Tensors(backend.Range{Lo: 0, Hi: m.Config.Blocks()}) {
		if counts[t.Type] += uint64(t.Rows) * uint64(t.Cols); counts[t.Type] > counts[most] {
			most = t.Type
		}
	}
	return most.String(), nil
}

// fileType is the number of a mixture that has name, or is named after the
// format: a model wholly in Q4_K is Q4_K_S.
func fileType(name string) uint32 {
	switch name {
	case "Q3_K", "Q4_K", "Q5_K":
		name += "_S"
	}
	for n, s := range fileTypes() {
		if s == name {
			return n
		}
	}
	panic("BUG: no file type is named " + name)
}
