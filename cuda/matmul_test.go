//go:build linux && cgo

package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"drover/internal/quant"
)

// matmulTolerance is for f32 sums of the products of f16 numbers, which are
// exact: 1e-13 or so. A card's tensor cores cut what they add to a sum: over 4352 columns
// 2.6e-11 in steps of 16 columns and 1.4e-10 in those of 8 (sm_75) on an H200.
func matmulTolerance() float64 {
	if onCard() {
		return 5e-10
	}
	return 1e-11
}

// a16 is a row as products for prompts take it: f16 or bf16 in the order of
// slots, the scale, and the values that it stands for.
func a16(x []float32, kpad int, bf16 bool) (half []uint16, scale float32, rounded []float64) {
	half, rounded, scale = make([]uint16, kpad), make([]float64, len(x)), 1
	var most float64
	for _, v := range x {
		most = max(most, math.Abs(float64(v)))
	}
	if most > 0 && !bf16 {
		_, e := math.Frexp(most) // most is in [2^(e-1), 2^e)
		scale = float32(math.Ldexp(1, e-8))
	}
	for k, v := range x {
		h := quant.F32ToF16(v / scale)
		rounded[k] = float64(quant.F16ToF32(h)) * float64(scale)
		if bf16 {
			h = quant.F32ToBF16(v)
			rounded[k] = float64(quant.BF16ToF32(h))
		}
		// columns 4t, 4t+2, 4t+1, 4t+3 of 16 are slots 2t, 2t+1, 2t+8, 2t+9
		t, i := k%16/4, k%4
		half[k/16*16+2*t+i/2+i%2*8] = h
	}
	return half, scale, rounded
}

// promptInput is rows of activations on the device.
type promptInput struct {
	x           [][]float64
	half, scale uint64
	kpad        int
}

func (c *weightCard) promptInput(rows, cols int, seed uint64) promptInput {
	c.t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	in := promptInput{kpad: pad(cols, 256)}
	var halves []uint16
	var scales []float32
	for row := range rows {
		x := make([]float32, cols)
		for i := range x {
			if row != 3 {
				x[i] = float32(r.NormFloat64() * math.Ldexp(1, row%5-2))
			}
		}
		half, scale, rounded := a16(x, in.kpad, c.f.name == "bf16")
		halves, scales, in.x = append(halves, half...), append(scales, scale), append(in.x, rounded)
	}
	in.half, in.scale = upload(c, halves), upload(c, scales)
	if c.f.name == "bf16" {
		in.scale = 0
	}
	return in
}

func (in *promptInput) product(cols, n int) Product {
	return Product{Matrices: 1, Cols: int32(cols), N: int32(n), KPad: int32(in.kpad), Half: in.half, Scale: in.scale}
}

// asHalves is what the kernel makes of packed weights: f16(f16(scale)*q), or with
// a min f16(f16(scale)*q + f16(min)).
func (c *weightCard) asHalves(typ quant.Type, m *packedMatrix, seed uint64) {
	if typ.BlockElems() < 16 {
		return
	}
	n := len(m.w)
	raw := make([]byte, n/typ.BlockElems()*typ.BlockBytes())
	quant.Random(typ, raw, seed, 0.5) // as random does
	q, scale, min := make([]int8, n), make([]float32, n/16), make([]float32, n/16)
	quant.Ints(typ, q, scale, min, raw)
	half := func(v float32) float32 { return quant.F16ToF32(quant.F32ToF16(v)) }
	for i, v := range q {
		m.w[i] = half(float32(float64(half(scale[i/16]))*float64(v) + float64(half(min[i/16]))))
	}
}

// matmul runs one launch for the matrices and gives (n, rows) of each.
func (c *weightCard) matmul(w width, tier int, p Product, ms []packedMatrix, bias uint64, before float32) [][]float32 {
	c.t.Helper()
	p.Matrices = int32(len(ms))
	var rows []int
	for i, m := range ms {
		y := slices.Repeat([]float32{before}, int(p.N)*m.rows)
		p.M[i] = Matrix{W: m.at, Y: upload(c, y), Rows: int32(m.rows), LdY: int32(m.rows)}
		if i == 0 {
			p.M[i].Bias = bias
		}
		rows = append(rows, m.rows)
	}
	c.launchMatmul(w, tier, w.launch(rows, int(p.N), 1), &p)
	var got [][]float32
	for i, m := range ms {
		got = append(got, download[float32](c, p.M[i].Y, int(p.N)*m.rows))
	}
	return got
}

