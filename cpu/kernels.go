package cpu

import "unsafe"

// Layouts that the kernels share. All quantised matrices are packed in groups
// of groupRows rows; within a group, weights are cut into blocks of blockCols
// columns. "Vector j" below is 64 bytes: 16 dwords, one a row of the group;
// byte b of row r's dword belongs to column 4j+b of the block.
//
// Packed weights of a group are read from front to back: blocks one after
// another, each followed by its scales; the formats with superblocks have 16 f16 d,
// and 16 f16 dmin, before every 8. A group's size is rounded up to 64 bytes. Groups of long
// rows lie in strips (strips.go). A block is
//
//	Q8_0         512: 8 vectors of weight+128            and 32: 16 f16 scales
//	Q4_0, IQ4_NL 256: 4 vectors, low nibble column 4j+b, high nibble column 16+4j+b
//	                                                     and 32: 16 f16 scales
//	Q4_1         256: as Q4_0                            and 64: 16 f16 scales, 16 f16 mins
//	Q5_0         320: as Q4_0, then a vector of fifth bits: bit 8b+j is that of column 4j+b (j 0..7)
//	                                                     and 32: 16 f16 scales
//	Q5_1         320: as Q5_0                            and 64: 16 f16 scales, 16 f16 mins
//	MXFP4        256: as Q4_0                            and 16: 16 u8 exponents
//	Q2_K         128: 2 vectors: bits 2i, 2i+1 of byte b of vector h are column 4(4h+i)+b
//	                                                     and 32: 16 u8 scale+16*min of columns 0-15, 16 of 16-31; d, dmin
//	Q3_K         192: as Q2_K, then a vector of third bits, as Q5_0's fifth
//	                                                     and 32: as Q6_K
//	Q4_K         256: as Q4_0                            and 32: 16 u8 scales, 16 u8 mins; d, dmin
//	Q5_K         320: as Q5_0                            and 32: as Q4_K
//	Q6_K         384: as Q4_0, then 2 vectors of high bits, as Q2_K's
//	                                                     and 32: 16 i8 scales of columns 0-15, 16 of 16-31; d
//	IQ4_XS       256: as Q4_0                            and 16: 16 i8 scales; d
//	I8           640: a panel block (below) of 16-column scales
//
// Values: Q4_0 d*(q-8); Q5_0 d*(q-16); Q8_0 d*q; IQ4_NL d*iq4nl[q]; Q4_1, Q5_1 d*q+m;
// MXFP4 2^(exponent-128)*e2m1[q]; Q2_K, Q4_K, Q5_K (d*scale)*q - dmin*min; Q3_K (d*scale)*(q-4);
// Q6_K (d*scale)*(q-32); IQ4_XS (d*scale)*iq4nl[q].
//
// A panel block is what unpack makes of any of these for the product with many
// rows: 512 bytes (8 vectors of unsigned weights), then float32 scales and mins,
// 16 at a time (one a row):
//
//	panel32  576: weight+128, scale                       Q8_0 Q4_0 Q5_0 IQ4_NL IQ4_XS MXFP4
//	panel32M 640: weight (0 to 31), scale, min             Q4_1 Q5_1 Q4_K Q5_K
//	panel16  640: weight+128, scale of columns 0-15, of 16-31    Q3_K Q6_K I8
//	panel16M 768: weight (0 to 3), scales as before, min of columns 0-15, of 16-31    Q2_K
//
// Activations of T rows (T = 1 or panelRows), a record of 64*T bytes a block,
// in dwords:
//
//	0    q[j*T+t]  4 int8: columns 4j..4j+3 of row t, in [-127, 127]
//	8T   -128*sum of the 32 q  9T  -128*sum of the first 16  10T the same of the last  (int32)
//	11T  scale (float32)       12T scale * sum of the 32     13T, 14T the same of 16   (float32)
//	15T  unused
//
// A set with tiles (AMX) has other panel blocks and records, of integers in bf16, which holds them all. Word w of
// a row is column 4*(w/4) + w%4/2 + 2*(w%2) of the block, so that two rows of a tile are made of a vector, its even and
// its odd bytes. A panel block is 1024 bytes (16 rows of 16 dwords, one a row of the group: two columns each), then
// scales and mins as above; a record of tileRows activation rows is 1280:
//
//	0     the rows, 64 bytes each: 32 integers in [-127, 127]
//	1024  16 scales (float32)  1088 scale * sum of the 32  1152, 1216 the same of the first, the last 16
//
// One arithmetic for every kernel of a set, whatever T: sums of integer products are exact; then,
// block after block with one float32 accumulator per output element (a is the activation's record):
//
//	panel32  acc = fma(float32(isum), scale*a.scale, acc)
//	panel32M the same, then acc = fma(min, a.fsum, acc)
//	panel16  acc = fma(float32(isum lo), scale lo*a.scale, acc), then the same of hi
//	panel16M the same, then acc = fma(min lo, a.flo, acc), acc = fma(min hi, a.fhi, acc)
//
// A kernel set without FMA rounds the product first, everywhere.
const (
	groupRows = 16
	blockCols = 32
	panelRows = 6 // activation rows that one call of gemm multiplies
	tileRows  = 16
)

