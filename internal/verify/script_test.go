package verify

import (
	"fmt"
	"slices"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// Whatever the limits, rows stay within them, positions follow each other, and no
// page is of two sequences but those that the far one reads.
func TestScript(t *testing.T) {
	for _, context := range []int{1, 2, 16, 63, 64, 65, 70, 128, 129, 500, 1024, 1025, 4096} {
		for _, batch := range []int{1, 3, 8, 9, 16, 2048} {
			s := newScript(7, 331, context, batch, promptRows)
			label := fmt.Sprintf("context %d, batch %d", context, batch)
			at := s.start
			for i := range s.steps {
				b := s.batch(i, 1)
				if len(b.Tokens) == 0 || len(b.Tokens) > batch || len(b.Tokens) != s.steps[i].rows() || len(b.Pos) != len(b.Tokens) || len(b.Seqs) > together {
					t.Fatalf("%s: step %d of %d rows", label, i, len(b.Tokens))
				}
				for _, p := range s.steps[i].parts {
					if p.lo != at[p.seq] || p.hi <= p.lo || p.hi > context {
						t.Fatalf("%s: step %d has rows [%d, %d) of sequence %d, which is at %d", label, i, p.lo, p.hi, p.seq, at[p.seq])
					}
					at[p.seq] = p.hi
				}
			}
			used := map[int32]bool{}
			for q, n := range at {
				if len(s.tokens[q]) != n-s.start[q] {
					t.Errorf("%s: sequence %d has %d tokens and ends at %d", label, q, len(s.tokens[q]), n)
				}
				own := s.table(q, 2)[s.start[q]/backend.PageRows:]
				for _, p := range own {
					if used[p] || int(p) >= s.pages() {
						t.Errorf("%s: page %d of %d is of two sequences", label, p, s.pages())
					}
					used[p] = true
				}
				if slices.Equal(own, s.table(q, 1)[s.start[q]/backend.PageRows:]) && len(own) > 0 && s.pages() > 1 {
					t.Errorf("%s: sequence %d has the same pages in two passes", label, q)
				}
			}
			if far := s.start[far]; (far > 0) != (context > 2*backend.PageRows) || far > 0 && at[0] < backend.PageRows {
				t.Errorf("%s: the far sequence begins at %d, the first has %d", label, far, at[0])
			}
		}
	}
	s := newScript(7, 331, 4096, 2048, promptRows)
	if s.context() != farthest+12 || s.most() != promptRows || s.rows() > 100 {
		t.Errorf("up to %d, batches of %d, %d rows", s.context(), s.most(), s.rows())
	}
	for _, tokens := range s.tokens {
		for _, id := range tokens {
			if id < 0 || id >= 331 {
				t.Errorf("token %d", id)
			}
		}
	}
}

// The first layers of each device and mix of formats are among those chosen, then
// the ends and what is between.
func TestSample(t *testing.T) {
	m := &backend.Model{Config: backend.Config{Layers: 32}}
	tensor := func(typ quant.Type, rows int) *backend.Tensor {
		return &backend.Tensor{Type: typ, Rows: rows, Cols: 4096}
	}
	for l := range 32 {
		typ := quant.Q4_K
		if l == 20 {
			typ = quant.Q6_K
		}
		m.Layers = append(m.Layers, backend.Layer{Q: tensor(quant.Q4_K, 4*4096), Down: tensor(typ, 3*11008)})
	}
	where := make([]int, 66)
	for name, c := range map[string]struct {
		cut  int
		rows int
		o    Options
		want []int
	}{
		"three":  {66, 89, Options{}, []int{0, 20, 31}},
		"five":   {66, 50, Options{}, []int{0, 5, 10, 20, 31}},
		"two":    {66, 1e6, Options{}, []int{0, 20}},
		"device": {33, 1e6, Options{}, []int{0, 16}},
		"device between attention and feed-forward": {34, 89, Options{}, []int{0, 16, 17}},
	} {
		for b := range where {
			where[b] = min(1, b/c.cut)
		}
		if got := sample(m, where, c.rows, c.o); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := sample(m, where, 1e6, Options{Full: true}); len(got) != 32 || got[31] != 31 {
		t.Errorf("all: %v", got)
	}
}