func (c *weightCard) launchMatmul(w width, tier int, l launch, p *Product) {
	c.t.Helper()
	k, err := c.prompt.kernel(c.f.matmulKernel(w))
	c.check(err)
	shared := c.f.shared(w, tier)
	c.check(k.allowShared(int(shared)))
	c.check(c.s.launch(k, l.grid, l.block, shared, unsafe.Pointer(p)))
	c.check(c.s.sync())
}

// eachWidth runs test for every launch of every format that has products for
// prompts, with the kernels of each tier that has its own.
func eachWidth(t *testing.T, test func(c *weightCard, typ quant.Type, tier int, widths []width)) {
	eachFormat(t, func(c *weightCard, typ quant.Type) {
		for _, isa := range []string{"sm_80", "sm_75", "sm_90a"} {
			tier := tierNumber(isa)
			if !c.f.multiplies(tier) {
				continue
			}
			if tier == warpgroupTier {
				all := cards(t, 90)
				if len(all) == 0 {
					continue // a real machine's
				}
				c = newWeightCard(t, all[0], c.f)
			}
			text, err := ptx(c.f.promptModule(), isa)
			c.check(err)
			c.prompt, err = c.d.module(text)
			c.check(err)
			test(c, typ, tier, c.f.widths(tier))
			c.check(c.prompt.close())
		}
	})
}

// Products of many columns and three matrices are right, and every width and
// every place of a column in the batch gives the same bits.
func TestMatmul(t *testing.T) {
	eachWidth(t, func(c *weightCard, typ quant.Type, tier int, widths []width) {
		for i, s := range weightShapes(typ) {
			rows, cols, n := s[0], s[1], []int{70, 9}[i]
			ms := []packedMatrix{c.random(typ, rows, cols, 1, 10), c.random(typ, 16, cols, 1, 20), c.random(typ, 152, cols, 1, 30)}
			for j := range ms {
				c.asHalves(typ, &ms[j], uint64(10+10*j))
			}
			in := c.promptInput(n, cols, uint64(i))
			bias := make([]float32, rows)
			for j := range bias {
				bias[j] = float32(j) - 7.5
			}
			biasAt := upload(c, bias)
			var first [][]float32
			for _, w := range widths {
				p := in.product(cols, n)
				got := c.matmul(w, tier, p, ms, biasAt, 3)
				if first == nil {
					first = got
					c.right(typ, w, ms, in, bias, got)
				}
				for j := range ms {
					if !slices.Equal(got[j], first[j]) {
						c.t.Fatalf("%v: %v of matrix %d differs from %v", typ, w, j, widths[0])
					}
				}
				const from = 5
				p = in.product(cols, n-from)
				p.Half += uint64(2 * from * in.kpad)
				if p.Scale != 0 {
					p.Scale += 4 * from
				}
				for j, got := range c.matmul(w, tier, p, ms, biasAt, 3) {
					if !slices.Equal(got, first[j][from*ms[j].rows:]) {
						c.t.Fatalf("%v: %v of matrix %d: columns differ elsewhere in the batch", typ, w, j)
					}
				}
				p = in.product(cols, n)
				p.Add = 1
				for j, got := range c.matmul(w, tier, p, ms, biasAt, 3) {
					for r := range got {
						if got[r] != 3+first[j][r] {
							c.t.Fatalf("%v: %v of matrix %d: %v added to 3 is %v", typ, w, j, first[j][r], got[r])
						}
					}
				}
			}
		}
	})
}

// right compares results with the definition.
func (c *weightCard) right(typ quant.Type, w width, ms []packedMatrix, in promptInput, bias []float32, got [][]float32) {
	c.t.Helper()
	for j, m := range ms {
		var want []float64
		for _, x := range in.x {
			for r := range m.rows {
				v := m.times(r, x)
				if j == 0 {
					v += float64(bias[r])
				}
				want = append(want, v)
			}
		}
		if e := errorOf(got[j], want); !(e <= matmulTolerance()) {
			c.t.Fatalf("%v (%d, %d) by %v, matrix %d: NMSE %.1e: %v, want %v", typ, m.rows, m.cols, w, j, e, got[j][:4], want[:4])
		}
	}
}