const (
	tileRecord = 64*tileRows + 4*64 // bytes of a block of tileRows activation rows
	tileWider  = 512                // what a panel block has more with tiles
	tileRing   = 4 * 64 * tileRows  // scratch of gemmTiles
)

// kind is a packed layout.
type kind uint8

const (
	kindF32 kind = iota // float kinds: per column, the 16 rows' values
	kindF16
	kindBF16
	kindQ8_0
	kindQ4_0
	kindQ4_1
	kindQ5_0
	kindQ5_1
	kindQ2_K
	kindQ3_K
	kindQ4_K
	kindQ5_K
	kindQ6_K
	kindIQ4_NL
	kindIQ4_XS
	kindMXFP4
	kindI8 // every other format: weights are an int8 times a float32 scale per 16
	kinds
)

// panelKind is a layout of unpacked blocks.
type panelKind uint8

const (
	panel32 panelKind = iota
	panel32M
	panel16
	panel16M
	panelKinds
)

func (p panelKind) bytes() int { return [...]int{576, 640, 640, 768}[p] }

func (k kind) float() bool { return k <= kindBF16 }

// panel is the layout that unpack makes of k. I8 is a panel already.
func (k kind) panel() panelKind {
	switch k {
	case kindQ4_1, kindQ5_1, kindQ4_K, kindQ5_K:
		return panel32M
	case kindQ3_K, kindQ6_K, kindI8:
		return panel16
	case kindQ2_K:
		return panel16M
	}
	return panel32
}

// groupBytes is the size of a packed group of cols columns.
func (k kind) groupBytes(cols int) int {
	n := cols / blockCols
	b := 0
	switch k {
	case kindF32:
		b = cols * 64
	case kindF16, kindBF16:
		b = cols * 32
	case kindQ8_0:
		b = n * (512 + 32)
	case kindQ4_0, kindIQ4_NL:
		b = n * (256 + 32)
	case kindQ4_1:
		b = n * (256 + 64)
	case kindQ5_0:
		b = n * (320 + 32)
	case kindQ5_1:
		b = n * (320 + 64)
	case kindMXFP4:
		b = n * (256 + 16)
	case kindQ2_K:
		b = n*(128+32) + n/8*64
	case kindQ3_K:
		b = n*(192+32) + n/8*32
	case kindQ4_K:
		b = n*(256+32) + n/8*64
	case kindQ5_K:
		b = n*(320+32) + n/8*64
	case kindQ6_K:
		b = n*(384+32) + n/8*32
	case kindIQ4_XS:
		b = n*(256+16) + n/8*32
	case kindI8:
		b = n * 640
	}
	return (b + 63) &^ 63
}

