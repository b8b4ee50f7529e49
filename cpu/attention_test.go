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

// TestSplit holds attention that is split over the context to one worker's, to
// the bit, for few rows behind a long prompt.
func TestSplit(t *testing.T) {
	const depth, dim, vocab = 3*cutRows + 50, 96, 50
	for _, heads := range [][2]int{{1, 1}, {3, 1}, {12, 1}, {4, 2}} { // query and key/value heads
		for _, window := range []int{0, 100, cutRows + 70} {
			m := backendtest.Llama(quant.Q4_0, 2, dim, heads[0], heads[1], 96, vocab, 0)
			m.Config.Window = window
			var want []float32
			for _, threads := range []int{1, 2, 5} {
				l := backend.Limits{Pages: (depth + 3 + backend.PageRows) / backend.PageRows, Rows: 300, Seqs: 1, Context: depth + 3, Outs: 3, K: quant.F16, V: quant.F16}
				s := load(t, Options{Threads: threads}, m, l).(*stage)
				pages := make([]int32, l.Pages)
				for i := range pages {
					pages[i] = int32(len(pages) - 1 - i)
				}
				var got []float32
				forward := func(lo, hi int) {
					b := &backend.Batch{Seqs: []backend.Seq{{Rows: hi - lo, Pages: pages}}}
					for i := lo; i < hi; i++ {
						b.Tokens, b.Pos = append(b.Tokens, int32(i*7%vocab)), append(b.Pos, int32(i))
						if lo >= depth {
							b.Out = append(b.Out, int32(i-lo))
						}
					}
					b.Logits = make([]float32, len(b.Out)*vocab)
					if err := s.Forward(context.Background(), 0, b); err != nil {
						t.Fatal(err)
					}
					got = append(got, b.Logits...)
				}
				for lo := 0; lo < depth; lo += 300 {
					forward(lo, min(lo+300, depth))
				}
				forward(depth, depth+1)
				if split := s.attending.cuts > 1; split != (threads > 1 && heads[1] <= splitUnits(threads)) {
					t.Errorf("%d threads, %d heads: split into %d", threads, heads[1], s.attending.cuts)
				}
				forward(depth+1, depth+3)
				if want == nil {
					want = got
				}
				if !slices.Equal(got, want) || math.IsNaN(float64(got[0])) {
					t.Errorf("heads %v, window %d, %d threads: other logits than of one", heads, window, threads)
				}
			}
		}
	}
}

// TestCacheRow: every head of every page has a place of its own, none is left over, and
// consecutive pages of a run lie together.
func TestCacheRow(t *testing.T) {
	for _, pages := range []int{1, runPages - 1, runPages, runPages + 1, 3*runPages + 5} {
		for _, heads := range []int{1, 3, 8} {
			s := &stage{config: &backend.Config{KVHeads: heads}, limits: backend.Limits{Pages: pages}}
			taken := make([]bool, pages*heads)
			for page := range pages {
				for kv := range heads {
					row := s.cacheRow(page, kv)
					if i := row / backend.PageRows; row%backend.PageRows != 0 || i < 0 || i >= len(taken) || taken[i] {
						t.Fatalf("%d pages, %d heads: page %d of head %d begins at row %d", pages, heads, page, kv, row)
					} else {
						taken[i] = true
					}
					if page%runPages > 0 && row != s.cacheRow(page-1, kv)+backend.PageRows {
						t.Fatalf("%d pages, %d heads: page %d of head %d is not behind the one before", pages, heads, page, kv)
					}
				}
			}
		}
	}
}
