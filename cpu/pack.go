package cpu

import (
	"encoding/binary"
	"fmt"

	"drover/internal/quant"
)

// kindOf is the packed layout of a weight format.
func kindOf(t quant.Type) kind {
	switch t {
	case quant.F32:
		return kindF32
	case quant.F16:
		return kindF16
	case quant.BF16:
		return kindBF16
	case quant.Q8_0:
		return kindQ8_0
	case quant.Q4_0:
		return kindQ4_0
	case quant.Q4_1:
		return kindQ4_1
	case quant.Q5_0:
		return kindQ5_0
	case quant.Q5_1:
		return kindQ5_1
	case quant.Q2_K:
		return kindQ2_K
	case quant.Q3_K:
		return kindQ3_K
	case quant.Q4_K:
		return kindQ4_K
	case quant.Q5_K:
		return kindQ5_K
	case quant.Q6_K:
		return kindQ6_K
	case quant.IQ4_NL:
		return kindIQ4_NL
	case quant.IQ4_XS:
		return kindIQ4_XS
	case quant.MXFP4:
		return kindMXFP4
	}
	return kindI8
}

// packer turns rows of a file's blocks into packed groups.
type packer struct {
	k    *kernels
	t    quant.Type
	kind kind
	cols int
	// one row of integers, for formats without a layout of their own
	q     []int8
	scale []float32
}

func newPacker(k *kernels, t quant.Type, cols int) *packer {
	p := &packer{k: k, t: t, kind: kindOf(t), cols: cols}
	if p.kind == kindI8 {
		p.q, p.scale = make([]int8, cols), make([]float32, cols/16)
	}
	return p
}

// packCols: a set's pack takes multiples of so many columns.
const packCols = 8

// group packs up to 16 rows of src (rows contiguous) into dst, which is zero
// where a group has fewer rows or ends in padding.
func (p *packer) group(dst, src []byte, rows int) { p.columns(dst, src, rows, 0, p.cols) }

// columns packs n of the rows' columns from one on, both at whole blocks of the file's.
func (p *packer) columns(dst, src []byte, rows, from, n int) {
	size, first := p.t.RowBytes(p.cols), p.t.RowBytes(from)
	if pack := p.k.pack[p.kind]; pack != nil && rows == groupRows && n%packCols == 0 {
		pack(&dst[0], &src[first], size, n)
		return
	}
	some := *p
	some.cols = n
	for r := range rows {
		some.row(dst, src[r*size+first:][:p.t.RowBytes(n)], r)
	}
}

// row packs a row into place r of a group.
func (p *packer) row(dst, row []byte, r int) {
	switch p.kind {
	case kindF32:
		for c := range p.cols {
			copy(dst[c*64+r*4:c*64+r*4+4], row[c*4:])
		}
	case kindF16, kindBF16:
		for c := range p.cols {
			dst[c*32+r*2], dst[c*32+r*2+1] = row[c*2], row[c*2+1]
		}
	case kindQ8_0:
		p.q8(dst, row, r)
	case kindQ4_0, kindIQ4_NL, kindQ4_1, kindQ5_0, kindQ5_1:
		p.legacy(dst, row, r)
	case kindMXFP4:
		p.mxfp4(dst, row, r)
	case kindQ2_K:
		p.q2k(dst, row, r)
	case kindQ3_K:
		p.q3k(dst, row, r)
	case kindQ4_K, kindQ5_K:
		p.super(dst, row, r)
	case kindQ6_K:
		p.q6k(dst, row, r)
	case kindIQ4_XS:
		p.iq4xs(dst, row, r)
	case kindI8:
		p.ints(dst, row, r)
	default:
		panic(fmt.Sprintf("BUG: packing kind %d", p.kind))
	}
}

var le = binary.LittleEndian

