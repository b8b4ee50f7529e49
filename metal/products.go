//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"embed"
	"strconv"
	"strings"
)

// The arguments of the kernels that read weights, field for field as in
// kernels/matvec.metal and kernels/embed.metal. Places are bytes from the
// beginning of the scratch buffer, or of the constants' where that is said; 0
// where a field is not wanted. Places of f32 rows are multiples of 16, and the
// floats between rows of X multiples of 4.

// Matrix is one matrix of a product, which lies at an argument of its own. Stride
// is the bytes of one expert, Bias a place among the constants, LdY the floats
// between rows of Y.
type Matrix struct {
	Stride, Y, Bias uint64
	Rows, LdY       int32
}

// Product is y[row] = W x[row] (+ bias) (+ y) for up to three matrices of one format
// that share N rows of input, (N, LdX) f32.
type Product struct {
	M                    [3]Matrix
	X, Experts           uint64 // Experts: the list of kernels/mixture.metal; 0: plain
	Matrices, Cols, N    int32
	Add                  int32 // 1: added to what Y has
	LdX, Share, Total, _ int32 // with experts: Share 1: slots of a row share its input, 0: a slot has its own; how many experts there are
}

// Gate is Act[row] = silu(M[0] x[row]) * (M[1] x[row]), f32; both have the rows of M[0].
type Gate struct {
	Product
	Act      uint64
	LdAct, _ int32
}

// Embed is x[i] = row Tokens[i] of a matrix with rows of Dim.
type Embed struct {
	X, Tokens      uint64
	N, Dim, LdX, _ int32
}

//go:embed kernels/*.metal
var kernelFiles embed.FS

// text is the sources of some files of kernels/, one after the other.
func text(names ...string) string {
	var all strings.Builder
	for _, name := range names {
		b, err := kernelFiles.ReadFile("kernels/" + name + ".metal")
		if err != nil {
			panic("BUG: " + err.Error())
		}
		all.Write(b)
	}
	return all.String()
}

// stdlib comes before definitions, which would reach into it.
const stdlib = "#include <metal_stdlib>\n"

// source is the format's library.
func (f *format) source() string {
	return stdlib + "#define FORMAT " + strings.ToUpper(f.name) + "\n#define NAME " + f.name + "\n" + text("dev", "weights", "matvec", "matmul", "embed")
}

// matvecName is the kernel for n rows of a batch of the decode class.
func (f *format) matvecName(n int) string { return ofRows("matvec", n) + "_" + f.name }

// gateName is the same for a gate and an up matrix with the activation.
func (f *format) gateName(n int) string { return ofRows("matvec", n) + "_gate_" + f.name }

func ofRows(name string, n int) string {
	if n == 1 {
		return name
	}
	return name + strconv.Itoa(decodeRows)
}

// matmulName is the kernel for prompts whose threadgroups take so many rows of the
// batch: 32 or 64.
func (f *format) matmulName(columns int) string {
	return "matmul_" + f.name + "_" + strconv.Itoa(columns)
}

func (f *format) embedName() string { return "embed_" + f.name }

// kernels are all that the library has.
func (f *format) kernels() []string {
	return []string{f.matvecName(1), f.matvecName(decodeRows), f.gateName(1), f.gateName(decodeRows), f.matmulName(32), f.matmulName(64), f.embedName()}
}

// launch is the shape of a dispatch.
type launch struct{ groups, threads size }

// matvecLaunch is for matrices of so many rows each, and so many active experts
// at most, 1 without: two simdgroups of 4 rows.
func matvecLaunch(rows []int, active int) launch {
	return launch{size{uintptr(tiles(rows, 8)), 1, uintptr(active)}, size{64, 1, 1}}
}

// gateLaunch is for a gate and an up matrix of so many rows: 2 of each a simdgroup.
func gateLaunch(rows, active int) launch {
	return launch{size{uintptr(ceil(rows, 4)), 1, uintptr(active)}, size{64, 1, 1}}
}

// matmulLaunch is for matrices of so many rows each and n rows of a batch; columns
// names the kernel. With experts, active is how many there can be at most, and mean how
// many of the rows an expert has on average; without, 1 and n. Both kernels give the same
// bits: the small one is for few rows, and for so few threadgroups that a GPU
// would not be full.
func matmulLaunch(rows []int, n, active, mean int) (columns int, l launch) {
	across := tiles(rows, 64)
	columns = 64
	if mean <= 32 || across*ceil(mean, 64)*active < 128 {
		columns = 32
	}
	return columns, launch{size{uintptr(ceil(n, columns)), uintptr(across), uintptr(active)}, size{128, 1, 1}}
}

// embedLaunch: a thread writes 16 values.
func embedLaunch(n, cols int) launch {
	return launch{size{uintptr(ceil(cols, 16*64)), uintptr(n), 1}, size{64, 1, 1}}
}

// tiles is how many tiles of so many rows the matrices have.
func tiles(rows []int, of int) (n int) {
	for _, r := range rows {
		n += ceil(r, of)
	}
	return n
}