// kernels is the inner loops of one kernel set. The generic ones
// (kernels_generic.go) are their definition. Pointers address the packed data
// described above; n is blocks for quantised kinds and columns for float
// kinds. gemv and gemm write whole groups: callers pad their buffers.
type kernels struct {
	isa string

	// alone: what one line reads of a cache is not asked for ahead.
	alone bool

	// gemv: dst[16*groups] += packed groups (stride bytes apart) times one row, block after block: some of
	// the columns and then the rest give the same bits as all at once.
	// act is an activation record of T = 1, or float32 columns for float kinds.
	gemv [kinds]func(dst *float32, w, act *byte, n, groups, stride int)

	// gemvRows is gemv of up to fewRows rows at once: row i's record lies step bytes after that of the
	// one before, its product ld values after. Records of fewRows rows are read. nil: rows are multiplied
	// one by one.
	gemvRows [kinds]func(dst *float32, ld int, w, act *byte, step, n, groups, stride, rows int)

	// few is up to how many rows quantised kinds use gemv or gemvRows, and more use gemm.
	few int

	// gemm: dst[t*ld + 0..31] for t < panelRows = two unpacked groups a and b
	// times a panel of panelRows activation rows; ld in elements.
	gemm [panelKinds]func(dst *float32, ld int, a, b, act *byte, n int)

	// gemmTiles, of a set with tiles in place of gemm, is that of several records of tileRows activation rows, one after
	// another; ring is tileRing bytes of scratch. unpack makes its panel blocks, of I8 too.
	gemmTiles [panelKinds]func(dst *float32, ld int, a, b, act *byte, n, records int, ring *byte)

	// gemmFloat is gemm over packed float groups; act is (columns, panelRows) float32.
	gemmFloat [kinds]func(dst *float32, ld int, a, b, act *byte, n int)

	// unpack turns a packed group into n panel blocks; nil for float kinds and I8.
	unpack [kinds]func(panel, w *byte, n int)

	// widen makes float32 of the n values of a packed group of F16 or BF16, a multiple of 64; nil: the format's own
	// kernels multiply it.
	widen [kinds]func(dst *float32, src *byte, n int)

	// pack makes a packed group of 16 whole rows of a file's blocks, row bytes
	// apart; cols is a multiple of packCols. nil: packer.group, its definition,
	// does it itself.
	pack [kinds]func(dst, src *byte, row, cols int)

	// raw: dst[0..15] = 16 whole rows of a file's blocks, row bytes apart, times one row: gemv of the group that
	// pack makes of them, which is its definition. nil: it is packed first.
	raw [kinds]func(dst *float32, src, act *byte, row, n int)

	// quantize makes row t of activation records of T rows, step bytes apart, from n*32 values:
	// scale = max|x|/127, q = round to nearest even of x*(127/max|x|);
	// both 0 where max|x| < tiny.
	quantize func(dst *byte, x *float32, n, T, t, step int)

	// quantizeTiles is quantize of row t of records for gemmTiles, of which there are n.
	quantizeTiles func(dst *byte, x *float32, n, t int)

	// score: dst[l*cutRows+i] = sum over d of q[l*dim+d]*k[d][i], in order, one fma each, for lines l and
	// every position i of a page of keys (see attention.go). next is the page that is wanted after it.
	scoreF32, scoreF16 func(dst, q *float32, k, next *byte, lines, dim int)

	// accumulate: acc[l*dim+d] += p[l*cutRows+i]*v[i][d] for i = 0..n-1, in order, one fma each; v is rows
	// of a page of values.
	accumF32, accumF16 func(acc, p *float32, v, next *byte, lines, n, dim int)

	// A q8_0 cache is multiplied in integers, whose sums are exact: queries, and weights times the scales of values, become
	// int16 with a scale, an error of 2^-16 (weights 2^-15) of the largest of them.
	//
	// fix makes, in place, of lines of n float32 each, a multiple of 32: n int16, round to nearest even of
	// x*(32767/max|x|), and behind them the float32 max|x|/32767; both 0 where max|x| < tiny.
	fix func(x *float32, lines, n int)

	// scoreQ8 is score of lines that fix made: block of 32 dimensions after block, in order, with one fma each,
	// sum = fma(float32(isum), k's scale, sum), from 0; then sum*line's scale.
	scoreQ8 func(dst, q *float32, k, next *byte, lines, dim int)

	// weigh makes the weights of a block of a page of q8_0 values, of lines p cutRows apart: for each of them PageRows int16, of
	// p[i] times the scale of position i, in the order of pairedPosition, and behind those of all lines their
	// scales (weightScale). From position n on p counts as 0. Weights are not negative.
	weigh func(w, p *float32, v *byte, lines, n int)

	// accumQ8: acc[l*dim+d] = fma(float32(isum), line's scale, acc[l*dim+d]), of the 32 dimensions of a block of
	// a page of q8_0 values, with weights that weigh made of so many lines.
	accumQ8 func(acc, w *float32, v, next *byte, lines, dim int)

	// widenF16 makes float32 of n f16, a multiple of 64.
	widenF16 func(dst *float32, src *byte, n int)

	// narrowF16 makes f16 of n float32, rounded to nearest even.
	narrowF16 func(dst *byte, src *float32, n int)

	// combine: dst[i] = dst[i]*old + x[i]*now.
	combine func(dst, x *float32, old, now float32, n int)

	// rotate turns pairs of values: pairs x[2i], x[2i+1], and rotateHalves x[i], x[i+n], for i < n, become
	// (u*cos[i]-v*sin[i], u*sin[i]+v*cos[i]), every product rounded.
	rotate, rotateHalves func(x, cos, sin *float32, n int)

	// prefetch asks for 2*groupRows values of rows, which are ld values apart; nil: it does not.
	prefetch func(x *float32, ld, rows int)

	// softmax takes lines of n >= 1 values, cutRows apart: the largest of the i-th goes to parts[2*i], each
	// value becomes its exponential less that, and the sum of these goes to parts[2*i+1].
	softmax func(parts, x *float32, n, lines int)
	// siluMul: dst[i] = gate[i]/(1+exp(-gate[i])) * up[i].
	siluMul func(dst, gate, up *float32, n int)
	// sumSquares is the sum of x[i]^2.
	sumSquares func(x *float32, n int) float32
	// scaleMul: dst[i] = x[i]*scale*w[i].
	scaleMul func(dst, x, w *float32, scale float32, n int)
	// add: dst[i] += x[i].
	add func(dst, x *float32, n int)
	// addTile: dst[t*ld+i] += x[t*2*groupRows+i] for t < rows, i < 2*groupRows. nil: add is called for each row.
	addTile func(dst *float32, ld int, x *float32, rows int)
}