func (p *packer) q8(dst, row []byte, r int) {
	n := p.cols / blockCols
	for b := range n {
		src, v := row[b*34:b*34+34], dst[b*544:b*544+544]
		for j := range 8 {
			le.PutUint32(v[j*64+r*4:], le.Uint32(src[2+j*4:])^0x80808080)
		}
		copy(v[512+r*2:], src[:2])
	}
}

// legacy packs Q4_0, IQ4_NL (d, nibbles), Q4_1 (d, m, nibbles), Q5_0 (d, fifth
// bits, nibbles) and Q5_1 (d, m, fifth bits, nibbles).
func (p *packer) legacy(dst, row []byte, r int) {
	n, size := p.cols/blockCols, p.t.BlockBytes()
	mins := p.kind == kindQ4_1 || p.kind == kindQ5_1
	five := p.kind == kindQ5_0 || p.kind == kindQ5_1
	vec, head, scales := 256, 2, 32
	if mins {
		head, scales = 4, 64
	}
	if five {
		vec = 320
	}
	for b := range n {
		src, v := row[b*size:b*size+size], dst[b*(vec+scales):(b+1)*(vec+scales)]
		nib := src[size-16:]
		for j := range 4 {
			le.PutUint32(v[j*64+r*4:], le.Uint32(nib[j*4:]))
		}
		if five {
			le.PutUint32(v[256+r*4:], spreadFifth(le.Uint32(src[head:])))
		}
		copy(v[vec+r*2:], src[:2])
		if mins {
			copy(v[vec+32+r*2:], src[2:4])
		}
	}
}

// spreadFifth moves bit 4j+b to bit 8b+j.
func spreadFifth(h uint32) (v uint32) {
	for j := range 8 {
		x := h >> (4 * j) & 15
		v |= (x&1 | x&2<<7 | x&4<<14 | x&8<<21) << j
	}
	return v
}

func (p *packer) mxfp4(dst, row []byte, r int) {
	for b := range p.cols / blockCols {
		src, v := row[b*17:b*17+17], dst[b*272:b*272+272]
		for j := range 4 {
			le.PutUint32(v[j*64+r*4:], le.Uint32(src[1+j*4:]))
		}
		v[256+r] = src[0]
	}
}

func (p *packer) q2k(dst, row []byte, r int) {
	const head, block = 64, 128 + 32
	for s := range p.cols / blockCols / 8 {
		src := row[s*84 : s*84+84]
		to := dst[s*(head+8*block) : (s+1)*(head+8*block)]
		copy(to[r*2:], src[80:82])
		copy(to[32+r*2:], src[82:])
		for b := range 8 {
			v := to[head+b*block:]
			twoBits(v, src[16:], b, r)
			v[128+r], v[144+r] = src[2*b], src[2*b+1]
		}
	}
}

func (p *packer) q3k(dst, row []byte, r int) {
	const head, block = 32, 192 + 32
	for s := range p.cols / blockCols / 8 {
		src := row[s*110 : s*110+110]
		to := dst[s*(head+8*block) : (s+1)*(head+8*block)]
		copy(to[r*2:], src[108:])
		low := src[96:]
		for b := range 8 {
			v := to[head+b*block:]
			twoBits(v, src[32:], b, r)
			le.PutUint32(v[128+r*4:], oneBit(src, b))
			for h := range 2 {
				i := 2*b + h
				v[192+h*16+r] = (low[i%8]>>(i/8*4)&15 | low[8+i%4]>>(i/4*2)&3<<4) - 32
			}
		}
	}
}

// twoBits packs the 2 bits of block b's columns into row r of two vectors. They
// are bits 2(b%4) of 32 bytes.
func twoBits(to, src []byte, b, r int) {
	src = src[b/4*32:]
	for h := range 2 {
		var bits uint32
		for i := range 4 {
			bits |= le.Uint32(src[(h*4+i)*4:]) >> (b % 4 * 2) & 0x03030303 << (2 * i)
		}
		le.PutUint32(to[h*64+r*4:], bits)
	}
}

