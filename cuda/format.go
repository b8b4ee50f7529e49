package cuda

import (
	"strings"

	"drover/internal/quant"
)

// format is how weights lie on the device: tiles of 16 rows, each a row of
// chunks. kernels/weights.h has the layout of a chunk.
type format struct {
	name      string // of its kernels: matvec_q4_0
	columns   int    // of a chunk
	bytes     int    // of a chunk
	tiles     int    // the most that a warp of matvec works on at once; 2: there is a matvec2
	float     bool   // decode takes A32, else A16
	wide      bool   // warpgroups take 256 columns at once: making A costs more than B's way into shared memory
	converted bool   // raw is int8 and f32 scales, made on the host by quant.Ints
}

// formats is a constant table; the last one carries every type that has none of
// its own.
var formats = [...]format{
	{name: "f32", columns: 64, bytes: 4096, tiles: 1, float: true},
	{name: "f16", columns: 64, bytes: 2048, tiles: 2},
	{name: "bf16", columns: 64, bytes: 2048, tiles: 2, float: true},
	{name: "q8_0", columns: 128, bytes: 2176, tiles: 2},
	{name: "q4_0", columns: 128, bytes: 1152, tiles: 2},
	{name: "q4_1", columns: 128, bytes: 1280, tiles: 2},
	{name: "q5_0", columns: 256, bytes: 2816, tiles: 1},
	{name: "q5_1", columns: 256, bytes: 3072, tiles: 1},
	{name: "q2_k", columns: 256, bytes: 1344, tiles: 1, wide: true},
	{name: "q3_k", columns: 256, bytes: 1792, tiles: 1, wide: true},
	{name: "q4_k", columns: 256, bytes: 2304, tiles: 1, wide: true},
	{name: "q5_k", columns: 256, bytes: 2816, tiles: 1, wide: true},
	{name: "q6_k", columns: 256, bytes: 3360, tiles: 1, wide: true},
	{name: "iq4_nl", columns: 128, bytes: 1152, tiles: 2, wide: true},
	{name: "iq4_xs", columns: 256, bytes: 2176, tiles: 1, wide: true},
	{name: "mxfp4", columns: 256, bytes: 2176, tiles: 1, wide: true},
	{name: "i16", columns: 128, bytes: 2560, tiles: 1, converted: true},
}

// formatOf is the format that weights of type t are packed in.
func formatOf(t quant.Type) *format {
	name := strings.ToLower(t.String())
	for i := range formats {
		if formats[i].name == name {
			return &formats[i]
		}
	}
	return &formats[len(formats)-1]
}

// Converts reports whether weights of type t are converted by quant.Ints before
// they are packed, since there are no kernels for their blocks.
func Converts(t quant.Type) bool { return formatOf(t).converted }

// module is the name of the module with the format's kernels but for prompts,
// whose products are in promptModule.
func (f *format) module() string       { return "weights_" + f.name }
func (f *format) promptModule() string { return "matmul_" + f.name }

// chunks is the number of chunks in a row.
func (f *format) chunks(cols int) int { return (cols + f.columns - 1) / f.columns }

// packedBytes is the size of a packed matrix, of one expert.
func (f *format) packedBytes(rows, cols int) uint64 {
	return uint64((rows+15)/16) * uint64(f.chunks(cols)) * uint64(f.bytes)
}

// rawRow is the size of a row of type t as pack takes it.
func (f *format) rawRow(t quant.Type, cols int) int {
	if f.converted {
		return cols + cols/4
	}
	return t.RowBytes(cols)
}

// launch is the shape of a kernel's launch.
type launch struct {
	grid  [3]uint32
	block uint32
}

// packLaunch: a warp packs a chunk.
func (f *format) packLaunch(rows, cols int) launch {
	return launch{[3]uint32{uint32(f.chunks(cols)+7) / 8, uint32(rows+15) / 16, 1}, 256}
}

// embedLaunch: a quad of lanes writes a chunk of a row; 8 warps are 64 quads.
func (f *format) embedLaunch(n, cols int) launch {
	return launch{[3]uint32{uint32(f.chunks(cols)+63) / 64, uint32(n), 1}, 256}
}

// warps is how many warps share the columns of a row. It decides the order of
// sums, so it follows from the matrix' shape alone.
func (f *format) warps(cols int) uint32 {
	w := uint32(1)
	for w < 8 && int(w) < f.chunks(cols) {
		w *= 2
	}
	return w
}

// tilesFor is how many tiles of 16 rows a warp of matvec should work on at once,
// for a matrix, or several together, of so many rows and n columns of the batch.
// It does not change results: two halve the reads of activations, one gives
// small matrices more blocks.
func (f *format) tilesFor(rows, n int) int {
	if n > 2 || rows > 8192 {
		return f.tiles
	}
	return 1
}

// matvecName is the kernel for that many tiles.
func (f *format) matvecName(tiles int) string {
	if tiles == 2 {
		return "matvec2_" + f.name
	}
	return "matvec_" + f.name
}

// matvecLaunch is for matrices of so many rows each, and for z active experts
// at most (1 without experts).
func (f *format) matvecLaunch(tiles int, rows []int, cols, z int) launch {
	x := 0
	for _, r := range rows {
		x += (r + 16*tiles - 1) / (16 * tiles)
	}
	return launch{[3]uint32{uint32(x), 1, uint32(z)}, 32 * f.warps(cols)}
}

// gateLaunch is for a gate and an up matrix of so many rows: 32 rows a block.
func (f *format) gateLaunch(rows, cols, z int) launch {
	return launch{[3]uint32{uint32(rows+31) / 32, 1, uint32(z)}, 32 * f.warps(cols)}
}
