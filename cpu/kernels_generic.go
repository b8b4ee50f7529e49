package cpu

import (
	"math"
	"slices"
	"unsafe"

	"drover/internal/quant"
)

// This file is the definition of every kernel but attention's, in plain Go. float32(x*y)
// forbids the compiler to fuse, so that one row and six give the same bits.

// iq4nl is the table of IQ4_NL's values.
var iq4nl = [16]int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// e2m1 is twice the values of the FP4 format E2M1.
var e2m1 = [16]int8{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// panelBlock is an unpacked block of one group.
type panelBlock struct {
	u     [512]byte      // vector order, unsigned
	scale [2][16]float32 // of columns 0-15 and 16-31
	min   [2][16]float32
}

// nibbles unpacks 4 vectors of nibbles.
func (p *panelBlock) nibbles(w []byte) {
	w = w[:256]
	for i, v := range w {
		p.u[i], p.u[256+i] = v&15, v>>4
	}
}

// one adds bit at of the weights from a vector.
func (p *panelBlock) one(w []byte, at int) {
	for j := range 8 {
		for i, v := range w[:64] {
			p.u[j*64+i] |= v >> j & 1 << at
		}
	}
}

// two adds bits at and at+1 of the weights from two vectors.
func (p *panelBlock) two(w []byte, at int) {
	for j := range 8 {
		for i, v := range w[j/4*64 : j/4*64+64] {
			p.u[j*64+i] |= v >> (j % 4 * 2) & 3 << at
		}
	}
}

// lookUp replaces indices of a table by its values plus 128.
func (p *panelBlock) lookUp(table *[16]int8) {
	for i, q := range p.u {
		p.u[i] = byte(table[q]) ^ 0x80
	}
}

func (p *panelBlock) bias(b byte) {
	for i := range p.u {
		p.u[i] += b
	}
}

func halves(p []byte, r int) float32 { return quant.F16ToF32(uint16(p[2*r]) | uint16(p[2*r+1])<<8) }

// load unpacks block b of a packed group.
func (p *panelBlock) load(k kind, w *byte, b int) {
	switch k {
	case kindQ8_0:
		v := at[byte](w, b*544, 544)
		copy(p.u[:], v)
		p.scales(v[512:], nil)
	case kindQ4_0:
		v := at[byte](w, b*288, 288)
		p.nibbles(v)
		p.bias(128 - 8)
		p.scales(v[256:], nil)
	case kindIQ4_NL:
		v := at[byte](w, b*288, 288)
		p.nibbles(v)
		p.lookUp(&iq4nl)
		p.scales(v[256:], nil)
	case kindMXFP4:
		v := at[byte](w, b*272, 272)
		p.nibbles(v)
		p.lookUp(&e2m1)
		for r, e := range v[256:] {
			p.scale[0][r] = float32(math.Ldexp(1, int(e)-128))
		}
	case kindQ4_1:
		v := at[byte](w, b*320, 320)
		p.nibbles(v)
		p.scales(v[256:], v[288:])
	case kindQ5_0:
		v := at[byte](w, b*352, 352)
		p.nibbles(v)
		p.one(v[256:], 4)
		p.bias(128 - 16)
		p.scales(v[320:], nil)
	case kindQ5_1:
		v := at[byte](w, b*384, 384)
		p.nibbles(v)
		p.one(v[256:], 4)
		p.scales(v[320:], v[352:])
	case kindQ2_K:
		s := at[byte](w, b/8*1344, 1344)
		v := s[64+b%8*160:]
		clear(p.u[:])
		p.two(v, 0)
		for r := range groupRows {
			d, dmin := halves(s, r), halves(s[32:], r)
			for h := range 2 {
				both := v[128+h*16+r]
				p.scale[h][r], p.min[h][r] = d*float32(both&15), -(dmin * float32(both>>4))
			}
		}
	case kindQ3_K:
		s := at[byte](w, b/8*1824, 1824)
		v := s[32+b%8*224:]
		clear(p.u[:])
		p.two(v, 0)
		p.one(v[128:], 2)
		p.bias(128 - 4)
		p.signedScales(s, v[192:], 2)
	case kindQ4_K:
		s := at[byte](w, b/8*2368, 2368)
		v := s[64+b%8*288:]
		p.nibbles(v)
		p.superScales(s, v[256:])
	case kindQ5_K:
		s := at[byte](w, b/8*2880, 2880)
		v := s[64+b%8*352:]
		p.nibbles(v)
		p.one(v[256:], 4)
		p.superScales(s, v[320:])
	case kindQ6_K:
		s := at[byte](w, b/8*3360, 3360)
		v := s[32+b%8*416:]
		p.nibbles(v)
		p.two(v[256:], 4)
		p.bias(128 - 32)
		p.signedScales(s, v[384:], 2)
	case kindIQ4_XS:
		s := at[byte](w, b/8*2208, 2208)
		v := s[32+b%8*272:]
		p.nibbles(v)
		p.lookUp(&iq4nl)
		p.signedScales(s, v[256:], 1)
	case kindI8:
		p.loadPanel(panel16, at[byte](w, b*640, 640))
	}
}

func (p *panelBlock) scales(d, m []byte) {
	for r := range groupRows {
		p.scale[0][r] = halves(d, r)
		if m != nil {
			p.min[0][r] = halves(m, r)
		}
	}
}

// superScales loads a block's scales and mins, s, those of a superblock before.
func (p *panelBlock) superScales(head, s []byte) {
	for r := range groupRows {
		p.scale[0][r] = halves(head, r) * float32(s[r])
		p.min[0][r] = -(halves(head[32:], r) * float32(s[16+r]))
	}
}

// signedScales loads count scales of each row.
func (p *panelBlock) signedScales(head, s []byte, count int) {
	for r := range groupRows {
		d := halves(head, r)
		for h := range count {
			p.scale[h][r] = d * float32(int8(s[h*16+r]))
		}
	}
}

func (p *panelBlock) loadPanel(k panelKind, src []byte) {
	copy(p.u[:], src)
	f := at[float32](&src[512], 0, (len(src)-512)/4)
	copy(p.scale[0][:], f)
	switch k {
	case panel32M:
		copy(p.min[0][:], f[16:])
	case panel16:
		copy(p.scale[1][:], f[16:])
	case panel16M:
		copy(p.scale[1][:], f[16:])
		copy(p.min[0][:], f[32:])
		copy(p.min[1][:], f[48:])
	}
}

func (p *panelBlock) storePanel(k panelKind, dst []byte) {
	copy(dst, p.u[:])
	f := at[float32](&dst[512], 0, (len(dst)-512)/4)
	copy(f, p.scale[0][:])
	switch k {
	case panel32M:
		copy(f[16:], p.min[0][:])
	case panel16:
		copy(f[16:], p.scale[1][:])
	case panel16M:
		copy(f[16:], p.scale[1][:])
		copy(f[32:], p.min[0][:])
		copy(f[48:], p.min[1][:])
	}
}

// dot adds one block to the accumulators of 16 rows for activation row t of T.
func (p *panelBlock) dot(k panelKind, acc *[16]float32, rec *byte, T, t int) {
	q := at[[4]int8](rec, 0, 8*T)
	i := at[int32](rec, 0, 16*T)
	f := at[float32](rec, 0, 16*T)
	scale := f[11*T+t]
	var lo, hi [16]int32
	for j := range 8 {
		a, sum := q[j*T+t], &lo
		if j >= 4 {
			sum = &hi
		}
		u := p.u[j*64 : j*64+64]
		for r := range sum {
			sum[r] += int32(u[r*4])*int32(a[0]) + int32(u[r*4+1])*int32(a[1]) + int32(u[r*4+2])*int32(a[2]) + int32(u[r*4+3])*int32(a[3])
		}
	}
	for r, a := range acc {
		switch k {
		case panel32:
			a += float32(float32(lo[r]+hi[r]+i[8*T+t]) * (p.scale[0][r] * scale))
		case panel32M:
			a += float32(float32(lo[r]+hi[r]) * (p.scale[0][r] * scale))
			a += float32(p.min[0][r] * f[12*T+t])
		case panel16:
			a += float32(float32(lo[r]+i[9*T+t]) * (p.scale[0][r] * scale))
			a += float32(float32(hi[r]+i[10*T+t]) * (p.scale[1][r] * scale))
		case panel16M:
			a += float32(float32(lo[r]) * (p.scale[0][r] * scale))
			a += float32(float32(hi[r]) * (p.scale[1][r] * scale))
			a += float32(p.min[0][r] * f[13*T+t])
			a += float32(p.min[1][r] * f[14*T+t])
		}
		acc[r] = a
	}
}

func gemvGeneric(k kind, dst *float32, w, act *byte, n, groups, stride int) {
	var p panelBlock
	for g := range groups {
		acc := (*[groupRows]float32)(floats(dst, (g+1)*groupRows)[g*groupRows:])
		for b := range n {
			p.load(k, (*byte)(unsafe.Add(unsafe.Pointer(w), g*stride)), b)
			p.dot(k.panel(), acc, (*byte)(unsafe.Add(unsafe.Pointer(act), b*64)), 1, 0)
		}
	}
}

func gemmGeneric(k panelKind, dst *float32, ld int, a, b, act *byte, n int) {
	var p panelBlock
	for h, w := range [2]*byte{a, b} {
		var acc [panelRows][16]float32
		for i := range n {
			p.loadPanel(k, at[byte](w, i*k.bytes(), k.bytes()))
			for t := range panelRows {
				p.dot(k, &acc[t], (*byte)(unsafe.Add(unsafe.Pointer(act), i*64*panelRows)), panelRows, t)
			}
		}
		for t := range panelRows {
			copy(floats(dst, t*ld+32)[t*ld+h*16:], acc[t][:])
		}
	}
}

// gemmTilesGeneric is gemmGeneric of panels and records for tiles.
func gemmTilesGeneric(k panelKind, dst *float32, ld int, a, b, act *byte, n, records int, _ *byte) {
	size := k.bytes() + tileWider
	var u [blockCols][groupRows]float32 // in the order of words
	for rec := range records {
		for h, w := range [2]*byte{a, b} {
			var acc [tileRows][groupRows]float32
			for i := range n {
				for c, v := range at[uint16](w, i*size, 512) {
					u[c/32*2+c%2][c%32/2] = quant.BF16ToF32(v)
				}
				s := at[float32](w, i*size+1024, (size-1024)/4)
				block := (rec*n + i) * tileRecord
				f := at[float32](act, block+64*tileRows, 4*tileRows)
				for t := range acc {
					var lo, hi [groupRows]float32
					for c, q := range at[uint16](act, block+64*t, blockCols) {
						sum, x := &lo, quant.BF16ToF32(q)
						if c >= blockCols/2 {
							sum = &hi
						}
						for r, w := range u[c] {
							sum[r] += x * w
						}
					}
					for r := range lo {
						acc[t][r] = addBlock(k, acc[t][r], lo[r], hi[r], s[r:], f[t:])
					}
				}
			}
			for t := range acc {
				at := (rec*tileRows + t) * ld
				copy(floats(dst, at+32)[at+h*groupRows:], acc[t][:])
			}
		}
	}
}

// addBlock adds the sums of a block's halves to a, by scales and mins of a row of weights in s, groupRows apart, and of a
// row of activations in f, tileRows apart.
func addBlock(k panelKind, a, lo, hi float32, s, f []float32) float32 {
	switch k {
	case panel32:
		a += float32((lo + hi) * float32(s[0]*f[0]))
	case panel32M:
		a += float32((lo + hi) * float32(s[0]*f[0]))
		a += float32(s[16] * f[16])
	case panel16:
		a += float32(lo * float32(s[0]*f[0]))
		a += float32(hi * float32(s[16]*f[0]))
	case panel16M:
		a += float32(lo * float32(s[0]*f[0]))
		a += float32(hi * float32(s[16]*f[0]))
		a += float32(s[32] * f[32])
		a += float32(s[48] * f[48])
	}
	return a
}

// tileColumn is the column of a block that is word w of a tile's row.
func tileColumn(w int) int { return w/4*4 + w%4/2 + w%2*2 }

// unpackTilesGeneric is unpackGeneric of panel blocks for tiles.
func unpackTilesGeneric(k kind, panel, w *byte, n int) {
	var p panelBlock
	size := k.panel().bytes()
	block := make([]byte, size)
	bias := 0
	if m := k.panel(); m == panel32 || m == panel16 {
		bias = 128
	}
	for b := range n {
		p.load(k, w, b)
		p.storePanel(k.panel(), block)
		to := at[byte](panel, b*(size+tileWider), size+tileWider)
		words := at[uint16](&to[0], 0, 512)
		for r := range groupRows {
			for c := range blockCols {
				col := tileColumn(c)
				words[c/2*32+2*r+c%2] = quant.F32ToBF16(float32(int(p.u[col/4*64+r*4+col%4]) - bias))
			}
		}
		copy(to[1024:], block[512:])
	}
}

func unpackGeneric(k kind, panel, w *byte, n int) {
	var p panelBlock
	size := k.panel().bytes()
	for b := range n {
		p.load(k, w, b)
		p.storePanel(k.panel(), at[byte](panel, b*size, size))
	}
}

func floatColumn(k kind, dst *[16]float32, w *byte, c int) {
	switch k {
	case kindF32:
		copy(dst[:], at[float32](w, c*64, 16))
	case kindF16:
		for r, h := range at[uint16](w, c*32, 16) {
			dst[r] = quant.F16ToF32(h)
		}
	default:
		for r, h := range at[uint16](w, c*32, 16) {
			dst[r] = quant.BF16ToF32(h)
		}
	}
}

func gemvFloatGeneric(k kind, dst *float32, w, act *byte, n, groups, stride int) {
	x := at[float32](act, 0, n)
	var col [16]float32
	for g := range groups {
		acc := floats(dst, (g+1)*groupRows)[g*groupRows:]
		for c, v := range x {
			floatColumn(k, &col, (*byte)(unsafe.Add(unsafe.Pointer(w), g*stride)), c)
			for r := range acc {
				acc[r] += float32(col[r] * v)
			}
		}
	}
}

func gemmFloatGeneric(k kind, dst *float32, ld int, a, b, act *byte, n int) {
	x := at[float32](act, 0, n*panelRows)
	var col [16]float32
	for h, w := range [2]*byte{a, b} {
		var acc [panelRows][16]float32
		for c := range n {
			floatColumn(k, &col, w, c)
			for t := range panelRows {
				for r := range col {
					acc[t][r] += float32(col[r] * x[c*panelRows+t])
				}
			}
		}
		for t := range panelRows {
			copy(floats(dst, t*ld+32)[t*ld+h*16:], acc[t][:])
		}
	}
}

// tiny is what quantize takes for zero: 127/tiny must not overflow.
const tiny = 0x1p-100

func quantizeGeneric(dst *byte, x *float32, n, T, t, step int) {
	for b := range n {
		v := floats(x, (b+1)*32)[b*32:]
		q := at[int8](dst, b*step, 32*T)
		i := at[int32](dst, b*step, 16*T)
		f := at[float32](dst, b*step, 16*T)
		var most float32
		for _, y := range v {
			most = max(most, y, -y)
		}
		var inv float32
		if most < tiny {
			most = 0
		} else {
			inv = 127 / most
		}
		var lo, hi int32
		for c, y := range v {
			k := int32(math.RoundToEven(float64(y * inv)))
			q[(c/4*T+t)*4+c%4] = int8(k)
			if c < 16 {
				lo += k
			} else {
				hi += k
			}
		}
		scale := most / 127
		i[8*T+t], i[9*T+t], i[10*T+t] = -128*(lo+hi), -128*lo, -128*hi
		f[11*T+t], f[12*T+t], f[13*T+t], f[14*T+t] = scale, scale*float32(lo+hi), scale*float32(lo), scale*float32(hi)
	}
}

// quantizeTilesGeneric is quantizeGeneric of records for tiles.
func quantizeTilesGeneric(dst *byte, x *float32, n, t int) {
	rec := make([]byte, 64)
	for b := range n {
		quantizeGeneric(&rec[0], &floats(x, (b+1)*32)[b*32], 1, 1, 0, 64)
		q, from := at[int8](&rec[0], 0, 32), at[float32](&rec[0], 0, 16)
		to, f := at[uint16](dst, b*tileRecord+t*64, 32), at[float32](dst, b*tileRecord+64*tileRows, 4*tileRows)
		for w := range to {
			to[w] = quant.F32ToBF16(float32(q[tileColumn(w)]))
		}
		for i := range 4 {
			f[i*tileRows+t] = from[11+i]
		}
	}
}

func widenF16Generic(dst *float32, src *byte, n int) {
	out := floats(dst, n)
	for i, h := range at[uint16](src, 0, n) {
		out[i] = quant.F16ToF32(h)
	}
}

func widenBF16Generic(dst *float32, src *byte, n int) {
	out := floats(dst, n)
	for i, h := range at[uint16](src, 0, n) {
		out[i] = math.Float32frombits(uint32(h) << 16)
	}
}

func narrowF16Generic(dst *byte, src *float32, n int) {
	out := at[uint16](dst, 0, n)
	for i, v := range floats(src, n) {
		out[i] = quant.F32ToF16(v)
	}
}

func combineGeneric(dst, x *float32, old, now float32, n int) {
	d := floats(dst, n)
	for i, v := range floats(x, n) {
		d[i] = float32(d[i]*old) + float32(v*now)
	}
}

func rotateGeneric(x, cos, sin *float32, n int) {
	y, s := floats(x, 2*n), floats(sin, n)
	for i, c := range floats(cos, n) {
		u, v := y[2*i], y[2*i+1]
		y[2*i], y[2*i+1] = float32(u*c)-float32(v*s[i]), float32(u*s[i])+float32(v*c)
	}
}

func rotateHalvesGeneric(x, cos, sin *float32, n int) {
	a, b, s := floats(x, n), floats(x, 2*n)[n:], floats(sin, n)
	for i, c := range floats(cos, n) {
		u, v := a[i], b[i]
		a[i], b[i] = float32(u*c)-float32(v*s[i]), float32(u*s[i])+float32(v*c)
	}
}

func softmaxGeneric(parts, x *float32, n, lines int) {
	for l := range lines {
		line := at[float32](bytesOf(x), 4*l*cutRows, n)
		most, sum := slices.Max(line), float32(0)
		for i, v := range line {
			line[i] = float32(math.Exp(float64(v - most)))
			sum += line[i]
		}
		copy(floats(parts, 2*lines)[2*l:], []float32{most, sum})
	}
}

func siluMulGeneric(dst, gate, up *float32, n int) {
	u, d := floats(up, n), floats(dst, n)
	for i, g := range floats(gate, n) {
		d[i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * u[i]
	}
}

func sumSquaresGeneric(x *float32, n int) float32 {
	var s float64
	for _, v := range floats(x, n) {
		s += float64(v) * float64(v)
	}
	return float32(s)
}

func scaleMulGeneric(dst, x, w *float32, scale float32, n int) {
	d, m := floats(dst, n), floats(w, n)
	for i, v := range floats(x, n) {
		d[i] = float32(v*scale) * m[i]
	}
}

func addGeneric(dst, x *float32, n int) {
	d := floats(dst, n)
	for i, v := range floats(x, n) {
		d[i] += v
	}
}
