package cpu

import (
	"fmt"
	"math"
	"testing"

	"drover/internal/quant"
)

// TestStrips: a matrix in strips gives the same bits as one whose groups lie one after the other, for one row, a few and
// many, of any expert. Three groups: the last has no other beside it, and lacks rows.
func TestStrips(t *testing.T) {
	const rows, cols, experts, most = 2*groupRows + 11, (stripBlocks + 24) * blockCols, 2, 70
	for _, k := range kernelSets() {
		for kd := kindF32; kd < kinds; kd++ {
			t.Run(fmt.Sprintf("%s/%v", k.isa, kd), func(t *testing.T) {
				typ := typeOf[kd]
				raw := make([]byte, experts*rows*typ.RowBytes(cols))
				quant.Random(typ, raw, uint64(kd), 0.2)
				cut, whole := stripsOf(kd, rows, cols, experts), stripsOf(kd, rows, cols, experts)
				if want := !kd.float() && kd != kindQ8_0 && kd != kindI8; cut.cut() != want {
					t.Fatalf("in strips: %v", cut.cut())
				}
				whole.strip = cols
				if !kd.float() {
					whole.strip /= blockCols
				}
				packAll(k, whole, raw)
				packAll(k, cut, raw)
				for _, n := range []int{1, 2, 5, 8, 9, most} {
					x := values(n * cols)
					for part := range experts {
						got, want := stripsTimes(k, cut, part, x, n), stripsTimes(k, whole, part, x, n)
						for i, v := range got {
							if math.Float32bits(v) != math.Float32bits(want[i]) {
								t.Fatalf("%d rows, part %d: element %d is %g, in whole groups %g", n, part, i, v, want[i])
							}
						}
					}
				}
			})
		}
	}
}

func stripsOf(kd kind, rows, cols, parts int) *matrix {
	m := &matrix{kind: kd, rows: rows, cols: cols, groups: pad(rows, groupRows) / groupRows, parts: parts, stride: kd.groupBytes(cols)}
	m.data = make([]byte, m.parts*m.groups*m.stride)
	m.strip = m.stripOf()
	return m
}

func packAll(k *kernels, m *matrix, raw []byte) {
	p := newPacker(k, typeOf[m.kind], m.cols)
	size := typeOf[m.kind].RowBytes(m.cols)
	for part := range m.parts {
		m.pack(p, part, 0, m.groups, raw[part*m.rows*size:])
	}
}

// stripsTimes is the products of n rows of x with a part of m by two workers.
func stripsTimes(k *kernels, m *matrix, part int, x []float32, n int) []float32 {
	const workers = 2
	r := pad(n, panelsRows)
	s := &stage{k: k, pool: newPool(workers, places{}), act: make([]byte, (r+fewRows)*m.cols/blockCols*tileRecord/tileRows), actFloat: make([]float32, r*m.cols)}
	defer s.pool.close()
	for range workers {
		s.panels = append(s.panels, make([]byte, panelGroups*m.cols*4*groupRows))
		s.tiles = append(s.tiles, make([]float32, 2*tileSize+tileRing/4))
	}
	s.products.next = make([]counter, workers)
	s.tasks.prep, s.tasks.multiply, s.tasks.claim = s.prepRows, s.multiplyShares, s.claimUnits
	ld := pad(m.rows, 2*groupRows)
	dst := make([]float32, r*ld)
	s.input(input{x: x, ld: m.cols, cols: m.cols, rows: n}, m)
	s.multiply(nil, product{m: m, part: part, dst: dst, ld: ld})
	out := make([]float32, 0, n*m.rows)
	for i := range n {
		out = append(out, dst[i*ld:i*ld+m.rows]...)
	}
	return out
}
