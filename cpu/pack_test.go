package cpu

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"drover/internal/quant"
)

// TestPack holds every format's packed group, unpacked by the generic kernels,
// to the format's own meaning, exactly.
func TestPack(t *testing.T) {
	const cols, rows = 512, 13 // a group that is not full
	for _, typ := range quant.Types() {
		k := kindOf(typ)
		size := typ.RowBytes(cols)
		raw := make([]byte, rows*size)
		quant.Random(typ, raw, 7, 0.5)
		group := make([]byte, k.groupBytes(cols))
		newPacker(generic(), typ, cols).group(group, raw, rows)
		want := make([]float32, cols)
		got := make([]float32, cols)
		for r := range groupRows {
			clear(want)
			if r < rows {
				meaning(typ, want, raw[r*size:(r+1)*size])
			}
			unpacked(k, got, group, r)
			for c := range want {
				if got[c] != want[c] {
					t.Fatalf("%v row %d column %d: got %g, want %g", typ, r, c, got[c], want[c])
				}
			}
		}
	}
}

// meaning is a row as float32: scale*q+min, the product rounded.
func meaning(typ quant.Type, dst []float32, row []byte) {
	if kindOf(typ).float() {
		quant.Dequantize(typ, dst, row)
		return
	}
	q, scale, min := make([]int8, len(dst)), make([]float32, len(dst)/16), make([]float32, len(dst)/16)
	quant.Ints(typ, q, scale, min, row)
	for c := range dst {
		dst[c] = float32(scale[c/16]*float32(q[c])) + min[c/16]
	}
}

// TestExponents holds every set's scales of MXFP4 to the format's own.
func TestExponents(t *testing.T) {
	for _, k := range append(kernelSets(), generic()) {
		for first := 0; first < 256; first += groupRows {
			var raw [groupRows * 17]byte
			var w [272]byte
			panel, at := make([]byte, k.panelBytes(panel32)), k.panelBytes(panel32)-4*groupRows
			var want [blockCols]float32
			for r := range groupRows {
				raw[r*17], raw[r*17+1] = byte(first+r), 1
			}
			newPacker(k, quant.MXFP4, blockCols).group(w[:], raw[:], groupRows)
			k.unpack[kindMXFP4](&panel[0], &w[0], 1)
			for r, got := range floats((*float32)(unsafe.Pointer(&panel[at])), groupRows) {
				if quant.Dequantize(quant.MXFP4, want[:], raw[r*17:][:17]); got != want[0] {
					t.Errorf("%s: scale of exponent %d is %g, want %g", k.isa, first+r, got, want[0])
				}
			}
		}
	}
}

// TestPackSets holds every set's packed groups to those of packer.group, bit for
// bit, over numbers of rows and columns, where memory ends behind both.
func TestPackSets(t *testing.T) {
	const seed = 31
	r := rand.New(rand.NewPCG(seed, 0))
	for _, k := range kernelSets() {
		for _, typ := range quant.Types() {
			kd, step := kindOf(typ), max(1, typ.BlockElems())
			if kd < kindI8 && k.pack[kd] == nil && k.isa != "generic" {
				t.Errorf("%s %v: packed by Go alone", k.isa, typ)
			}
			for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 11, 16, 24, 37} {
				cols := n * step
				if cols%blockCols != 0 && !kd.float() {
					cols = pad(cols, blockCols)
				}
				for _, rows := range []int{groupRows, 1, 5, 15} {
					if rows < groupRows && n != 3 && n != 8 {
						continue
					}
					raw := guarded(t, rows*typ.RowBytes(cols))
					for i := range raw {
						raw[i] = byte(r.Uint32())
					}
					if kd >= kindI8 { // some of these want their scales finite
						quant.Random(typ, raw, r.Uint64(), 1)
					}
					got, want := guarded(t, kd.groupBytes(cols)), make([]byte, kd.groupBytes(cols))
					newPacker(k, typ, cols).group(got, raw, rows)
					newPacker(generic(), typ, cols).group(want, raw, rows)
					if !bytes.Equal(got, want) {
						t.Fatalf("%s %v: %d rows of %d columns differ from packer.group's", k.isa, typ, rows, cols)
					}
				}
			}
		}
	}
}

// unpacked is row r of a packed group as float32.
func unpacked(k kind, dst []float32, group []byte, r int) {
	if k.float() {
		var col [16]float32
		for c := range dst {
			floatColumn(k, &col, &group[0], c)
			dst[c] = col[r]
		}
		return
	}
	var p panelBlock
	n := len(dst) / blockCols
	for b := range n {
		p.load(k, &group[0], b)
		for c := range blockCols {
			h := 0
			if k.panel() == panel16 || k.panel() == panel16M {
				h = c / 16
			}
			q := float32(p.u[c/4*64+r*4+c%4])
			var m float32
			switch k.panel() {
			case panel32, panel16:
				q -= 128
			case panel32M:
				m = p.min[0][r]
			default:
				m = p.min[h][r]
			}
			dst[b*blockCols+c] = float32(p.scale[h][r]*q) + m
		}
	}
}
