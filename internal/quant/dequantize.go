package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// chunk is a number of weights that is whole blocks in every format.
const chunk = 256

// Dequantize writes the weights of whole blocks as float32, bit for bit as
// ggml's dequantize_row functions do. len(dst) is the number of weights in src.
// A block whose scale is not finite gives weights that are not.
//
// One rounding a weight suffices for equality on every platform: scale times
// integer is exact in float32 (at most 22 significant bits) wherever a min is
// added, and for all other formats it is the only operation that can round
// (Q6_K: 25 bits). The scales themselves are exact too.
func Dequantize(t Type, dst []float32, src []byte) {
	if n := weights(t, len(src)); len(dst) != n {
		panic(fmt.Sprintf("BUG: room for %d of %d weights of %v", len(dst), n, t))
	}
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		dequantizeBlocks(t, dst, src)
	}
}

func dequantizeBlocks(t Type, dst []float32, src []byte) {
	var q [chunk]byte
	var scale, min [chunk / 16]float32
	for len(dst) > 0 {
		n := chunk
		if n > len(dst) {
			n = len(dst)
		}
		size := t.RowBytes(n)
		unpack(t, q[:n], scale[:n/16], min[:n/16], src[:size])
		if HasMin(t) {
			for g := range scale[:n/16] {
				expandMin((*[16]float32)(dst[16*g:]), (*[16]byte)(q[16*g:]), scale[g], min[g])
			}
		} else {
			for g := range scale[:n/16] {
				expand((*[16]float32)(dst[16*g:]), (*[16]byte)(q[16*g:]), scale[g])
			}
		}
		dst, src = dst[n:], src[size:]
	}
}

func expand(dst *[16]float32, q *[16]byte, scale float32) {
	for i, v := range q {
		dst[i] = scale * float32(int8(v))
	}
}

func expandMin(dst *[16]float32, q *[16]byte, scale, min float32) {
	for i, v := range q {
		dst[i] = float32(scale*float32(int8(v))) + min
	}
}
