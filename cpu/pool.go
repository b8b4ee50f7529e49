package cpu

import (
	"runtime"
	"sync/atomic"
	"time"
)

// pool runs a function on several workers at once; the caller is worker 0.
// Whoever waits spins for a while, since it usually ends within microseconds,
// then parks: on a busy machine a spinner may hold the core that the others need.
type pool struct {
	n      int // workers there are
	active int // how many of them run, the first; the others are parked
	fn     func(id int)
	state  atomic.Uint64 // runs so far << activeBits | active
	_      [56]byte
	left   atomic.Int32 // workers still busy
	first  atomic.Int64 // when the first was done, in a timed run; 0: not yet
	_      [48]byte
	quit   bool
	sleep  []sleeper // by worker; 0 is the caller
	idle   []idler   // by worker
	// ahead is what worker id reads first in some run to come, nil where that is not known;
	// it is called while a run is under way.
	ahead func(id int) []byte
	fetch func(b []byte) byte // touches memory
	// with more spinners than processors a spinner would keep a worker from running
	yield bool
	cpus  places
	loose bool // workers may leave their places, to make room for another process

	pace  *pace // of the kind of batch under way:
	paces struct{ decode, prompt pace }
	epoch time.Time
	start int64 // of the batch, in ns
	took  int64 // the last one
	count int   // of batches
	timed bool  // whether pace counts it:
	lost  int64 // ns from the first worker's end to the last's, of all its runs,
	did   int64 // and what they did, in any unit
}

// untimed is how short a batch is measured only now and then, since reading the
// clock twice a run would cost 1 % of it.
const untimed = 1e6

const (
	activeBits = 16 // more workers than anyone asks for
	activeMask = 1<<activeBits - 1
)

type sleeper struct {
	parked atomic.Bool
	wake   chan struct{}
	_      [48]byte
}

// idler is what a worker that waits fetches ahead: memory is all that decoding waits for,
// and has nothing to do while one worker norms or turns rows and while the last ends a run.
type idler struct {
	first *byte  // of what was last given
	left  []byte // of that
	sum   byte   // of what fetch made of it
	_     [31]byte
}

// fetchStep is how much is fetched between two looks.
const fetchStep = 512

// touch reads a byte of every line, so that they are in the caches. A processor may drop what it is only asked for: of
// 128 KiB that a Zen 4 was to prefetch it spared nothing of the time that reading them takes.
func touch(b []byte) (sum byte) {
	for i := 0; i < len(b); i += 64 {
		sum += b[i]
	}
	return sum
}

// give is called by the worker at the end of its part, since the caller may change what is
// ahead once all have ended theirs.
func (p *pool) give(id int) {
	if p.ahead == nil {
		return
	}
	if b, w := p.ahead(id), &p.idle[id]; len(b) > 0 && w.first != &b[0] {
		w.first, w.left = &b[0], b
	}
}

// spins is how often a worker looks before it parks: about 100 µs.
const spins = 2000

func newPool(n int, cpus places) *pool {
	p := &pool{n: n, active: n, sleep: make([]sleeper, n), idle: make([]idler, n), fetch: touch, yield: n > runtime.GOMAXPROCS(0), cpus: cpus, epoch: time.Now()}
	p.paces.decode, p.paces.prompt = newPace(n), newPace(n)
	for id := range n {
		p.sleep[id].wake = make(chan struct{}, 1)
	}
	for id := 1; id < n; id++ {
		go p.work(id)
	}
	return p
}

// begin opens a batch of runs. Pace says how many workers run. In prompts, and where
// others hold a core, they may leave their places: on two cores with such a load,
// prompts were 1.3 to 2 times as fast that way.
func (p *pool) begin(decode bool) {
	p.pace = &p.paces.prompt
	if decode {
		p.pace = &p.paces.decode
	}
	p.active, p.did, p.lost, p.start = p.pace.active, 0, 0, p.now()
	p.loose = !decode || p.active < p.n
	p.cpus.bind(0, p.loose)
	p.count++
	p.timed = p.n > 1 && (p.took > untimed || p.count%8 == 0)
}

// end closes it.
func (p *pool) end() {
	now := p.now()
	p.took = now - p.start
	if p.timed {
		p.pace.add(now, p.did, p.took, p.lost)
	}
	p.timed = false
	p.cpus.free()
}

// run calls fn(0) ... fn(active-1) at once and returns when all are done.
func (p *pool) run(fn func(id int)) {
	if p.active == 1 {
		fn(0)
		return
	}
	p.fn = fn
	p.first.Store(0)
	p.release(p.active)
	fn(0)
	p.give(0)
	if p.timed {
		p.stamp()
	}
	p.join()
	if p.timed {
		p.lost += p.now() - p.first.Load()
	}
}

// runs is how often all workers have met.
func (p *pool) runs() int { return int(p.state.Load() >> activeBits) }

// now is nanoseconds since the pool was made.
func (p *pool) now() int64 { return int64(time.Since(p.epoch)) }

// stamp keeps when the first worker was done.
func (p *pool) stamp() {
	if p.first.Load() == 0 {
		p.first.CompareAndSwap(0, p.now())
	}
}

// join waits until every worker is done.
func (p *pool) join() {
	for i := 0; p.left.Load() != 0; i++ {
		if i < spins {
			p.wait(0)
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

func (p *pool) release(active int) {
	p.left.Store(int32(active - 1))
	was := int(p.state.Load() & activeMask)
	p.state.Add(uint64(1<<activeBits + active - was)) // Add, not Store: see park
	for id := 1; id < active; id++ {
		p.sleep[id].unpark()
	}
}

// calls says whether a state differs from the last and wants worker id.
func calls(state, last uint64, id int) bool {
	return state != last && id < int(state&activeMask)
}

func (p *pool) work(id int) {
	loose := false
	p.cpus.bind(id, loose) // for good: the thread ends with its goroutine
	for last := uint64(0); ; {
		state := p.state.Load()
		for i := 0; !calls(state, last, id); i++ {
			if i < spins {
				p.wait(id)
			} else {
				p.sleep[id].park(func() bool { return calls(p.state.Load(), last, id) })
			}
			state = p.state.Load()
		}
		last = state
		if p.quit {
			p.finish()
			return
		}
		if loose != p.loose {
			loose = p.loose
			p.cpus.bind(id, loose)
		}
		p.fn(id)
		p.give(id)
		if p.timed {
			p.stamp()
		}
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

// wait is one turn of a worker's spin.
func (p *pool) wait(id int) {
	if p.yield {
		runtime.Gosched()
		return
	}
	if w := &p.idle[id]; len(w.left) >= fetchStep {
		w.sum += p.fetch(w.left[:fetchStep])
		w.left = w.left[fetchStep:]
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
	p.release(p.n)
	p.join()
}
