//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"math"
	"strings"

	"drover/internal/quant"
)

// The arguments of the kernels that read no weights, field for field as in the file
// of kernels/ that each names, and beside them the shapes of their dispatches.
// Places are bytes from the beginning of the scratch buffer, or of the constants'
// where that is said.

// Norm is kernels/norm.metal's: rows of X, or its rows Rows[i]. Weight is among the
// constants.
type Norm struct {
	X, Out, Weight, Rows uint64
	Dim, LdX, LdOut      int32
	Eps                  float32
}

// normLaunch is for n rows of dim values. The threads decide the order of sums, so
// they follow from dim alone.
func normLaunch(n, dim int) launch {
	return launch{size{uintptr(n), 1, 1}, size{uintptr(min(mostNormThreads, 32*ceil(dim, 128))), 1, 1}}
}

const mostNormThreads = 512

// Act is kernels/act.metal's.
type Act struct {
	Gate, Up, Out uint64
	Dim, Ld       int32
}

func actLaunch(n, dim int) launch {
	return launch{size{uintptr(ceil(dim, 256)), uintptr(n), 1}, size{256, 1, 1}}
}

// Rope is kernels/rope.metal's. Values is a place in the layer's cache, Cos and Sin
// are among the constants.
type Rope struct {
	Values, Q, K, V, Pos, Slot, Cos, Sin                uint64
	LdQ, LdKV, Heads, KVHeads, HeadDim, Dims, Halves, _ int32
}

func ropeLaunch(n, kvHeads int) launch {
	return launch{size{uintptr(kvHeads), uintptr(n), 1}, size{128, 1, 1}}
}

// Attention is kernels/attention.metal's: for rows of the decode class. Values is a
// place in the layer's cache.
type Attention struct {
	Values, Q, Pos, Seq, Pages, Partial                               uint64
	FirstCut, LdQ, Heads, KVHeads, HeadDim, Window, MaxPages, MaxCuts int32
	Scale                                                             float32 // attentionScale
	_                                                                 int32
}

// attentionScale makes scores powers of two.
func attentionScale(headDim int) float32 { return float32(math.Log2E / math.Sqrt(float64(headDim))) }

// attentionHeads is how many query heads share what a threadgroup of attention
// loads: a power of two, or 1 for heads that are not whole pieces of 8.
func attentionHeads(group, headDim int) int {
	most, heads := 8, 1
	if headDim > 128 {
		most = 4
	}
	for headDim%8 == 0 && heads < min(group, most) {
		heads *= 2
	}
	return heads
}

// attentionLaunch is for n rows that see cuts of the context.
func attentionLaunch(n, group, kvHeads, headDim, cuts int) launch {
	parts := ceil(group, attentionHeads(group, headDim))
	return launch{size{uintptr(cuts), uintptr(kvHeads * parts), uintptr(n)}, size{256, 1, 1}}
}

// Combine is kernels/combine.metal's.
type Combine struct {
	Partial, Pos, Out                      uint64
	Heads, HeadDim, Window, MaxCuts, LdOut int32
	_                                      int32
}

func combineLaunch(n, width int) launch {
	return launch{size{uintptr(ceil(width, 32)), uintptr(n), 1}, size{256, 1, 1}}
}

// PromptAttention is kernels/prompt_attention.metal's: for rows of the prompt class.
// Values is a place in the layer's cache.
type PromptAttention struct {
	Values, Q, Pos, Seq, Pages, Tiles, Out                         uint64
	LdQ, LdOut, Heads, KVHeads, HeadDim, Window, MaxPages, Sharing int32
	Scale                                                          float32 // attentionScale
	_                                                              int32
}

func (s promptShape) launch(tiles, kvHeads int) launch {
	return launch{size{uintptr(kvHeads * s.parts), uintptr(tiles), 1}, size{128, 1, 1}}
}

// Router is kernels/mixture.metal's: Norm, and the product with a router in f32.
type Router struct {
	X, Out, Weight, Logits        uint64
	Dim, LdX, LdOut, Experts, LdL int32
	Eps                           float32
}

// routerLaunch is for n rows of dim values; the threads are those of norm.
func routerLaunch(n, dim, experts int) launch {
	return launch{size{uintptr(ceil(experts, 16)), uintptr(n), 1}, normLaunch(n, dim).threads}
}

// Route is kernels/mixture.metal's route and list_experts.
type Route struct {
	Logits, Weights, Chosen, List uint64
	N, Experts, Used, LdL         int32
}

// routeLaunch is for n rows; with one threadgroup route makes the list too.
func routeLaunch(n int) launch {
	return launch{size{uintptr(ceil(n, 8)), 1, 1}, size{256, 1, 1}}
}

func listLaunch(experts int) launch {
	return launch{size{uintptr(ceil(experts+1, 8)), 1, 1}, size{256, 1, 1}}
}

// Mix is kernels/mixture.metal's mix_experts, X[row] += weighted sum of its slots of Y,
// and mix_norm, which goes on as Norm does.
type Mix struct {
	X, Y, Weights, Out, Weight uint64
	Used, Dim, LdX, LdY, LdOut int32
	Eps                        float32
}

func mixLaunch(n, dim int) launch {
	return launch{size{uintptr(ceil(dim, 256)), uintptr(n), 1}, size{256, 1, 1}}
}

// Top is kernels/top.metal's top_parts and top_merge.
type Top struct {
	Logits, Keys, Stats, IDs, Values, LogSum uint64
	Vocab, LdL, Top, Parts, Kept             int32
	_                                        int32
}

// topLaunch is for n rows of vocab logits, of which the largest `top` are wanted:
// top_parts and top_merge. kept is what a part keeps.
func topLaunch(n, vocab, top int) (parts, merge launch, kept int) {
	count, kept := ceil(vocab, topPart), min(top, topPart)
	return launch{size{uintptr(count), uintptr(n), 1}, size{256, 1, 1}},
		launch{size{uintptr(ceil(count*kept, 8)), uintptr(n), 1}, size{256, 1, 1}}, kept
}

// The sources of these kernels. Those on the cache are compiled for a stage's
// formats and heads.
func rowSource() string { return text("outputs", "cache", "norm", "act", "combine", "mixture", "top") }

func cacheSource(k, v quant.Type, op string, defines ...string) string {
	var all strings.Builder
	all.WriteString(stdlib)
	for _, d := range defines {
		all.WriteString("#define " + d + "\n")
	}
	all.WriteString("#define K " + strings.ToUpper(cacheName(k)) + "\n#define V " + strings.ToUpper(cacheName(v)) + "\n#define NAME(op) op##" + cacheSuffix(k, v) + "\n")
	return all.String() + text("outputs", "cache", op)
}

// cacheSuffix ends the names of kernels for caches in formats k and v.
func cacheSuffix(k, v quant.Type) string { return "_" + cacheName(k) + "_" + cacheName(v) }
