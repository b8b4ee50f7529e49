package sched

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"drover/backend"
)

// kinds sorts blocks by what they are made of: two of a kind take the same
// memory and the same time.
type kinds struct {
	of     []int   // by block
	blocks [][]int // by kind, ascending
}

func newKinds(m *backend.Model) *kinds {
	k := &kinds{}
	known := map[string]int{}
	for b := range m.Config.Blocks() {
		var name strings.Builder
		switch {
		case b == 0:
			name.WriteString("embed")
		case b == m.Config.Blocks()-1:
			name.WriteString("head")
		default:
			fmt.Fprintf(&name, "%d", b%2)
		}
		for _, t := range m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
			fmt.Fprintf(&name, " %d:%dx%d", t.Type, t.Rows, t.Cols)
		}
		i, ok := known[name.String()]
		if !ok {
			i = len(k.blocks)
			known[name.String()] = i
			k.blocks = append(k.blocks, nil)
		}
		k.of = append(k.of, i)
		k.blocks[i] = append(k.blocks[i], b)
	}
	return k
}

// load is what a device carries, as far as its memory is concerned: so many
// blocks of each kind.
type load struct {
	counts []int
	need   backend.Need
	rough  bool // need is to one Granule, either way
	fits   bool
	next   []*load // with one block more, by kind; nil until asked for
}

// ledger knows what every load of a device takes. Like devices share one.
type ledger struct {
	device *Device
	m      *backend.Model
	limits backend.Limits
	free   uint64
	kinds  *kinds
	loads  map[string]*load
	empty  *load
	single []uint64 // by kind: bytes of weights and cache of one block,
	least  []uint64 // and by how much one more raises a need, but for rounding, at least
	why    error    // why a load is not supported, if one was not
	err    error    // any other error of Need
}

func newLedger(d *Device, m *backend.Model, k *kinds, l backend.Limits, free uint64) *ledger {
	g := &ledger{device: d, m: m, limits: l, free: free, kinds: k, loads: map[string]*load{}}
	g.empty = &load{counts: make([]int, len(k.blocks)), fits: true, next: make([]*load, len(k.blocks))}
	for kind := range k.blocks {
		n := g.add(g.empty, kind).need
		g.single = append(g.single, n.Weights+n.Cache)
	}
	g.least = slices.Clone(g.single)
	if m.Embed == m.Output { // on one device they lie once
		g.least[k.of[0]], g.least[k.of[len(k.of)-1]] = 0, 0
	}
	return g
}

// add is a load with one block more.
func (g *ledger) add(n *load, kind int) *load {
	if n.next[kind] != nil {
		return n.next[kind]
	}
	counts := append([]int(nil), n.counts...)
	counts[kind]++
	var key []byte
	for _, c := range counts {
		key = binary.AppendUvarint(key, uint64(c))
	}
	more := g.loads[string(key)]
	if more == nil {
		more = &load{counts: counts, next: make([]*load, len(counts))}
		g.loads[string(key)] = more
		if n.fits { // else neither does this
			g.weigh(more)
		}
	}
	n.next[kind] = more
	return more
}

// weigh finds whether a load fits. Weights and cache add up, and scratch depends
// on which kinds there are, so that but for rounding the need follows from that of
// one block of each kind; the device is asked where rounding could decide.
func (g *ledger) weigh(n *load) {
	base, more, blocks := g.empty, backend.Need{}, 0
	for _, count := range n.counts {
		blocks += count
	}
	for kind, count := range n.counts {
		if count > 1 {
			one := g.empty.next[kind].need
			more.Weights += uint64(count-1) * one.Weights
			more.Cache += uint64(count-1) * one.Cache
		}
	}
	if more == (backend.Need{}) || blocks == len(g.kinds.of) {
		g.ask(n)
		return
	}
	for kind, count := range n.counts {
		if count > 0 {
			base = g.add(base, kind)
		}
	}
	need := base.need
	need.Weights += more.Weights
	need.Cache += more.Cache
	n.need, n.rough = need, true
	switch {
	case !base.fits || g.device.Info.Total > 0 && need.Total() > g.free+Granule:
	case g.device.Info.Total == 0 || need.Total()+Granule <= g.free:
		n.fits = true
	default:
		g.ask(n)
	}
}

// ask has the device say what a load takes: the first blocks of each kind.
func (g *ledger) ask(n *load) {
	in := make([]bool, len(g.kinds.of))
	for kind, count := range n.counts {
		for _, b := range g.kinds.blocks[kind][:count] {
			in[b] = true
		}
	}
	need, err := g.device.Need(g.m, runsOf(in), g.limits)
	n.rough = false
	switch {
	case errors.Is(err, backend.ErrUnsupported):
		if g.why == nil {
			g.why = err
		}
	case err != nil:
		if g.err == nil {
			g.err = fmt.Errorf("%s: %w", g.device.Info.ID, err)
		}
	default:
		n.need, n.fits = need, g.device.Info.Total == 0 || need.Total() <= g.free
	}
}

// runsOf makes runs of a set of blocks.
func runsOf(in []bool) []backend.Range {
	var runs []backend.Range
	for b, yes := range in {
		switch {
		case !yes:
		case len(runs) > 0 && runs[len(runs)-1].Hi == b:
			runs[len(runs)-1].Hi++
		default:
			runs = append(runs, backend.Range{Lo: b, Hi: b + 1})
		}
	}
	return runs
}
