package cuda

// The parameter structs of the kernels that read weights, field for field as in
// kernels/weights.h, matvec.cu, pack.cu and embed.cu. A kernel takes one, by value;
// addresses are the device's.

// Matrix is one packed matrix of a product. Bias may be 0; Stride is the bytes
// of one expert, LdY the floats between columns of Y.
type Matrix struct {
	W, Y, Bias uint64
	Rows, LdY  int32
	Stride     uint64
}

// Product is y[column][row] = W x (+ bias) (+ y) for up to three matrices of
// one format that share their input of N columns.
type Product struct {
	M                      [3]Matrix
	Matrices, Cols, N, Add int32
	KPad, LdX              int32
	X                      uint64 // A32
	Half, Scale            uint64 // A16; AB16 without Scale
	Sums                   uint64 // of A16, decoding
	Experts                uint64 // 0: plain
	Share, Total           int32  // with experts: 1: slots of a row share its input, 0: a slot has its own; how many experts there are
}

// Gate is silu(M[0] x) * (M[1] x), in all forms but BF16.
type Gate struct {
	Product
	To Outputs
}

// Pack turns Rows rows of raw blocks, which are rows First and on of a matrix of
// Total, into tiles of W, the packed matrix.
type Pack struct {
	Raw, W                   uint64
	Rows, First, Cols, Total int32
}

// Embed is x[i] = row Tokens[i] of a packed matrix with rows of Dim.
type Embed struct {
	W, X, Tokens uint64
	N, Dim, LdX  int32
	_            int32
}