// Experts: the slots of each active expert get its product, from the row's input
// or the slot's own, in columns of more than one block.
func TestMatmulExperts(t *testing.T) {
	const experts, used, n = 5, 2, 40
	var chosen [][]int32
	for row := range int32(n) {
		chosen = append(chosen, []int32{4, row % 2 * (1 + row%3)}) // expert 4 has every row
	}
	eachWidth(t, func(c *weightCard, typ quant.Type, tier int, widths []width) {
		s := weightShapes(typ)[0]
		rows, cols := s[0], s[1]
		m := c.random(typ, rows, cols, experts, 5)
		c.asHalves(typ, &m, 5)
		list, active := expertList(chosen, experts)
		at := upload(c, list)
		for share := range 2 {
			in := c.promptInput(n*used, cols, 9)
			want := m.ofExperts(chosen, share, rows, in.x)
			var first []float32
			for _, w := range widths {
				p := in.product(cols, n)
				p.Experts, p.Share, p.Total = at, int32(share), experts
				p.M[0] = Matrix{W: m.at, Y: upload(c, make([]float32, n*used*rows)), Rows: int32(rows), LdY: int32(rows), Stride: c.f.packedBytes(rows, cols)}
				c.launchMatmul(w, tier, w.launch([]int{rows}, n, min(experts, n*used)), &p)
				got := download[float32](c, p.M[0].Y, n*used*rows)
				if e := errorOf(got, want); !(e <= matmulTolerance()) {
					c.t.Fatalf("%v by %v, share %d, %d experts: NMSE %.1e", typ, w, share, active, e)
				}
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					c.t.Fatalf("%v: %v differs from %v", typ, w, widths[0])
				}
			}
		}
	})
}

// The launch that is chosen covers all rows and columns, and fits the card.
func TestMatmulLaunch(t *testing.T) {
	f := formatOf(quant.Q4_0)
	for _, n := range []int{9, 16, 33, 100, 512, 4096} {
		for _, rows := range [][]int{{17}, {4096, 1024, 1024}, {14336, 14336}, {128256}} {
			for tier, limit := range map[int]uint32{75: 64 << 10, 80: 99 << 10, 90: 99 << 10, warpgroupTier: 227 << 10} {
				i, l, shared := f.matmulLaunch(rows, n, 1, n, tier, 132)
				columns := f.widths(tier)[i].columns
				if int(l.grid[1])*columns < n || int(l.grid[1]-1)*columns >= n {
					t.Errorf("%d columns of %v: %d blocks of %d", n, rows, l.grid[1], columns)
				}
				if shared > limit {
					t.Errorf("%d columns of %v take %d bytes of shared memory", n, rows, shared)
				}
			}
		}
	}
	// of warpgroups what was the fastest on a card
	for _, c := range []struct {
		typ           quant.Type
		tier, rows, n int
		want          string
	}{
		{quant.Q4_0, 90, 4096, 12, "32"}, {quant.Q4_0, 90, 14336, 4096, "128"}, {quant.F16, warpgroupTier, 14336, 4096, "128"},
		{quant.Q4_0, warpgroupTier, 28672, 1024, "128"}, {quant.Q8_0, warpgroupTier, 28672, 512, "128"}, {quant.Q4_0, warpgroupTier, 4096, 1024, "128"},
		{quant.Q4_0, warpgroupTier, 4096, 512, "128_half"}, {quant.Q4_0, warpgroupTier, 6144, 1024, "128_half"}, {quant.Q4_0, warpgroupTier, 6144, 512, "128"},
		{quant.F16, warpgroupTier, 28672, 512, "128"}, {quant.F16, warpgroupTier, 4096, 1024, "128"}, {quant.BF16, warpgroupTier, 4096, 512, "128_half"},
		{quant.F16, warpgroupTier, 6144, 512, "128"}, {quant.BF16, warpgroupTier, 6144, 1024, "128_half"},
		{quant.Q4_0, warpgroupTier, 4096, 256, "64"}, {quant.Q8_0, warpgroupTier, 4096, 64, "32"}, {quant.Q4_K, warpgroupTier, 28672, 100, "128_half"}, {quant.F16, warpgroupTier, 4096, 16, "32"},
		{quant.Q6_K, warpgroupTier, 28672, 1024, "256"}, {quant.Q6_K, warpgroupTier, 4096, 1024, "256"}, {quant.Q6_K, warpgroupTier, 4096, 512, "128_half"},
	} {
		f := formatOf(c.typ)
		i, _, _ := f.matmulLaunch([]int{c.rows}, c.n, 1, c.n, c.tier, 132)
		if got := f.widths(c.tier)[i].kernel; got != c.want {
			t.Errorf("%v, tier %d: %d rows, %d columns: kernel %s, want %s", c.typ, c.tier, c.rows, c.n, got, c.want)
		}
	}
}
