//go:build linux && cgo

package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// promptSeq is a sequence's share of a batch: rows from a position on.
type promptSeq struct{ start, rows int }

// promptCase is a shape of attention and a batch.
type promptCase struct {
	headDim, group, kvHeads, window int
	seqs                            []promptSeq
	padding                         int // rows behind them
}

func (p promptCase) String() string {
	return fmt.Sprintf("heads of %d, %d x %d, window %d, %v", p.headDim, p.group, p.kvHeads, p.window, p.seqs)
}

func (p promptCase) rows() (n int) {
	for _, s := range p.seqs {
		n += s.rows
	}
	return n + p.padding
}

// promptCache is keys or values: bytes as the device has them, and the numbers.
// What no row was written to is NaN.
type promptCache struct {
	typ   quant.Type
	bytes []byte
	of    map[[3]int][]float64 // sequence, key/value head, position
}

// promptData is everything that a launch reads, on the device.
type promptData struct {
	promptCase
	c                   *weightCard
	keys, values        promptCache
	keysAt, valuesAt    uint64
	q                   []float32
	pages               [][]int32
	ldq, ldout, maxPage int
}

func newPromptData(c *weightCard, p promptCase, k, v quant.Type) *promptData {
	c.t.Helper()
	r := rand.New(rand.NewPCG(uint64(p.headDim), uint64(p.window)))
	d := &promptData{promptCase: p, c: c, ldq: pad(p.group*p.kvHeads*p.headDim, 4) + 4, ldout: pad(p.group*p.kvHeads*p.headDim, 4) + 8}
	total := 0
	for _, s := range p.seqs {
		n := ceil(s.start+s.rows, backend.PageRows)
		total += n
		d.maxPage = max(d.maxPage, n)
	}
	numbers := r.Perm(total + 2)
	for _, s := range p.seqs {
		pages := slices.Repeat([]int32{-1}, d.maxPage)
		for i := range ceil(s.start+s.rows, backend.PageRows) {
			if p.window == 0 || (i+1)*backend.PageRows > s.start+1-p.window { // some row sees it
				pages[i] = int32(numbers[0])
			}
			numbers = numbers[1:]
		}
		d.pages = append(d.pages, pages)
	}
	d.keys, d.values = d.cache(r, k, total+2, 1.5), d.cache(r, v, total+2, 1)
	d.keysAt, d.valuesAt = upload(c, d.keys.bytes), upload(c, d.values.bytes)
	d.q = make([]float32, p.rows()*d.ldq)
	for i := range d.q {
		d.q[i] = float32(r.NormFloat64())
	}
	return d
}

// cache fills a cache with random rows of the sequences.
func (d *promptData) cache(r *rand.Rand, typ quant.Type, pages int, deviation float64) promptCache {
	row := typ.RowBytes(32) * d.headDim / 32 // also of parts of a block, which q8_0 does not have
	page := backend.PageRows * row
	c := promptCache{typ, slices.Repeat([]byte{0xff}, pages*d.kvHeads*page), map[[3]int][]float64{}}
	for seq, s := range d.seqs {
		for pos := range s.start + s.rows {
			number := int(d.pages[seq][pos/backend.PageRows])
			if number < 0 {
				continue
			}
			for head := range d.kvHeads {
				to := c.bytes[(number*d.kvHeads+head)*page:][:page]
				c.of[[3]int{seq, head, pos}] = c.write(to, r, pos%backend.PageRows, d.headDim, deviation)
			}
		}
	}
	return c
}

// write makes one row of a page and gives its numbers.
func (c *promptCache) write(page []byte, r *rand.Rand, row, dim int, deviation float64) []float64 {
	x := make([]float64, dim)
	var scale float32
	for k := range x {
		at, v := row*dim+k, float32(r.NormFloat64()*deviation)
		switch c.typ {
		case quant.F32:
			binary.LittleEndian.PutUint32(page[4*at:], math.Float32bits(v))
		case quant.F16:
			h := quant.F32ToF16(v)
			v = quant.F16ToF32(h)
			binary.LittleEndian.PutUint16(page[2*at:], h)
		default:
			if k%32 == 0 {
				h := quant.F32ToF16(float32(deviation * (0.5 + r.Float64()) / 64))
				scale = quant.F16ToF32(h)
				binary.LittleEndian.PutUint16(page[backend.PageRows*dim+at/32*2:], h)
			}
			n := int8(r.IntN(255) - 127)
			page[at], v = byte(n), float32(n)*scale
		}
		x[k] = float64(v)
	}
	return x
}

