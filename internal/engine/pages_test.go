package engine

import (
	"math/rand/v2"
	"testing"

	"drover/backend"
)

// checkPages looks at what must hold between any two calls.
func checkPages(t testing.TB, p *pages) {
	t.Helper()
	state := make([]string, len(p.refs))
	for _, page := range p.free {
		if state[page] != "" || p.refs[page] != 0 || p.serial[page] != 0 {
			t.Fatalf("free page %d: %q, %d holders, serial %d", page, state[page], p.refs[page], p.serial[page])
		}
		state[page] = "free"
	}
	n := 0
	for page := p.next[len(p.refs)]; page != int32(len(p.refs)); page = p.next[page] {
		if state[page] != "" || p.refs[page] != 0 || p.serial[page] == 0 {
			t.Fatalf("cached page %d: %q, %d holders, serial %d", page, state[page], p.refs[page], p.serial[page])
		}
		state[page] = "cached"
		n++
	}
	if n != p.cached {
		t.Fatalf("%d cached pages, counted %d", n, p.cached)
	}
	published := 0
	for page := range p.refs {
		if state[page] == "" && p.refs[page] == 0 {
			t.Fatalf("page %d is nowhere", page)
		}
		if p.serial[page] != 0 {
			published++
			if p.index[p.key[page]] != int32(page) {
				t.Fatalf("published page %d is not in the index", page)
			}
		}
	}
	if published != len(p.index) {
		t.Fatalf("%d published pages, %d in the index", published, len(p.index))
	}
}

func full(fill int32) []int32 {
	tokens := make([]int32, backend.PageRows)
	for i := range tokens {
		tokens[i] = fill
	}
	return tokens
}

func TestPages(t *testing.T) {
	p := newPages(3)
	a, _ := p.take()
	sa, ok := p.publish(a, 0, full(1))
	b, _ := p.take()
	sb, _ := p.publish(b, sa, full(2))
	if !ok || sa == sb {
		t.Fatalf("serials %d %d", sa, sb)
	}
	if got, s, ok := p.find(sa, full(2)); !ok || got != b || s != sb {
		t.Errorf("second page: found %d, serial %d, %v", got, s, ok)
	}
	if _, _, ok := p.find(0, full(2)); ok {
		t.Error("the second page's tokens were found at the start")
	}
	p.release(b)
	p.release(a)
	checkPages(t, p)
	p.hold(a)
	p.take() // the free one
	c, ok := p.take()
	if !ok || c != b {
		t.Fatalf("took %d, want the unheld cached page %d", c, b)
	}
	if _, _, ok := p.find(sa, full(2)); ok {
		t.Error("a page was found after it was taken back")
	}
	if _, ok := p.take(); ok {
		t.Error("took a fourth page of three")
	}
	checkPages(t, p)
}

// Two contents with one hash: the tokens decide.
func TestPagesCollision(t *testing.T) {
	p := newPages(2)
	a, _ := p.take()
	p.publish(a, 0, full(1))
	p.tokens[int(a)*backend.PageRows+63] = 5 // now the page of another content with that hash
	if _, _, ok := p.find(0, full(1)); ok {
		t.Error("found a page by its hash alone")
	}
	b, _ := p.take()
	if _, ok := p.publish(b, 0, full(1)); ok {
		t.Error("published over another content")
	}
	p.release(b)
	checkPages(t, p)
}

// Random use against a plain list of who holds what.
func TestPagesRandom(t *testing.T) {
	const n = 12
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		p := newPages(n)
		held := []int32{}
		content := map[int32][2]uint64{} // page: parent, fill
		for range 2000 {
			switch r.IntN(4) {
			case 0:
				page, ok := p.take()
				distinct := map[int32]bool{}
				for _, h := range held {
					distinct[h] = true
				}
				if ok != (len(distinct) < n) {
					t.Fatalf("seed %d: take %v with %d of %d held", seed, ok, len(distinct), n)
				}
				if ok {
					if distinct[page] {
						t.Fatalf("seed %d: page %d was held", seed, page)
					}
					held = append(held, page)
					delete(content, page)
				}
			case 1:
				if len(held) > 0 {
					i := r.IntN(len(held))
					p.release(held[i])
					held = append(held[:i], held[i+1:]...)
				}
			case 2:
				if len(held) > 0 {
					page := held[r.IntN(len(held))]
					parent, fill := uint64(r.IntN(3)), uint64(r.IntN(4))
					if p.serial[page] == 0 {
						p.publish(page, parent, full(int32(fill)))
						if p.serial[page] != 0 {
							content[page] = [2]uint64{parent, fill}
						}
					}
				}
			case 3:
				parent, fill := uint64(r.IntN(3)), uint64(r.IntN(4))
				if page, _, ok := p.find(parent, full(int32(fill))); ok {
					if content[page] != [2]uint64{parent, fill} {
						t.Fatalf("seed %d: found %d for %d %d, it has %v", seed, page, parent, fill, content[page])
					}
					p.hold(page)
					held = append(held, page)
				}
			}
			checkPages(t, p)
		}
	}
}
