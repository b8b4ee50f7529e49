package cpu

import (
	"runtime"
	"sync/atomic"
)

// pool runs a function on n workers at once; the caller is worker 0. Workers
// spin for a while after each run, since the next one usually follows within
// microseconds, then park.
type pool struct {
	n     int
	fn    func(id int)
	gen   atomic.Uint32 // counts runs
	_     [60]byte
	left  atomic.Int32 // workers still busy
	_     [60]byte
	quit  bool
	sleep []sleeper // by worker; 0 unused
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
	for id := 1; id < n; id++ {
		p.sleep[id].wake = make(chan struct{}, 1)
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
	for i := 0; p.left.Load() != 0; i++ {
		p.wait(i)
	}
}

func (p *pool) release() {
	p.left.Store(int32(p.n - 1))
	p.gen.Add(1)
	for id := 1; id < p.n; id++ {
		if s := &p.sleep[id]; s.parked.CompareAndSwap(true, false) {
			s.wake <- struct{}{}
		}
	}
}

func (p *pool) work(id int) {
	s := &p.sleep[id]
	for last := uint32(0); ; last++ {
		for i := 0; p.gen.Load() == last; i++ {
			if i < spins {
				p.wait(i)
				continue
			}
			s.parked.Store(true)
			if p.gen.Load() == last || !s.parked.CompareAndSwap(true, false) {
				<-s.wake
			}
		}
		if p.quit {
			p.left.Add(-1)
			return
		}
		p.fn(id)
		p.left.Add(-1)
	}
}

// wait is one turn of a spin.
func (p *pool) wait(i int) {
	if p.yield || i > spins {
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
	for i := 0; p.left.Load() != 0; i++ {
		p.wait(i)
	}
}