// attend launches rows lo..lo+n and gives all rows of the output; those that are
// not written stay NaN.
func (d *promptData) attend(s promptShape, kernel *kernel, lo, n int) []float32 {
	c, rows := d.c, d.rows()
	pos, slot, seq := make([]int32, rows), slices.Repeat([]int32{-1}, rows), make([]int32, rows)
	var seqs []backend.Seq
	row := 0
	for i, s := range d.seqs {
		seqs = append(seqs, backend.Seq{Rows: s.rows, Pages: d.pages[i]})
		for j := range s.rows {
			pos[row], slot[row], seq[row] = int32(s.start+j), 0, int32(i)
			row++
		}
	}
	seqs[len(seqs)-1].Rows += d.padding // as a launch that knows of no padding has it
	tiles := make([]int32, tileWords*maxTiles(rows, len(seqs)))
	count := s.tiles(tiles, seqs, lo, n)
	nan := float32(math.NaN())
	out := upload(c, slices.Repeat([]float32{nan}, rows*d.ldout))
	p := PromptAttention{Q: upload(c, d.q) + uint64(4*lo*d.ldq), Keys: d.keysAt, Values: d.valuesAt,
		Pos: upload(c, pos) + uint64(4*lo), Slot: upload(c, slot) + uint64(4*lo), Seq: upload(c, seq) + uint64(4*lo),
		Pages: upload(c, slices.Concat(d.pages...)), Tiles: upload(c, tiles[:count*tileWords]), Out: out + uint64(4*lo*d.ldout),
		LdQ: int32(d.ldq), LdOut: int32(d.ldout), Heads: int32(d.group * d.kvHeads), KVHeads: int32(d.kvHeads), HeadDim: int32(d.headDim),
		Window: int32(d.window), MaxPages: int32(d.maxPage), ShareHeads: int32(s.share), Scale: attentionScale(d.headDim)}
	l := s.launch(count, d.kvHeads)
	c.check(c.s.launch(kernel, l.grid, l.block, s.shared, unsafe.Pointer(&p)))
	c.check(c.s.sync())
	return download[float32](c, out, rows*d.ldout)
}

// want is the definition, in float64.
func (d *promptData) want(seq, pos, head int, q []float32) []float64 {
	kv, first := head/d.group, 0
	if d.window > 0 {
		first = max(0, pos+1-d.window)
	}
	score, most := make([]float64, pos+1-first), math.Inf(-1)
	for i := range score {
		for k, v := range d.keys.of[[3]int{seq, kv, first + i}] {
			score[i] += float64(q[k]) * v
		}
		score[i] /= math.Sqrt(float64(d.headDim))
		most = max(most, score[i])
	}
	var sum float64
	out := make([]float64, d.headDim)
	for i := range score {
		w := math.Exp(score[i] - most)
		sum += w
		for k, v := range d.values.of[[3]int{seq, kv, first + i}] {
			out[k] += w * v
		}
	}
	for k := range out {
		out[k] /= sum
	}
	return out
}

// right compares with the definition, and wants padding untouched.
func (d *promptData) right(got []float32) (nmse float64) {
	c, width := d.c, d.group*d.kvHeads*d.headDim
	var all []float32
	var want []float64
	row := 0
	for seq, s := range d.seqs {
		for j := range s.rows {
			for head := range d.group * d.kvHeads {
				want = append(want, d.want(seq, s.start+j, head, d.q[row*d.ldq+head*d.headDim:][:d.headDim])...)
			}
			all = append(all, got[row*d.ldout:][:width]...)
			row++
		}
	}
	for row := range d.rows() {
		from := row * d.ldout
		if row < d.rows()-d.padding {
			from += width
		}
		for i, v := range got[from : (row+1)*d.ldout] {
			if v == v {
				c.t.Fatalf("%v: wrote %v at %d behind row %d", d, v, i, row)
			}
		}
	}
	return errorOf(all, want)
}

// promptTolerance: f16 rounding of scaled queries and of weights, 11 bits each;
// f32 throughout where a cache is f32 or heads are odd.
func promptTolerance(s promptShape) float64 {
	if s.rows*s.share <= 32 {
		return 1e-11
	}
	return 1e-6
}

var promptCases = []promptCase{
	{64, 4, 2, 0, []promptSeq{{0, 70}, {300, 35}}, 3},
	{128, 1, 2, 0, []promptSeq{{5, 140}}, 0},
	{80, 3, 1, 40, []promptSeq{{130, 50}, {0, 9}, {63, 2}}, 1},
	{256, 8, 1, 0, []promptSeq{{40, 20}}, 2},
	{40, 1, 3, 100, []promptSeq{{250, 90}}, 0},
	{6, 2, 2, 0, []promptSeq{{60, 12}, {10, 11}}, 4},
	{96, 20, 1, 64, []promptSeq{{127, 11}, {64, 3}}, 0},
	{32, 4, 1, 0, []promptSeq{{0, 33}, {31, 33}}, 0},
}

