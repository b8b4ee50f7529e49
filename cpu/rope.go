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
	for i := range s.b.Seqs {
		q := &s.b.Seqs[i]
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
	c, l := s.config, s.layer
	hd := c.HeadDim
	for row := lo; row < hi; row++ {
		q, k, v := s.queries[row*s.ld.q:], s.keys[row*s.ld.kv:], s.values[row*s.ld.kv:]
		s.addBias(q, l.qBias)
		s.addBias(k, l.kBias)
		s.addBias(v, l.vBias)
		for h := range c.Heads {
			s.turn(q[h*hd:(h+1)*hd], s.lo+row)
		}
		p := &s.where[s.lo+row]
		page, at := int(p.pages[p.pos/backend.PageRows]), p.pos%backend.PageRows
		for h := range c.KVHeads {
			s.turn(k[h*hd:(h+1)*hd], s.lo+row)
			i := s.cacheRow(page, h)
			s.k.storeKey(s.limits.K, l.keys[i*s.keyRow:(i+backend.PageRows)*s.keyRow], at, k[h*hd:(h+1)*hd], s.attending.space[worker].key)
			s.k.store(s.limits.V, l.values[(i+at)*s.valueRow:(i+at+1)*s.valueRow], v[h*hd:(h+1)*hd])
		}
	}
}

func (s *stage) addBias(x []float32, bias *vector) {
	if bias != nil {
		s.k.add(&x[0], &bias.data[0], len(bias.data))
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
