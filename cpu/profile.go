package cpu

import (
	"time"

	"drover/backend"
)

// op is a step of the forward pass that a profile tells apart.
type op uint8

const (
	opPlaces op = iota
	opEmbed
	opAttnNorm
	opQKV
	opRope
	opAttend
	opTurned
	opAttended
	opOutput
	opFFNNorm
	opRouter
	opChoose
	opExpert
	opGateUp
	opAct
	opGated
	opDown
	opCollect
	opMix
	opHeadNorm
	opLogits
	opResults
	ops
)

// opNames are each op's block and name.
var opNames = [ops][2]string{
	opPlaces: {"batch", "places"}, opEmbed: {"embed", "rows"},
	opAttnNorm: {"attention", "norm+quantise"}, opQKV: {"attention", "q k v"}, opRope: {"attention", "rope+cache write"}, opAttend: {"attention", "attend"},
	opTurned:   {"attention", "rope+cache write+attend"},
	opAttended: {"attention", "quantise"}, opOutput: {"attention", "output"},
	opFFNNorm: {"feed-forward", "norm+quantise"}, opRouter: {"feed-forward", "router"}, opChoose: {"feed-forward", "choose experts"},
	opExpert: {"feed-forward", "quantise"}, opGateUp: {"feed-forward", "gate up"}, opAct: {"feed-forward", "silu+quantise"}, opGated: {"feed-forward", "gate up silu+quantise"}, opDown: {"feed-forward", "down"},
	opCollect: {"feed-forward", "collect"}, opMix: {"feed-forward", "weighted sum"},
	opHeadNorm: {"head", "norm+quantise"}, opLogits: {"head", "logits"}, opResults: {"head", "results"},
}

// profile is what the ops of a stage took since it was turned on.
type profile struct {
	since    time.Time // end of the op before
	barriers int       // the pool's count then
	ops      [ops]backend.OpTime
}

// Profile begins a profile, from nothing, or ends it.
func (s *stage) Profile(on bool) {
	s.profile = nil
	if on {
		s.profile = &profile{}
	}
}

// Profiled is the profile so far: the ops that ran, in the order of the pass.
func (s *stage) Profiled() []backend.OpTime {
	var all []backend.OpTime
	if s.profile == nil {
		return nil
	}
	for o, t := range s.profile.ops {
		if t.Calls > 0 {
			t.Block, t.Op = opNames[o][0], opNames[o][1]
			all = append(all, t)
		}
	}
	return all
}

// begin says that a Forward begins.
func (p *profile) begin(pool *pool) {
	if p != nil {
		p.since, p.barriers = time.Now(), pool.runs()
	}
}

// mark says that an op of so many rows has ended, and the next begins.
func (s *stage) mark(o op, rows int) {
	if s.profile != nil {
		s.record(o, uint64(rows))
	}
}

func (s *stage) record(o op, rows uint64) {
	p := s.profile
	t := &p.ops[o]
	t.Time += time.Since(p.since)
	t.Calls++
	t.Barriers += s.pool.runs() - p.barriers
	c := s.config
	dim, heads, kv := uint64(c.Dim), uint64(c.Heads*c.HeadDim), uint64(c.KVHeads*c.HeadDim)
	switch o {
	case opEmbed:
		t.Bytes += rows * uint64(len(s.row))
		t.Activations += 4 * rows * dim
	case opAttnNorm, opAttended, opFFNNorm, opExpert, opAct, opHeadNorm:
		s.countInput(t)
	case opQKV, opOutput, opRouter, opGateUp, opGated, opDown, opLogits:
		s.countProducts(t)
	case opRope: // q and k in and out, v in, k and v to the cache
		t.Activations += rows * (4*(2*heads+3*kv) + uint64(c.KVHeads*(s.keyRow+s.valueRow)))
	case opAttend:
		s.countAttended(t)
		s.countAttention(t, int(rows))
	case opTurned: // queries stay in the caches
		s.countAttended(t)
		t.Activations += rows * (4*3*kv + uint64(c.KVHeads*(s.keyRow+s.valueRow)))
		s.countAttention(t, int(rows))
	case opChoose:
		t.Activations += 4 * rows * (uint64(c.Experts) + 2*dim)
	case opCollect:
		t.Activations += 8 * rows * dim
	case opMix:
		t.Activations += 4 * rows * dim * uint64(c.ExpertsUsed+2)
	case opResults:
		t.Activations += 4 * rows * uint64(c.Vocab)
	}
	// counting is no part of the next op
	p.since, p.barriers = time.Now(), s.pool.runs()
}

// countInput counts the values read and the activations made of them.
func (s *stage) countInput(t *backend.OpTime) {
	in := &s.products.in
	n := uint64(in.rows * in.cols)
	t.Activations += 4*n + inputBytes(in)
	if in.silu {
		t.Activations += 4 * n
	}
}

// countAttended counts the activations that attention made.
func (s *stage) countAttended(t *backend.OpTime) {
	if s.attending.makes {
		t.Activations += inputBytes(&s.products.in)
	}
}

// inputBytes is the size of a product's activations.
func inputBytes(in *input) (n uint64) {
	if in.quant {
		n += uint64(in.rows * in.cols / blockCols * 64)
	}
	if in.float {
		n += uint64(in.rows * in.cols * 4)
	}
	return n
}

// countProducts counts the matrices of the products that ran last, each read once.
func (s *stage) countProducts(t *backend.OpTime) {
	p := &s.products
	t.Activations += inputBytes(&p.in)
	for i := range p.list {
		q := &p.list[i]
		m, rows := q.m, p.in.rows
		if q.rows != nil {
			rows = len(q.rows)
		}
		n := 2 * uint64(rows) * uint64(m.rows) * uint64(m.cols)
		if q.up != nil { // of as many rows, and quantised activations come out
			t.Ops += 2 * n
			t.Bytes += m.tensor.Bytes() + q.up.tensor.Bytes()
			t.Activations += 64 * uint64(rows*m.rows/blockCols)
			continue
		}
		if m.kind.float() {
			t.FloatOps += n
		} else {
			t.Ops += n
		}
		t.Bytes += m.tensor.Bytes() / uint64(m.parts)
		t.Activations += 4 * uint64(rows*m.rows)
		if q.sum != nil { // in and out, where dst is scratch
			t.Activations += 4 * uint64(rows*m.rows)
		}
	}
}

// countAttention counts, for the tile's rows of each sequence, the part of the
// cache that they see, read once, and two products over what each row sees.
func (s *stage) countAttention(t *backend.OpTime, rows int) {
	c := s.config
	first := func(pos int) int {
		if c.Window == 0 {
			return 0
		}
		return max(0, pos-c.Window+1)
	}
	row := 0
	for i := range s.b.Seqs {
		lo, hi := max(row, s.lo), min(row+s.b.Seqs[i].Rows, s.lo+rows)
		row += s.b.Seqs[i].Rows
		if lo >= hi {
			continue
		}
		for r := lo; r < hi; r++ {
			pos := s.where[r].pos
			t.FloatOps += 4 * uint64(pos+1-first(pos)) * uint64(c.Heads*c.HeadDim)
		}
		seen := s.where[hi-1].pos + 1 - first(s.where[lo].pos)
		t.Bytes += uint64(seen) * uint64(c.KVHeads*(s.keyRow+s.valueRow))
	}
	t.Activations += 8 * uint64(rows*c.Heads*c.HeadDim)
}
