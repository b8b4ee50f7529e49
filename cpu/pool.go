package cpu

import (
	"runtime"
	"sync/atomic"
)

// pool runs a function on n workers at once; the caller is worker 0. Whoever
// waits spins for a while, since it usually ends within microseconds, then
// parks: on a busy machine a spinner may hold the core that the others need.
type pool struct {
	n     int
	fn    func(id int)
	gen   atomic.Uint32 // counts runs
	_     [60]byte
	left  atomic.Int32 // workers still busy
	_     [60]byte
	quit  bool
	sleep []sleeper // by worker; 0 is the caller
	// with more spinners than processors a spinner would keep a worker from running
	yield bool
}

type sleeper struct {
	parked atomic.Bool
	wake   chan struct{}
	_      [48]byte
}

// spins is how often a worker looks before it parks: about 100 µs.
const spins = 2000

func newPool(n int) *pool {
	p := &pool{n: n, sleep: make([]sleeper, n), yield: n > runtime.GOMAXPROCS(0)}
	for id := range n {
		p.sleep[id].wake = make(chan struct{}, 1)
	}
	for id := 1; id < n; id++ {
		go p.work(id)
	}
	return p
}

// run calls fn(0) ... fn(n-1) at once and returns when all are done.
func (p *pool) run(fn func(id int)) {
	if p.n == 1 {
		fn(0)
		return
	}
	p.fn = fn
	p.release()
	fn(0)
	p.join()
}

// join waits until every worker is done.
func (p *pool) join() {
	for i := 0; p.left.Load() != 0; i++ {
		if i < spins {
			p.wait()
			continue
		}
		p.sleep[0].park(func() bool { return p.left.Load() == 0 })
	}
}

// finish says that a worker is done.
func (p *pool) finish() {
	if p.left.Add(-1) == 0 {
		p.sleep[0].unpark()
	}
}

func (p *pool) release() {
	p.left.Store(int32(p.n - 1))
	p.gen.Add(1)
	for id := 1; id < p.n; id++ {
		p.sleep[id].unpark()
	}
}

func (p *pool) work(id int) {
	for last := uint32(0); ; last++ {
		for i := 0; p.gen.Load() == last; i++ {
			if i < spins {
				p.wait()
				continue
			}
			p.sleep[id].park(func() bool { return p.gen.Load() != last })
		}
		if p.quit {
			p.finish()
			return
		}
		p.fn(id)
		p.finish()
	}
}

// park sleeps until unpark, unless done already. Swap, not Store: on amd64, QEMU
// 7.2 lets an atomic load of arm64 overtake an atomic store, so that neither side
// sees the other.
func (s *sleeper) park(done func() bool) {
	s.parked.Swap(true)
	if !done() || !s.parked.CompareAndSwap(true, false) {
		<-s.wake
	}
}

// unpark wakes a sleeper that has parked; what makes it done comes before.
func (s *sleeper) unpark() {
	if s.parked.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// wait is one turn of a spin.
func (p *pool) wait() {
	if p.yield {
		runtime.Gosched()
		return
	}
	pause()
}

// close ends the workers.
func (p *pool) close() {
	if p.n == 1 || p.quit {
		return
	}
	p.quit = true
	p.release()
	p.join()
}
