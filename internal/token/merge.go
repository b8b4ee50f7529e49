package token

import "iter"

// merger joins neighbouring symbols, best rank first and leftmost first among
// equals, until no pair may be joined. The symbols are a linked list, the
// candidates a heap: n symbols take O(n log n).
type merger struct {
	symbols []symbol
	heap    []pair
}

// symbol is text[off:off+n]; n is 0 once another has swallowed it. prev and
// next index symbols, -1 at the ends.
type symbol struct {
	off, n, prev, next int32
	id                 int32 // the encoder's name for the text, -1: none
}

// pair is a candidate: symbol left (the low half of key) and its neighbour make
// id, size bytes in all. The high half of key is the rank, lower is better.
type pair struct {
	key      uint64
	size, id int32
}

// fan is the children of a pair in the heap: four lie in one cache line.
const fan = 4

// joiner says with what rank, and to what id, two symbols may be joined.
type joiner func(left, right *symbol) (rank uint32, id int32, ok bool)

// reset makes room for a new text.
func (m *merger) reset() { m.symbols, m.heap = m.symbols[:0], m.heap[:0] }

// add appends a symbol of n bytes to the list.
func (m *merger) add(n int, id int32) {
	i := int32(len(m.symbols))
	s := symbol{n: int32(n), prev: i - 1, next: -1, id: id}
	if i > 0 {
		last := &m.symbols[i-1]
		s.off = last.off + last.n
		last.next = i
	}
	m.symbols = append(m.symbols, s)
}

// run joins all that may be joined.
func (m *merger) run(join joiner) {
	for i := range m.symbols {
		if p, ok := m.candidate(int32(i), join); ok {
			m.heap = append(m.heap, p)
		}
	}
	for i := len(m.heap) / fan; i >= 0 && len(m.heap) > 1; i-- {
		m.down(i)
	}
	for len(m.heap) > 0 {
		p := m.pop()
		i := int32(uint32(p.key))
		left := &m.symbols[i]
		if left.n == 0 || left.next < 0 {
			continue
		}
		right := &m.symbols[left.next]
		if left.n+right.n != p.size { // one of them has grown since
			continue
		}
		left.n, left.id, left.next = p.size, p.id, right.next
		right.n = 0
		if right.next >= 0 {
			m.symbols[right.next].prev = i
		}
		if left.prev >= 0 {
			m.push(left.prev, join)
		}
		m.push(i, join)
	}
}

// left yields the symbols that are left, in order.
func (m *merger) left() iter.Seq[symbol] {
	return func(yield func(symbol) bool) {
		for i := int32(0); i >= 0 && len(m.symbols) > 0; i = m.symbols[i].next {
			if !yield(m.symbols[i]) {
				return
			}
		}
	}
}

// candidate is the pair of symbol i and its right neighbour.
func (m *merger) candidate(i int32, join joiner) (pair, bool) {
	left := &m.symbols[i]
	if left.next < 0 {
		return pair{}, false
	}
	right := &m.symbols[left.next]
	rank, id, ok := join(left, right)
	return pair{key: uint64(rank)<<32 | uint64(i), size: left.n + right.n, id: id}, ok
}

func (m *merger) push(i int32, join joiner) {
	p, ok := m.candidate(i, join)
	if !ok {
		return
	}
	m.heap = append(m.heap, p)
	at := len(m.heap) - 1
	for at > 0 {
		up := (at - 1) / fan
		if m.heap[up].key <= p.key {
			break
		}
		m.heap[at] = m.heap[up]
		at = up
	}
	m.heap[at] = p
}

func (m *merger) pop() pair {
	top := m.heap[0]
	last := len(m.heap) - 1
	m.heap[0] = m.heap[last]
	m.heap = m.heap[:last]
	if last > 1 {
		m.down(0)
	}
	return top
}

// down lets the pair at index at sink to its place.
func (m *merger) down(at int) {
	p := m.heap[at]
	for {
		child := fan*at + 1
		if child >= len(m.heap) {
			break
		}
		for i, last := child+1, min(child+fan, len(m.heap)); i < last; i++ {
			if m.heap[i].key < m.heap[child].key {
				child = i
			}
		}
		if p.key <= m.heap[child].key {
			break
		}
		m.heap[at] = m.heap[child]
		at = child
	}
	m.heap[at] = p
}
