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

// Bands divide the workers evenly, and their parts the rows, whole panels each but the last.
func TestBands(t *testing.T) {
	for workers := 1; workers <= 24; workers++ {
		for rows := 1; rows <= passRows; rows += 5 {
			bands := bandsOf(workers, rows)
			if workers%bands != 0 || bands > 1 && rows < bands*bandRows {
				t.Fatalf("%d workers, %d rows: %d bands", workers, rows, bands)
			}
			next := 0
			for b := range bands {
				lo, hi := bandOf(rows, panelRows, b, bands)
				if lo != next || lo%panelRows != 0 || hi <= lo {
					t.Fatalf("%d rows, band %d of %d: [%d, %d) after %d", rows, b, bands, lo, hi, next)
				}
				next = hi
			}
			if next != rows {
				t.Fatalf("%d rows, %d bands: %d are theirs", rows, bands, next)
			}
		}
	}
	if got := bandsOf(2, 512); got != 2 {
		t.Errorf("2 workers make %d bands of 512 rows, want 2", got)
	}
}

// A prompt has the same bits whatever the bands.
func TestBandsForward(t *testing.T) {
	const rows, dim, vocab = 480, 256, 50
	for _, typ := range []quant.Type{quant.Q4_0, quant.Q6_K, quant.F16} {
		m := backendtest.Llama(typ, 1, dim, 4, 2, 512, vocab, 0)
		var want []float32
		for _, threads := range []int{1, 2, 3, 4} {
			l := backend.Limits{Pages: (rows + backend.PageRows - 1) / backend.PageRows, Rows: rows, Seqs: 1, Context: rows, Outs: 3, K: quant.F16, V: quant.F16}
			s := load(t, Options{Threads: threads}, m, l).(*stage)
			b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows}}, Out: []int32{0, 239, rows - 1}, Logits: make([]float32, 3*vocab)}
			for i := range l.Pages {
				b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
			}
			for i := range rows {
				b.Tokens, b.Pos = append(b.Tokens, int32(i*7%vocab)), append(b.Pos, int32(i))
			}
			var bands int
			b.Trace = func(_ int, op backend.Op, _ []float32) {
				if op == backend.OpFFNOut {
					bands = s.bands
				}
			}
			if err := s.Forward(context.Background(), 0, b); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = b.Logits
			}
			if !slices.Equal(b.Logits, want) || math.IsNaN(float64(want[0])) {
				t.Errorf("%v, %d threads, %d bands: other logits than of one thread", typ, threads, bands)
			}
			if bands != bandsOf(threads, rows) {
				t.Errorf("%d threads: %d bands, want %d", threads, bands, bandsOf(threads, rows))
			}
		}
	}
}
