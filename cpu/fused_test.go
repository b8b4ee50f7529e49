package cpu

import (
	"context"
	"math"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

// TestFused: logits are the same to the bit whether turned queries, keys, what is attended
// and silu(gate)*up go through memory, as they do for a trace, or not; in prompts, in
// decode of one and of several sequences, and in a mixture of both.
func TestFused(t *testing.T) {
	const dim, vocab, ffn, most = 256, 50, 256, 12
	batches := [][]int{{cutRows + 45, 5}, {1, 1, 1}, {1, 1, 1, 1}, {1, 2, 1}, {1}, {9}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {3}} // rows of sequences 0, 1 and so on
	for i, typ := range []quant.Type{quant.Q4_0, quant.Q6_K, quant.F16, quant.IQ3_S, quant.Q8_0, quant.Q4_K} {
		cache := []quant.Type{quant.F16, quant.Q8_0, quant.F32}[i%3]
		layers := 1 // more take minutes under QEMU
		if i%3 == 0 {
			layers = 2
		}
		m := backendtest.Llama(typ, layers, dim, 4, []int{1, 2, 4}[i/2], ffn, vocab, 0)
		m.Config.Window = []int{0, 100}[i%2]
		m.Config.Rope.Halves = i%2 == 1
		for j := range m.Layers {
			l, seed := &m.Layers[j], uint64(100*j)
			l.QBias, l.KBias, l.VBias = backendtest.Tensor(quant.F32, 1, l.Q.Rows, seed+1), backendtest.Tensor(quant.F32, 1, l.K.Rows, seed+2), backendtest.Tensor(quant.F32, 1, l.V.Rows, seed+3)
		}
		const pages, rows = (cutRows + 100) / backend.PageRows, cutRows + 64
		limits := backend.Limits{Pages: most * pages, Rows: rows, Seqs: most, Context: pages * backend.PageRows, Outs: rows, K: cache, V: cache}
		for _, o := range []Options{{Threads: 1}, {Threads: 2}, {Threads: 5, Raw: true}} {
			fused, traced := load(t, o, m, limits).(*stage), load(t, o, m, limits).(*stage)
			fused.Profile(true)
			var at [most]int
			for n, seqs := range batches {
				b := &backend.Batch{}
				for q, some := range seqs {
					seq := backend.Seq{Rows: some}
					for p := range pages {
						seq.Pages = append(seq.Pages, int32(p*most+q))
					}
					b.Seqs = append(b.Seqs, seq)
					for range some {
						b.Out = append(b.Out, int32(len(b.Tokens)))
						b.Tokens, b.Pos = append(b.Tokens, int32((7*at[q]+q)%vocab)), append(b.Pos, int32(at[q]))
						at[q]++
					}
				}
				logits := func(s *stage, trace func(int, backend.Op, []float32)) []float32 {
					b.Logits, b.Trace = make([]float32, len(b.Out)*vocab), trace
					if err := s.Forward(context.Background(), 0, b); err != nil {
						t.Fatal(err)
					}
					return b.Logits
				}
				got, want := logits(fused, nil), logits(traced, func(int, backend.Op, []float32) {})
				for i, v := range got {
					if math.Float32bits(v) != math.Float32bits(want[i]) {
						t.Fatalf("%v, caches %v, %+v, batch %d: logit %d of row %d is %g, with a trace %g", typ, cache, o, n, i%vocab, i/vocab, v, want[i])
					}
				}
			}
			calls := func(o op) int { return int(fused.profile.ops[o].Calls) }
			if o.Raw && kindOf(typ) == kindI8 { // see TestGated
				continue
			}
			quantised := kindOf(typ) != kindF16
			if n := calls(opTurned); n != layers*4 {
				t.Errorf("%v, %+v: %d attention blocks turn queries as they attend, want those of four batches", typ, o, n)
			}
			if apart := calls(opAttended) + calls(opAct); quantised != (apart == 0) || quantised != (calls(opGated) > 0) {
				t.Errorf("%v, %+v: %d inputs are made apart, %d feed-forward blocks make theirs at once", typ, o, apart, calls(opGated))
			}
		}
	}
}
