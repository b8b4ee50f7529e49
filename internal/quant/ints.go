package quant

import (
	"fmt"
	"unsafe"
)

// HasMin reports whether the format's weights have an offset: whether Ints
// gives mins.
func HasMin(t Type) bool {
	switch t {
	case Q4_1, Q5_1, Q2_K, Q4_K, Q5_K:
		return true
	}
	return false
}

// Ints writes blocks as small integers, exactly: weight i is
//
//	scale[i/16]*q[i] + min[i/16]
//
// in real numbers, and its value in Dequantize is that, rounded once to
// float32. src holds whole blocks of n weights in all; q is (n), scale is
// (n/16), and so is min, which is not used and may be nil unless HasMin(t).
// q is within [-128, 127] for Q8_0, within [-127, 127] for all others. t is a
// block format: not F32, F16 or BF16.
func Ints(t Type, q []int8, scale, min []float32, src []byte) {
	n := weights(t, len(src))
	if t.BlockElems() < 16 {
		panic(fmt.Sprintf("BUG: no integers in %v", t))
	}
	if len(q) != n || len(scale) != n/16 || HasMin(t) && len(min) != n/16 {
		panic(fmt.Sprintf("BUG: room for %d weights, %d scales and %d mins, for %d weights of %v", len(q), len(scale), len(min), n, t))
	}
	unpack(t, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(q))), n), scale, min, src)
}

// weights is the number of weights in size bytes.
func weights(t Type, size int) int {
	s := t.shape()
	if s.elems == 0 || size%s.bytes != 0 {
		panic(fmt.Sprintf("BUG: %d bytes of %v", size, t))
	}
	return size / s.bytes * s.elems
}

// unpack is Ints with each integer as the byte of its two's complement.
func unpack(t Type, q []byte, scale, min []float32, src []byte) {
	switch t {
	case Q4_0:
		unpackQ4_0(q, scale, src)
	case Q4_1:
		unpackQ4_1(q, scale, min, src)
	case Q5_0:
		unpackQ5_0(q, scale, src)
	case Q5_1:
		unpackQ5_1(q, scale, min, src)
	case Q8_0:
		unpackQ8_0(q, scale, src)
	case Q2_K:
		unpackQ2_K(q, scale, min, src)
	case Q3_K:
		unpackQ3_K(q, scale, src)
	case Q4_K:
		unpackQ4_K(q, scale, min, src)
	case Q5_K:
		unpackQ5_K(q, scale, min, src)
	case Q6_K:
		unpackQ6_K(q, scale, src)
	case IQ2_XXS:
		unpackIQ2_XXS(q, scale, src)
	case IQ2_XS:
		unpackIQ2_XS(q, scale, src)
	case IQ2_S:
		unpackIQ2_S(q, scale, src)
	case IQ3_XXS:
		unpackIQ3_XXS(q, scale, src)
	case IQ3_S:
		unpackIQ3_S(q, scale, src)
	case IQ1_S:
		unpackIQ1_S(q, scale, src)
	case IQ1_M:
		unpackIQ1_M(q, scale, src)
	case IQ4_NL:
		unpackIQ4_NL(q, scale, src)
	case IQ4_XS:
		unpackIQ4_XS(q, scale, src)
	case TQ1_0:
		unpackTQ1_0(q, scale, src)
	case TQ2_0:
		unpackTQ2_0(q, scale, src)
	case MXFP4:
		unpackMXFP4(q, scale, src)
	case NVFP4:
		unpackNVFP4(q, scale, src)
	case Q1_0:
		unpackQ1_0(q, scale, src)
	case Q2_0:
		unpackQ2_0(q, scale, src)
	}
}
