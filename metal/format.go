package metal

import (
	"encoding/binary"
	"math"
	"strings"

	"drover/internal/quant"
)

// decodeRows is the most rows of a batch of the decode class. Larger batches are
// prompts: other kernels with other rounding.
const decodeRows = 8

// format is how weights lie in a buffer: rows of blocks, one after the other.
// Those of a file are read in place; kernels/weights.metal has the layouts.
type format struct {
	name      string // of its kernels: matvec_q4_0
	columns   int    // of a block
	bytes     int    // of a block
	converted bool   // not as in the file: convert makes it
}

// formats is a constant table; the last one carries every type that has no
// kernels of its own.
var formats = [...]format{
	{name: "f32", columns: 1, bytes: 4},
	{name: "f16", columns: 1, bytes: 2},
	{name: "bf16", columns: 1, bytes: 2},
	{name: "q8_0", columns: 32, bytes: 34},
	{name: "q4_0", columns: 32, bytes: 18},
	{name: "q4_1", columns: 32, bytes: 20},
	{name: "q5_0", columns: 32, bytes: 22},
	{name: "q5_1", columns: 32, bytes: 24},
	{name: "q2_k", columns: 256, bytes: 84},
	{name: "q3_k", columns: 256, bytes: 110},
	{name: "q4_k", columns: 256, bytes: 144},
	{name: "q5_k", columns: 256, bytes: 176},
	{name: "q6_k", columns: 256, bytes: 210},
	{name: "iq4_nl", columns: 32, bytes: 18},
	{name: "iq4_xs", columns: 256, bytes: 136},
	{name: "mxfp4", columns: 32, bytes: 17},
	{name: "int8", columns: 64, bytes: 80, converted: true},
}

// formatOf is the format in which kernels read weights of type t.
func formatOf(t quant.Type) *format {
	name := strings.ToLower(t.String())
	for i := range formats {
		if formats[i].name == name {
			return &formats[i]
		}
	}
	return &formats[len(formats)-1]
}

// Converts reports whether weights of type t are rewritten at load, since there
// are no kernels for their blocks.
func Converts(t quant.Type) bool { return formatOf(t).converted }

// rowBytes is the size of a row of cols weights, whole blocks.
func (f *format) rowBytes(cols int) int { return cols / f.columns * f.bytes }

// matrixBytes is the size of a matrix, of one expert.
func (f *format) matrixBytes(rows, cols int) uint64 { return uint64(rows) * uint64(f.rowBytes(cols)) }

// convert writes rows of type t, src, as blocks of the converted format: four f32 scales
// and 64 integers of 8 bits, exactly (quant.Ints).
func (f *format) convert(t quant.Type, dst, src []byte) {
	const block = 256 // weights at a time: whole blocks of every such type
	size := t.RowBytes(block)
	var q [block]int8
	var scale [block / 16]float32
	for ; len(src) > 0; src = src[min(size, len(src)):] {
		some := src[:min(size, len(src))]
		n := len(some) / t.BlockBytes() * t.BlockElems()
		quant.Ints(t, q[:n], scale[:n/16], nil, some)
		for b := range n / f.columns {
			for i, s := range scale[4*b : 4*b+4] {
				binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(s))
			}
			for i, v := range q[64*b : 64*b+64] {
				dst[16+i] = byte(v)
			}
			dst = dst[f.bytes:]
		}
	}
}

func ceil(n, by int) int { return (n + by - 1) / by }
