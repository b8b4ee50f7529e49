package cpu

import (
	"context"
	"math"
	"slices"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

// TestGated: a prompt's logits are the same to the bit whether silu(gate)*up goes
// through memory, as it does for a trace, or not, and so are those of other rows.
func TestGated(t *testing.T) {
	const vocab, dim, ffn, rows = 50, 256, 544, 2*bandRows + 5
	for _, typ := range []quant.Type{quant.Q8_0, quant.Q4_K, quant.Q6_K, quant.IQ3_S} {
		for _, c := range []struct {
			threads int
			raw     bool
			mixed   bool // another format for up
			isa     string
		}{{1, false, false, ""}, {2, false, false, ""}, {3, true, false, ""}, {2, false, true, ""}, {2, false, false, "tiles"}} {
			if c.isa != "" && (typ != quant.Q8_0 || !slices.Contains(Available(), c.isa)) {
				continue // tiles in Go are slow, and tested where there are such in assembly
			}
			width := ffn
			if typ.BlockElems() > 32 {
				width = 512
			}
			layers := 1 // more take minutes under QEMU
			if c.threads == 2 && !c.mixed {
				layers = 2
			}
			m := backendtest.Llama(typ, layers, dim, 4, 2, width, vocab, 0)
			if c.mixed {
				for i := range m.Layers {
					m.Layers[i].Up = backendtest.Tensor(quant.Q4_0, width, dim, uint64(90+i))
				}
			}
			pages := (rows + backend.PageRows - 1) / backend.PageRows
			logits := func(trace func(int, backend.Op, []float32)) []float32 {
				s := load(t, Options{Threads: c.threads, Raw: c.raw, ISA: c.isa}, m, backend.Limits{Pages: pages, Rows: rows, Seqs: 1, Context: rows, Outs: rows, K: quant.F16, V: quant.F16}).(*stage)
				defer s.Close()
				b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows}}, Logits: make([]float32, rows*vocab), Trace: trace}
				for p := range pages {
					b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(p))
				}
				for i := range rows {
					b.Tokens, b.Pos, b.Out = append(b.Tokens, int32(i*7%vocab)), append(b.Pos, int32(i)), append(b.Out, int32(i))
				}
				s.Profile(true)
				if err := s.Forward(context.Background(), 0, b); err != nil {
					t.Fatal(err)
				}
				// packed as they are needed, panels that nothing unpacks have room for two groups
				fits := !c.mixed && !(c.raw && s.k.unpack[kindOf(typ)] == nil)
				if n := s.profile.ops[opGated].Calls; (n > 0) != (trace == nil && fits) {
					t.Errorf("%v, %+v: %d feed-forward blocks make silu(gate)*up at once, with a trace: %v", typ, c, n, trace != nil)
				}
				return b.Logits
			}
			got, want := logits(nil), logits(func(int, backend.Op, []float32) {})
			for i, v := range got {
				if math.Float32bits(v) != math.Float32bits(want[i]) {
					t.Fatalf("%v, %+v: logit %d of row %d is %g, with a trace %g", typ, c, i%vocab, i/vocab, v, want[i])
				}
			}
		}
	}
}