// Prompt attention is right for all pairs of cache formats and on every tier;
// a row's bits do not depend on what is beside it or on the tiles.
func TestPromptAttention(t *testing.T) {
	types := []quant.Type{quant.F16, quant.Q8_0, quant.F32}
	for _, tier := range []int{80, 90, 75} {
		for _, k := range types {
			for _, v := range types {
				pair := strings.ToLower(k.String() + "_" + v.String())
				t.Run(fmt.Sprintf("%d/%s", tier, pair), func(t *testing.T) { testPromptAttention(t, tier, k, v, "attention_"+pair) })
			}
		}
	}
}

func testPromptAttention(t *testing.T, tier int, k, v quant.Type, module string) {
	c := &weightCard{t: t}
	for _, d := range cards(t, 0) {
		if c.d == nil && (d.cc == tier || onCard() && d.cc > tier) {
			c.d = d
		}
	}
	if c.d == nil {
		t.Skipf("no card runs sm_%d", tier)
	}
	text, err := ptx(module, fmt.Sprintf("sm_%d", tier))
	c.check(err)
	c.m, err = c.d.module(text)
	c.check(err)
	c.s, err = c.d.stream()
	c.check(err)
	defer func() {
		for _, p := range c.buffers {
			c.check(c.d.free(p))
		}
		c.check(c.s.close())
		c.check(c.m.close())
	}()
	for i, p := range promptCases {
		if p.headDim%32 != 0 && (k == quant.Q8_0 || v == quant.Q8_0) || k != v && i%2 == 1 {
			continue
		}
		s := newPromptShape(k, v, p.headDim, p.group, tier)
		kernel, err := c.m.kernel(s.kernel)
		c.check(err)
		c.check(kernel.allowShared(int(s.shared)))
		d := newPromptData(c, p, k, v)
		got := d.attend(s, kernel, 0, p.rows())
		nmse, most := d.right(got), promptTolerance(s)
		if !(nmse <= most) {
			t.Fatalf("%s, %v: NMSE %.1e, want at most %.0e", s.kernel, p, nmse, most)
		}
		for _, part := range [][2]int{{0, p.seqs[0].rows}, {7, p.rows() - 7}} { // other tiles, other neighbours
			lo, n := part[0], part[1]
			other := s
			other.rows = max(1, s.rows-1)
			again := d.attend(other, kernel, lo, n)
			for i := range again[lo*d.ldout : (lo+n)*d.ldout] {
				if a, b := again[lo*d.ldout+i], got[lo*d.ldout+i]; math.Float32bits(a) != math.Float32bits(b) {
					t.Fatalf("%s, %v: row %d, column %d is %v, and %v where only rows %d to %d are attended", s.kernel, p, lo+i/d.ldout, i%d.ldout, b, a, lo, lo+n)
				}
			}
		}
	}
}

// Tiles cover every row once, and none is of two sequences.
func TestPromptTiles(t *testing.T) {
	seqs := []backend.Seq{{Rows: 70}, {Rows: 1}, {Rows: 29}, {Rows: 300}}
	for _, group := range []int{1, 3, 8, 20, 71} {
		for _, typ := range []quant.Type{quant.F16, quant.F32} {
			s := newPromptShape(typ, typ, 128, group, 80)
			if s.share*s.parts < group || s.rows < 1 {
				t.Errorf("group of %d: %+v", group, s)
			}
			for lo, n := range map[int]int{0: 400, 64: 128, 99: 2} {
				w := make([]int32, tileWords*maxTiles(n, len(seqs)))
				row := lo
				for i := range s.tiles(w, seqs, lo, n) {
					first, rows := int(w[tileWords*i]), int(w[tileWords*i+1])
					if first != row-lo || rows < 1 || rows > s.rows {
						t.Fatalf("%+v, rows %d and on: tile %d is %d rows from %d, want them from %d", s, lo, i, rows, first, row-lo)
					}
					for _, end := range []int{70, 71, 100} {
						if first+lo < end && first+lo+rows > end {
							t.Errorf("%+v: rows %d to %d are of two sequences", s, first+lo, first+lo+rows)
						}
					}
					row += rows
				}
				if row != lo+n {
					t.Errorf("%+v: tiles end with row %d, want %d", s, row, lo+n)
				}
			}
		}
	}
}