// generic is the kernel set every CPU has.
func generic() *kernels {
	k := &kernels{isa: "generic", few: oneByOneRows, quantize: quantizeGeneric,
		scoreF32: scoreF32Generic, scoreF16: scoreF16Generic, scoreQ8: scoreQ8Generic, fix: fixGeneric,
		accumF32: accumF32Generic, accumF16: accumF16Generic, accumQ8: accumQ8Generic, weigh: weighGeneric,
		widenF16: widenF16Generic, narrowF16: narrowF16Generic, combine: combineGeneric,
		rotate: rotateGeneric, rotateHalves: rotateHalvesGeneric,
		softmax: softmaxGeneric, siluMul: siluMulGeneric,
		sumSquares: sumSquaresGeneric, scaleMul: scaleMulGeneric, add: addGeneric}
	k.widen[kindF16], k.widen[kindBF16] = widenF16Generic, widenBF16Generic
	for kd := kindF32; kd < kinds; kd++ {
		if kd.float() {
			k.gemv[kd] = func(dst *float32, w, act *byte, n, groups, stride int) {
				gemvFloatGeneric(kd, dst, w, act, n, groups, stride)
			}
			k.gemmFloat[kd] = func(dst *float32, ld int, a, b, act *byte, n int) {
				gemmFloatGeneric(kd, dst, ld, a, b, act, n)
			}
			continue
		}
		k.gemv[kd] = func(dst *float32, w, act *byte, n, groups, stride int) {
			gemvGeneric(kd, dst, w, act, n, groups, stride)
		}
		if kd != kindI8 {
			k.unpack[kd] = func(panel, w *byte, n int) { unpackGeneric(kd, panel, w, n) }
		}
	}
	for p := panel32; p < panelKinds; p++ {
		k.gemm[p] = func(dst *float32, ld int, a, b, act *byte, n int) { gemmGeneric(p, dst, ld, a, b, act, n) }
	}
	return k
}

// genericTiles is the generic set with tiles, which no CPU lacks either.
func genericTiles() *kernels {
	k := generic()
	k.isa, k.quantizeTiles = "tiles", quantizeTilesGeneric
	for kd := kindQ8_0; kd < kinds; kd++ {
		k.unpack[kd] = func(panel, w *byte, n int) { unpackTilesGeneric(kd, panel, w, n) }
	}
	for p := panel32; p < panelKinds; p++ {
		k.gemm[p] = nil
		k.gemmTiles[p] = func(dst *float32, ld int, a, b, act *byte, n, records int, ring *byte) {
			gemmTilesGeneric(p, dst, ld, a, b, act, n, records, ring)
		}
	}
	return k
}

// tiled says that the set multiplies many rows by tiles.
func (k *kernels) tiled() bool { return k.quantizeTiles != nil }

// panel is the rows in a record of many rows' activations.
func (k *kernels) panel() int {
	if k.tiled() {
		return tileRows
	}
	return panelRows
}

// strip is the rows of n blocks that are multiplied with two groups in one go. A set with tiles needs time to set
// them up, as much as a product of two tiles with 4 blocks: so it takes several records, as many as stay in
// the L2 cache beside the weights until the unit's next groups want them.
func (k *kernels) strip(n int) int {
	if !k.tiled() {
		return panelRows
	}
	return min(max(1, stripBytes/(n*tileRecord))*tileRows, stripRows)
}

const stripRows, stripBytes = 8 * tileRows, 640 << 10

// recordBytes is the bytes of a block of a row's activations where it is one of many.
func (k *kernels) recordBytes() int {
	if k.tiled() {
		return tileRecord / tileRows
	}
	return 64
}

// panelBytes is the size of a panel block.
func (k *kernels) panelBytes(p panelKind) int {
	if k.tiled() {
		return p.bytes() + tileWider
	}
	return p.bytes()
}

// multiplyRows is dst (rows, ld) = rows activation rows, at most a strip, times two unpacked groups of n blocks.
func (k *kernels) multiplyRows(p panelKind, dst *float32, ld int, a, b, act *byte, n, rows int, ring *byte) {
	if k.tiled() {
		k.gemmTiles[p](dst, ld, a, b, act, n, (rows+tileRows-1)/tileRows, ring)
		return
	}
	k.gemm[p](dst, ld, a, b, act, n)
}

// at is a view of n values of T that lie off bytes after p.
func at[T any](p *byte, off, n int) []T {
	return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(p), off)), n)
}

func skipBytes(p *byte, n int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(p), n)) }

func floats(p *float32, n int) []float32 { return unsafe.Slice(p, n) }
