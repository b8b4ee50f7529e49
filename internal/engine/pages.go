package engine

import "drover/backend"

// pages is who holds which page of the cache, and which tokens' keys and
// values the published ones hold. A page is free, held by one or more
// sequences, or cached: published, held by nobody, and taken back when no free
// page is left, the longest unused first.
//
// A published page has a serial number that no other content ever gets. A page
// is found by its parent's serial and its own tokens, compared one by one, so
// that a match from the first page on means the same tokens from the start.
type pages struct {
	refs   []int32  // (pages) sequences that hold the page
	serial []uint64 // (pages) 0: not published
	key    []pageKey
	tokens []int32 // (pages, PageRows), of published pages
	index  map[pageKey]int32
	free   []int32
	last   uint64 // last serial given

	// the cached pages as a ring through the extra element len(refs): next of
	// that is the longest unused
	next, prev []int32
	cached     int
}

// pageKey finds a page: parent is the serial of the page before it, 0 for the
// first page of a sequence.
type pageKey struct{ parent, hash uint64 }

func newPages(n int) *pages {
	p := &pages{
		refs: make([]int32, n), serial: make([]uint64, n), key: make([]pageKey, n),
		tokens: make([]int32, n*backend.PageRows), index: make(map[pageKey]int32),
		next: make([]int32, n+1), prev: make([]int32, n+1),
	}
	for i := n - 1; i >= 0; i-- {
		p.free = append(p.free, int32(i))
	}
	p.next[n], p.prev[n] = int32(n), int32(n)
	return p
}

// available is how many pages take can give.
func (p *pages) available() int { return len(p.free) + p.cached }

// take gives a page that nobody holds, or false.
func (p *pages) take() (int32, bool) {
	if n := len(p.free); n > 0 {
		page := p.free[n-1]
		p.free = p.free[:n-1]
		p.refs[page] = 1
		return page, true
	}
	if p.cached == 0 {
		return -1, false
	}
	page := p.next[len(p.refs)]
	p.unlink(page)
	delete(p.index, p.key[page])
	p.serial[page] = 0
	p.refs[page] = 1
	return page, true
}

// hold adds a holder to a page that find gave.
func (p *pages) hold(page int32) {
	if p.refs[page] == 0 {
		p.unlink(page)
	}
	p.refs[page]++
}

// release takes one holder off a page.
func (p *pages) release(page int32) {
	p.refs[page]--
	switch {
	case p.refs[page] < 0:
		panic("BUG: page released twice")
	case p.refs[page] > 0:
	case p.serial[page] != 0:
		end := int32(len(p.refs))
		p.prev[page], p.next[page] = p.prev[end], end
		p.next[p.prev[page]], p.prev[end] = page, page
		p.cached++
	default:
		p.free = append(p.free, page)
	}
}

func (p *pages) unlink(page int32) {
	p.next[p.prev[page]], p.prev[p.next[page]] = p.next[page], p.prev[page]
	p.cached--
}

// find gives the published page with these tokens (PageRows) after parent.
func (p *pages) find(parent uint64, tokens []int32) (page int32, serial uint64, ok bool) {
	page, ok = p.index[pageKey{parent, hash(tokens)}]
	if !ok || !p.holds(page, tokens) {
		return -1, 0, false
	}
	return page, p.serial[page], true
}

func (p *pages) holds(page int32, tokens []int32) bool {
	own := p.tokens[int(page)*backend.PageRows:]
	for i, id := range tokens {
		if own[i] != id {
			return false
		}
	}
	return true
}

// publish says that a held page is full and holds tokens (PageRows) after
// parent. It gives the serial of that content: another page's, if one was
// published before. false: another content has the same hash, the page stays
// unpublished and nothing can follow it.
func (p *pages) publish(page int32, parent uint64, tokens []int32) (serial uint64, ok bool) {
	key := pageKey{parent, hash(tokens)}
	if other, taken := p.index[key]; taken {
		return p.serial[other], p.holds(other, tokens)
	}
	p.last++
	p.serial[page], p.key[page], p.index[key] = p.last, key, page
	copy(p.tokens[int(page)*backend.PageRows:][:backend.PageRows], tokens)
	return p.last, true
}

// hash mixes ids; a collision only costs a page its publication.
func hash(tokens []int32) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, id := range tokens {
		h = (h ^ uint64(uint32(id))) * 0xff51afd7ed558ccd
		h ^= h >> 32
	}
	return h
}