// oneBit is a dword of a vector of block b's bits. They are bits b of 32 bytes.
func oneBit(src []byte, b int) (bits uint32) {
	for j := range 8 {
		bits |= le.Uint32(src[j*4:]) >> b & 0x01010101 << j
	}
	return bits
}

// super packs Q4_K and Q5_K superblocks.
func (p *packer) super(dst, row []byte, r int) {
	n, size := p.cols/blockCols, p.t.BlockBytes()
	vec := 256
	if p.kind == kindQ5_K {
		vec = 320
	}
	for s := range n / 8 {
		src := row[s*size : s*size+size]
		head := dst[s*(64+8*(vec+32)) : (s+1)*(64+8*(vec+32))]
		copy(head[r*2:], src[:2])
		copy(head[32+r*2:], src[2:4])
		q := src[size-128:]
		for b := range 8 {
			v := head[64+b*(vec+32) : 64+(b+1)*(vec+32)]
			v[vec+r], v[vec+16+r] = sixBits(src[4:16], b)
			c, shift := q[b/2*32:b/2*32+32], b%2*4
			for j := range 4 {
				lo, hi := le.Uint32(c[j*4:])>>shift, le.Uint32(c[16+j*4:])>>shift
				le.PutUint32(v[j*64+r*4:], lo&0x0f0f0f0f|hi&0x0f0f0f0f<<4)
			}
			if vec == 320 {
				le.PutUint32(v[256+r*4:], oneBit(src[16:], b))
			}
		}
	}
}

// sixBits is scale and min b of the 12 bytes of a Q4_K or Q5_K superblock.
func sixBits(s []byte, b int) (scale, min byte) {
	if b < 4 {
		return s[b] & 63, s[b+4] & 63
	}
	return s[b+4]&15 | s[b-4]>>6<<4, s[b+4]>>4 | s[b]>>6<<4
}

func (p *packer) q6k(dst, row []byte, r int) {
	n := p.cols / blockCols
	for s := range n / 8 {
		src := row[s*210 : s*210+210]
		head := dst[s*(32+8*416) : (s+1)*(32+8*416)]
		copy(head[r*2:], src[208:])
		for b := range 8 {
			v := head[32+b*416 : 32+(b+1)*416]
			v[384+r], v[400+r] = src[192+2*b], src[193+2*b]
			half, quarter := b/4, b%4
			lo := src[half*64+quarter%2*32:]
			shift := quarter / 2 * 4
			for j := range 4 {
				x, y := le.Uint32(lo[j*4:])>>shift, le.Uint32(lo[16+j*4:])>>shift
				le.PutUint32(v[j*64+r*4:], x&0x0f0f0f0f|y&0x0f0f0f0f<<4)
			}
			twoBits(v[256:], src[128:], b, r)
		}
	}
}

func (p *packer) iq4xs(dst, row []byte, r int) {
	const head, block = 32, 256 + 16
	for s := range p.cols / blockCols / 8 {
		src := row[s*136 : s*136+136]
		to := dst[s*(head+8*block) : (s+1)*(head+8*block)]
		copy(to[r*2:], src[:2])
		high := le.Uint16(src[2:])
		for b := range 8 {
			to[head+b*block+256+r] = (src[4+b/2]>>(b%2*4)&15 | byte(high>>(2*b))&3<<4) - 32
			for j := range 4 {
				le.PutUint32(to[head+b*block+j*64+r*4:], le.Uint32(src[8+b*16+j*4:]))
			}
		}
	}
}

// ints packs every other format as panel blocks.
func (p *packer) ints(dst, row []byte, r int) {
	size := panel16.bytes()
	quant.Ints(p.t, p.q, p.scale, nil, row)
	for b := range p.cols / blockCols {
		v := dst[b*size : (b+1)*size]
		for c, q := range p.q[b*32 : b*32+32] {
			v[c/4*64+r*4+c%4] = byte(q) ^ 0x80
		}
		f := at[float32](&v[512], 0, (size-512)/4)
		f[r], f[16+r] = p.scale[2*b], p.scale[2*b+1]
	}
}
