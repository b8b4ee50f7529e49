// Package quant knows the number formats of weights and caches: their block
// sizes, their exact meaning, and how to write the simple ones. It knows
// nothing of tensors, files or devices.
package quant

import (
	"fmt"
	"strings"
)

// Type is a number format, with the ids that GGUF files use (ggml.h, enum
// ggml_type).
type Type uint32

// The formats that drover reads.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
	Q2_0    Type = 42
)

type shape struct {
	name         string
	elems, bytes int
}

func (t Type) shape() shape {
	switch t {
	case F32:
		return shape{"F32", 1, 4}
	case F16:
		return shape{"F16", 1, 2}
	case BF16:
		return shape{"BF16", 1, 2}
	case Q4_0:
		return shape{"Q4_0", 32, 18}
	case Q4_1:
		return shape{"Q4_1", 32, 20}
	case Q5_0:
		return shape{"Q5_0", 32, 22}
	case Q5_1:
		return shape{"Q5_1", 32, 24}
	case Q8_0:
		return shape{"Q8_0", 32, 34}
	case Q2_K:
		return shape{"Q2_K", 256, 84}
	case Q3_K:
		return shape{"Q3_K", 256, 110}
	case Q4_K:
		return shape{"Q4_K", 256, 144}
	case Q5_K:
		return shape{"Q5_K", 256, 176}
	case Q6_K:
		return shape{"Q6_K", 256, 210}
	case IQ2_XXS:
		return shape{"IQ2_XXS", 256, 66}
	case IQ2_XS:
		return shape{"IQ2_XS", 256, 74}
	case IQ3_XXS:
		return shape{"IQ3_XXS", 256, 98}
	case IQ1_S:
		return shape{"IQ1_S", 256, 50}
	case IQ4_NL:
		return shape{"IQ4_NL", 32, 18}
	case IQ3_S:
		return shape{"IQ3_S", 256, 110}
	case IQ2_S:
		return shape{"IQ2_S", 256, 82}
	case IQ4_XS:
		return shape{"IQ4_XS", 256, 136}
	case IQ1_M:
		return shape{"IQ1_M", 256, 56}
	case TQ1_0:
		return shape{"TQ1_0", 256, 54}
	case TQ2_0:
		return shape{"TQ2_0", 256, 66}
	case MXFP4:
		return shape{"MXFP4", 32, 17}
	case NVFP4:
		return shape{"NVFP4", 64, 36}
	case Q1_0:
		return shape{"Q1_0", 128, 18}
	case Q2_0:
		return shape{"Q2_0", 64, 18}
	}
	return shape{}
}

// Types lists every format, in the order of their ids.
func Types() []Type {
	return []Type{F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, IQ2_XS, IQ3_XXS,
		IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS, IQ1_M, BF16, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0}
}

// Known reports whether drover reads the format.
func (t Type) Known() bool { return t.shape().elems > 0 }

// IsFloat reports whether weights are floating-point numbers of their own, with
// no scale that a block shares.
func (t Type) IsFloat() bool { return t == F32 || t == F16 || t == BF16 }

// BlockElems is the number of weights in a block; 0 for an unknown format.
func (t Type) BlockElems() int { return t.shape().elems }

// BlockBytes is the size of a block; 0 for an unknown format.
func (t Type) BlockBytes() int { return t.shape().bytes }

// RowBytes is the size of a row of n weights. n must be a multiple of
// BlockElems (internal/model checks this at the door).
func (t Type) RowBytes(n int) int {
	s := t.shape()
	if s.elems == 0 || n%s.elems != 0 {
		panic(fmt.Sprintf("BUG: a row of %d weights in %v", n, t))
	}
	return n / s.elems * s.bytes
}

// String is the format's name as GGUF tools write it: "Q4_K", "F16".
func (t Type) String() string {
	if s := t.shape(); s.name != "" {
		return s.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Parse reads a format's name, in any case.
func Parse(name string) (Type, error) {
	for _, t := range Types() {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown number format %q", name)
}
