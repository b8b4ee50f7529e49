package cuda

import "math"

// The parameter structs of the other kernels, field for field as in the file
// of kernels/ that each names, and beside them the shapes of their launches. A
// kernel takes one struct, by value; addresses are the device's, 0 where a field
// is not wanted. Row counts are those of the bucket.

// Outputs is the forms in which a row is wanted (kernels/outputs.h).
type Outputs struct {
	Out, Half, Scale, Sums, BF16 uint64
	LdOut, KPad, Lanes, _        int32
}

// Norm is kernels/norm.cu's norm: rows of X, or its rows Rows[i].
type Norm struct {
	X, Weight, Rows uint64
	Dim, LdX        int32
	Eps             float32
	_               int32
	To              Outputs
}

// Convert is kernels/norm.cu's convert: rows of X as they are.
type Convert struct {
	X        uint64
	Dim, LdX int32
	To       Outputs
}

// Act is kernels/act.cu's act: rows of Dim values.
type Act struct {
	Gate, Up          uint64
	LdGate, LdUp, Dim int32
	_                 int32
	To                Outputs
}

// rowLaunch is the shape of norm, convert and act: n rows of dim values. The
// threads decide the order of sums, so they follow from dim alone.
func rowLaunch(n, dim int) launch {
	return launch{grid: [3]uint32{uint32(n), 1, 1}, block: uint32(min(512, max(64, ceil(dim, 128)*32)))}
}

// Rope is kernels/rope.cu's: the place of a row in the cache is Slot, page*64 +
// row of the page, or -1 for padding.
type Rope struct {
	Q, K, V, Cos, Sin, Pos, Slot, Keys, Values           uint64
	LdQ, LdK, LdV, Heads, KVHeads, HeadDim, Dims, Halves int32
}

func ropeLaunch(n, kvHeads int) launch {
	return launch{grid: [3]uint32{uint32(kvHeads), uint32(n), 1}, block: 128}
}

// Attention is kernels/attention.cu's: for rows of the decode class.
type Attention struct {
	Q, Keys, Values, Pos, Slot, Seq, Pages, Partial            uint64
	LdQ, N, Heads, KVHeads, HeadDim, Window, MaxPages, MaxCuts int32
	Scale                                                      float32 // log2(e)/sqrt(HeadDim)
	_                                                          int32
}

// cutRows is how many positions attention of the decode class sums at a time.
const cutRows = 256

// attentionScale makes scores powers of two.
func attentionScale(headDim int) float32 { return float32(math.Log2E / math.Sqrt(float64(headDim))) }

// attentionHeads is how many query heads share what an attention kernel loads,
// and the end of its name.
func attentionHeads(group, headDim int) (heads int, name string) {
	switch {
	case headDim%8 != 0:
		return 1, "odd"
	case group == 1:
		return 1, "1"
	case group == 2:
		return 2, "2"
	case group <= 4:
		return 4, "4"
	}
	return 8, "8"
}

// attentionLaunch is for n rows. The grid is as large as the card holds at once,
// or all there can be to do; blocks loop.
func attentionLaunch(n, group, kvHeads, headDim, cuts, multiprocessors int) (l launch, shared uint32) {
	heads, _ := attentionHeads(group, headDim)
	each := 2 // blocks of a multiprocessor, as __launch_bounds__ says
	if heads == 8 {
		each = 1
	}
	all := n * kvHeads * ceil(group, heads) * cuts
	words := max(cutRows*heads+heads*pad(headDim, 128), 4*heads*headDim)
	return launch{grid: [3]uint32{uint32(min(each*multiprocessors, all)), 1, 1}, block: 256}, uint32(4 * words)
}

// partialBytes is the size of a row's partial sums: of every head and cut.
func partialBytes(heads, cuts, headDim int) uint64 {
	return uint64(heads) * uint64(cuts) * uint64((headDim+5)&^3) * 4
}

// Combine is kernels/combine.cu's. Of To it writes Out and Half.
type Combine struct {
	Partial, Pos, Slot              uint64
	To                              Outputs
	Heads, HeadDim, Window, MaxCuts int32
}

func combineLaunch(n, width int) launch {
	return launch{grid: [3]uint32{uint32(ceil(width, 256)), uint32(n), 1}, block: 256}
}

// Route is kernels/mixture.cu's route and list_experts.
type Route struct {
	Logits, Slot, Weights, Chosen, List uint64
	N, Experts, Used, LdL               int32
}

// mostExperts and mostUsed are what route's registers hold.
const mostExperts, mostUsed = 512, 32

// routeLaunch is for n rows; with one block route makes the list too.
func routeLaunch(n int) launch {
	return launch{grid: [3]uint32{uint32(ceil(n, 8)), 1, 1}, block: 256}
}

func listLaunch(experts int) launch {
	return launch{grid: [3]uint32{uint32(ceil(experts+1, 8)), 1, 1}, block: 256}
}

// listWords is the length of a list of experts for so many slots.
func listWords(experts, slots int) int { return 4 + experts + experts + 1 + slots }

// Mix is kernels/mixture.cu's mix: X[row] += weighted sum of its slots of Y.
type Mix struct {
	X, Y, Weights, Slot uint64
	Used, Dim, LdX, LdY int32
}

func mixLaunch(n, dim int) launch {
	return launch{grid: [3]uint32{uint32(ceil(dim, 1024)), uint32(n), 1}, block: 256}
}

// Top is kernels/top.cu's top_parts and top_merge.
type Top struct {
	Logits, Keys, Stats, IDs, Values, LogSum uint64
	Vocab, LdL, Top, Parts, Kept             int32
	_                                        int32
}

// topPart is how many logits a block of top_parts sorts.
const topPart = 1024

// topLaunch is for n rows of vocab logits, of which the largest `top` are wanted:
// top_parts and top_merge. kept is what a part keeps.
func topLaunch(n, vocab, top int) (parts, merge launch, kept int) {
	count, kept := ceil(vocab, topPart), min(top, topPart)
	return launch{grid: [3]uint32{uint32(count), uint32(n), 1}, block: 256},
		launch{grid: [3]uint32{uint32(ceil(count*kept, 8)), uint32(n), 1}, block: 256}, kept
}

// Read, MatrixRate and Nothing are kernels/measure.cu's.
type Read struct{ Data, Out, Words uint64 }

type MatrixRate struct {
	Out    uint64
	Rounds int32
	_      int32
}

type Nothing struct{ Unused int32 }

func ceil(n, by int) int { return (n + by - 1) / by }
func pad(n, to int) int  { return ceil(n, to) * to }
