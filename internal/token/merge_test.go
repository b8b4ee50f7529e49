package token

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMergeEqualsSearch compares the heap with a search for the best pair
// before each step, which is the definition of BPE.
func TestMergeEqualsSearch(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	for n := range 300 {
		// a symbol's id is its length and its letters' sum: few ids, many ties
		ranks := make(map[[2]int32]uint32)
		join := func(l, r *symbol) (uint32, int32, bool) {
			rank, ok := ranks[[2]int32{l.id, r.id}]
			return rank, l.id + r.id, ok
		}
		for range 1 + r.IntN(60) {
			ranks[[2]int32{r.Int32N(9), r.Int32N(9)}] = r.Uint32N(12)
		}
		var m merger
		var list []symbol
		for range r.IntN(200) {
			id := r.Int32N(3)
			m.add(1, id)
			list = append(list, symbol{n: 1, id: id})
		}
		m.run(join)
		var got, want []string
		for y := range m.left() {
			got = append(got, fmt.Sprint(y.off, y.n, y.id))
		}
		list = search(list, join)
		off := int32(0)
		for _, y := range list {
			want = append(want, fmt.Sprint(off, y.n, y.id))
			off += y.n
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, case %d:\ngot  %v\nwant %v", seed, n, got, want)
		}
	}
}

func search(list []symbol, join joiner) []symbol {
	for {
		best, at, id := uint32(0), -1, int32(0)
		for i := range len(list) - 1 {
			if rank, to, ok := join(&list[i], &list[i+1]); ok && (at < 0 || rank < best) {
				best, at, id = rank, i, to
			}
		}
		if at < 0 {
			return list
		}
		list[at] = symbol{n: list[at].n + list[at+1].n, id: id}
		list = slices.Delete(list, at+1, at+2)
	}
}
