package sample

import "slices"

// window holds the last tokens of a sequence, sorted as well as in order, so
// that counting them needs neither a map nor an allocation.
type window struct {
	last   int     // how many tokens to remember; 0: none, -1: all
	ring   []int32 // in order; the oldest is at next once the ring is full
	next   int
	sorted []int32 // the same ids, ascending
}

func (w *window) add(id int32) {
	switch {
	case w.last == 0:
		return
	case w.last < 0: // order does not matter where nothing is forgotten
	case len(w.ring) < w.last:
		w.ring = append(w.ring, id)
	default:
		old, _ := slices.BinarySearch(w.sorted, w.ring[w.next])
		w.sorted = slices.Delete(w.sorted, old, old+1)
		w.ring[w.next] = id
		w.next = (w.next + 1) % w.last
	}
	at, _ := slices.BinarySearch(w.sorted, id)
	w.sorted = slices.Insert(w.sorted, at, id)
}

// each calls f for every different id, ascending, with how often it is there.
func (w *window) each(f func(id int32, count int)) {
	for lo := 0; lo < len(w.sorted); {
		hi := lo + 1
		for hi < len(w.sorted) && w.sorted[hi] == w.sorted[lo] {
			hi++
		}
		f(w.sorted[lo], hi-lo)
		lo = hi
	}
}
