package gguf

import "fmt"

// Type is the type of a metadata value, with the ids of the file format.
type Type uint32

// The types of metadata values.
const (
	Uint8   Type = 0
	Int8    Type = 1
	Uint16  Type = 2
	Int16   Type = 3
	Uint32  Type = 4
	Int32   Type = 5
	Float32 Type = 6
	Bool    Type = 7
	String  Type = 8
	Array   Type = 9
	Uint64  Type = 10
	Int64   Type = 11
	Float64 Type = 12
)

// String is the type's name as the specification writes it, in lower case.
func (t Type) String() string {
	names := [...]string{"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64", "float64"}
	if int64(t) < int64(len(names)) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// size is the bytes of a value of fixed size, the fewest of a string (its
// length) or an array (element type and length), and 0 for an unknown type.
func (t Type) size() uint64 {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Uint16, Int16:
		return 2
	case Uint32, Int32, Float32:
		return 4
	case Uint64, Int64, Float64, String:
		return 8
	case Array:
		return 12
	}
	return 0
}

// fixed reports whether every value of the type has the same size.
func (t Type) fixed() bool { return t != String && t != Array && t.size() > 0 }

// TensorType is the number format of a tensor (ggml.h, enum ggml_type). The
// package knows the sizes only, to tell whether a tensor lies inside its file.
type TensorType uint32

// Block gives a format's weights and bytes per block; ok is false for formats
// that are unknown or were removed from the specification.
func (t TensorType) Block() (elems, bytes uint64, ok bool) {
	switch t {
	case 0, 26: // F32, I32
		return 1, 4, true
	case 1, 25, 30: // F16, I16, BF16
		return 1, 2, true
	case 24: // I8
		return 1, 1, true
	case 27, 28: // I64, F64
		return 1, 8, true
	case 2, 20: // Q4_0, IQ4_NL
		return 32, 18, true
	case 3: // Q4_1
		return 32, 20, true
	case 6: // Q5_0
		return 32, 22, true
	case 7: // Q5_1
		return 32, 24, true
	case 8: // Q8_0
		return 32, 34, true
	case 10: // Q2_K
		return 256, 84, true
	case 11, 21: // Q3_K, IQ3_S
		return 256, 110, true
	case 12: // Q4_K
		return 256, 144, true
	case 13: // Q5_K
		return 256, 176, true
	case 14: // Q6_K
		return 256, 210, true
	case 16, 35: // IQ2_XXS, TQ2_0
		return 256, 66, true
	case 17: // IQ2_XS
		return 256, 74, true
	case 18: // IQ3_XXS
		return 256, 98, true
	case 19: // IQ1_S
		return 256, 50, true
	case 22: // IQ2_S
		return 256, 82, true
	case 23: // IQ4_XS
		return 256, 136, true
	case 29: // IQ1_M
		return 256, 56, true
	case 34: // TQ1_0
		return 256, 54, true
	case 39: // MXFP4
		return 32, 17, true
	case 40: // NVFP4
		return 64, 36, true
	case 41: // Q1_0
		return 128, 18, true
	case 42: // Q2_0
		return 64, 18, true
	}
	return 0, 0, false
}
