package cpu

import (
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// ropeStep is how many rows a worker takes at once.
const ropeStep = 4

// place is where a row's keys and values go, and what it may see.
type place struct {
	pages []int32
	pos   int
}

// locate finds each row's place, and the turns of its position.
func (s *stage) locate() {
	row := 0
	s.attending.turns = s.b.Trace == nil
	for i := range s.b.Seqs {
		q := &s.b.Seqs[i]
		s.attending.turns = s.attending.turns && q.Rows == 1
		for range q.Rows {
			s.where[row] = place{q.Pages, int(s.b.Pos[row])}
			row++
		}
	}
	if s.cos == nil {
		return
	}
	half := len(s.freq)
	for row := range len(s.b.Tokens) {
		pos := float64(s.where[row].pos)
		for i, f := range s.freq {
			sin, cos := math.Sincos(pos * f)
			s.cos[row*half+i], s.sin[row*half+i] = float32(cos*s.mscale), float32(sin*s.mscale)
		}
	}
}

// ropeRows adds biases to q, k, v of the tile's rows [lo, hi), turns q and k by their
// position, and writes k and v to the cache.
func (s *stage) ropeRows(worker, lo, hi int) {
	c := s.config
	for row := lo; row < hi; row++ {
		s.turnQueries(s.queries[row*s.ld.q:][:c.Heads*c.HeadDim], row, 0)
		for kv := range c.KVHeads {
			s.cacheHead(&s.attending.space[worker], row, kv)
		}
	}
}

// turnQueries adds the bias to queries of a row, from a head on, and turns them.
func (s *stage) turnQueries(q []float32, row, head int) {
	hd := s.config.HeadDim
	s.addBias(q, s.layer.qBias, head*hd)
	for ; len(q) > 0; q = q[hd:] {
		s.turn(q[:hd], s.lo+row)
	}
}

// cacheHead writes a row's key and value of one head to the cache.
func (s *stage) cacheHead(sp *lineSpace, row, kv int) {
	hd, p := s.config.HeadDim, &s.where[s.lo+row]
	k, v := s.keys[row*s.ld.kv+kv*hd:][:hd], s.values[row*s.ld.kv+kv*hd:][:hd]
	s.addBias(k, s.layer.kBias, kv*hd)
	s.addBias(v, s.layer.vBias, kv*hd)
	s.turn(k, s.lo+row)
	i, at := s.cacheRow(int(p.pages[p.pos/backend.PageRows]), kv), p.pos%backend.PageRows
	s.k.storeKey(s.limits.K, s.layer.keys[i*s.keyRow:(i+backend.PageRows)*s.keyRow], at, k, sp.row[:s.keyRow])
	s.k.storeValue(s.limits.V, s.layer.values[i*s.valueRow:(i+backend.PageRows)*s.valueRow], at, v, sp.row[:s.valueRow])
}

// addBias adds as much of a bias, from an element on.
func (s *stage) addBias(x []float32, bias *vector, from int) {
	if bias != nil {
		s.k.add(&x[0], &bias.data[from], len(x))
	}
}

// turn rotates the pairs of one head by the row's position.
func (s *stage) turn(x []float32, row int) {
	half := len(s.freq)
	rotate := s.k.rotate
	if s.config.Rope.Halves {
		rotate = s.k.rotateHalves
	}
	rotate(&x[0], &s.cos[row*half], &s.sin[row*half], half)
}

// store writes one head's row to the cache.
func (k *kernels) store(t quant.Type, dst []byte, x []float32) {
	if t == quant.F16 {
		k.narrowF16(&dst[0], &x[0], len(x))
		return
	}
	if err := quant.Quantize(t, dst, x); err != nil {
		panic(fmt.Sprintf("BUG: cache format: %v", err))
	}
}
