package cuda

import (
	"strconv"
	"strings"

	"drover/backend"
	"drover/internal/quant"
)

// PromptAttention is kernels/prompt_attention.cu's: for rows of the prompt class.
// Tiles is (tiles) of tileWords: the tile's first row and how many it has.
type PromptAttention struct {
	Q, Keys, Values, Pos, Slot, Seq, Pages, Tiles, Out                uint64
	LdQ, LdOut, Heads, KVHeads, HeadDim, Window, MaxPages, ShareHeads int32
	Scale                                                             float32 // attentionScale
	_                                                                 int32
}

// tileWords is the 32-bit words of a tile of prompt attention.
const tileWords = 2

// maxTiles is the most tiles that rows of a batch make: one each.
func maxTiles(rows, seqs int) int { return rows }

// promptShape is how prompt attention is launched for a shape of heads. No choice
// changes the bits of a row, but for the kernel.
type promptShape struct {
	kernel string
	rows   int    // of a tile, at most
	share  int    // query heads of a group that a block takes together
	parts  int    // blocks that a group takes
	shared uint32 // dynamic shared memory, bytes; more than 48 KiB for heads above 128
}

// newPromptShape is for a cache of formats k and v, heads of up to 256 and group
// query heads for each key/value head, on a tier of kernels (75, 80, 90 or warpgroupTier).
func newPromptShape(k, v quant.Type, headDim, group, tier int) promptShape {
	width := 256 // D in the kernel's name
	for width > 64 && width/2 >= headDim {
		width /= 2
	}
	name, lines, most := strconv.Itoa(width), 128, 16
	switch odd := headDim%8 != 0; {
	case odd || k == quant.F32 || v == quant.F32:
		if odd {
			name, width = "odd", 256
		}
		lines, most = 32, 8
	case width == 256:
		lines = 64
	}
	s := promptShape{kernel: strings.ToLower("prompt_attention_" + k.String() + "_" + v.String() + "_" + name), parts: ceil(group, most)}
	s.share = ceil(group, s.parts)
	s.rows = lines / s.share
	const fixed = 76 // of Lines
	if lines == 32 { // Plain: q, keys or values, weights, Lines
		step := 32
		if width == 256 {
			step = 16
		}
		s.shared = uint32(4*((lines+step)*(width+4)+lines*(step+4)) + pad(12*lines+fixed, 16))
		return s
	}
	s.shared = uint32(pad(12*lines+fixed, 16) + 32 + 32*lines) // Lines, Source, Past
	for _, t := range []quant.Type{k, v} {                     // Operand
		tile := uint32(64*width + 512)
		s.shared += tile
		if tier >= 80 {
			s.shared += tile
		}
		if t == quant.Q8_0 {
			s.shared += uint32(48 * width)
		}
	}
	return s
}

// launch is for so many tiles.
func (s promptShape) launch(tiles, kvHeads int) launch {
	return launch{grid: [3]uint32{uint32(kvHeads * s.parts), uint32(tiles), 1}, block: 128}
}

// tiles writes the tiles of rows lo..lo+n of a batch to w, as seen from row lo,
// and gives their number. A tile has rows of one sequence.
func (s promptShape) tiles(w []int32, seqs []backend.Seq, lo, n int) int {
	count, begin := 0, 0
	for i := range seqs {
		end := begin + seqs[i].Rows
		for row := max(begin, lo); row < min(end, lo+n); row += s.rows {
			w[count*tileWords] = int32(row - lo)
			w[count*tileWords+1] = int32(min(s.rows, min(end, lo+n)-row))
			count++
		}
		begin = end
	}
	return count
}
