package cpu

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

// BenchmarkAttention times the attend op of a forward pass: of one row that sees
// 4096 positions, from layers whose caches together do not fit the processor's,
// and of a prompt's tile at depth 512; decode2 has two cores. "gqa" is query heads a key/value head.
func BenchmarkAttention(b *testing.B) {
	eachSet(b, func(b *testing.B, t *bed) {
		for _, typ := range []quant.Type{quant.F16, quant.Q8_0} {
			for _, group := range []int{1, 4, 8} {
				name := fmt.Sprintf("/%v/gqa%d", typ, group)
				for threads, op := range []string{1: "decode", 2: "decode2"} {
					if op == "" || threads > runtime.NumCPU() {
						continue
					}
					b.Run(op+name, func(b *testing.B) {
						a := t.attention(b, typ, 12, 8*group, 8, 1, 4095, threads)
						fastest(b, int(a.once().Bytes), "GB/s", t.read(threads), a.time)
					})
				}
				b.Run("prompt"+name, func(b *testing.B) {
					a := t.attention(b, typ, 1, 8, 8/group, passRows, 512, 1)
					fastest(b, int(a.once().FloatOps), "GOP/s", t.float32, a.time)
				})
			}
		}
	})
}

// attendBench sends a batch through the attention of one layer after another.
type attendBench struct {
	b     *testing.B
	s     *stage
	batch backend.Batch
	run   int
}

// attention is rows at position pos and after, in a model that is little else
// than attention.
func (t *bed) attention(b *testing.B, typ quant.Type, layers, heads, kv, rows, pos, threads int) *attendBench {
	const dim, headDim = 32, 128
	const pages = 4096 / backend.PageRows
	m := backendtest.Llama(quant.F32, 0, dim, 1, 1, dim, 1, 0)
	m.Config.Layers, m.Config.Heads, m.Config.KVHeads, m.Config.HeadDim, m.Config.Rope.Dims = layers, heads, kv, headDim, headDim
	var runs []backend.Range
	for i := range layers {
		w := func(rows, cols int) *backend.Tensor { return backendtest.Tensor(quant.F32, rows, cols, uint64(i)) }
		m.Layers = append(m.Layers, backend.Layer{AttnNorm: w(1, dim), Q: w(heads*headDim, dim), K: w(kv*headDim, dim), V: w(kv*headDim, dim), O: w(dim, heads*headDim)})
		runs = append(runs, backend.Range{Lo: 1 + 2*i, Hi: 2 + 2*i})
	}
	d := &device{k: t.k, options: Options{Threads: threads}}
	s, err := d.Load(context.Background(), m, runs, backend.Limits{Pages: pages, Rows: rows, Seqs: 1, Context: 4096, Outs: 1, K: typ, V: typ}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	a := &attendBench{b: b, s: s.(*stage)}
	for _, l := range a.s.layers { // untouched, all of it would be one page of zeros
		fill(l.keys, 1)
		fill(l.values, 2)
	}
	a.batch = backend.Batch{Tokens: make([]int32, rows), Hidden: values(rows * dim), Seqs: []backend.Seq{{Rows: rows}}}
	for i := range rows {
		a.batch.Pos = append(a.batch.Pos, int32(pos+i))
	}
	for i := range pages {
		a.batch.Seqs[0].Pages = append(a.batch.Seqs[0].Pages, int32(i))
	}
	return a
}

// once is what the attend op of the next layer took.
func (a *attendBench) once() backend.OpTime {
	a.s.Profile(true)
	if err := a.s.Forward(context.Background(), a.run, &a.batch); err != nil {
		a.b.Fatal(err)
	}
	a.run = (a.run + 1) % len(a.s.runs)
	if t := a.s.profile.ops[opTurned]; t.Calls > 0 { // decode: turning its row is part of it
		return t
	}
	return a.s.profile.ops[opAttend]
}

func (a *attendBench) time() time.Duration { return a.once().Time }
