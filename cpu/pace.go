package cpu

// pace decides how many workers run. When another process takes a core,
// the worker on it stands still for milliseconds, every run waits for it, and one
// worker less is often faster, as the system then moves the rest to free cores.
// So where workers wait long for each other, it tries one less, and keeps that
// only if work is done faster; later it tries one more in the same way. The
// results are the same to the bit with any number.
type pace struct {
	most, active int

	work, time, lost int64 // of the window under way: see add
	late             int   // windows in a row with much time lost,
	lateWork         int64 // and their sum
	lateTime         int64

	trial         int     // -1, +1: one worker less, more is being tried; 0: neither
	base          float64 // work/ns to compare it with
	drop, raise   int64   // when the next trial may begin,
	wait, holding int64   // and how long that is after what was found last
}

const (
	paceWindow = 25e6 // ns: some time slices of the system
	paceLate   = 3    // windows in a row; a single stall is no reason
	paceShare  = 0.3  // of the time lost; 0.02 to 0.1 is usual on an idle machine
	paceLess   = 1.1  // with one worker less it must be so much faster,
	paceMore   = 0.95 // with one more only not slower
	paceSoon   = 100e6
	paceSeldom = 4e9 // a trial of a window every so often costs < 1 %
)

func newPace(workers int) pace {
	return pace{most: workers, active: workers, wait: paceSoon, holding: paceSoon}
}

// add counts work done (in any unit) until now in so many ns, of which some
// were lost waiting, and sets how many workers are to run.
func (p *pace) add(now, work, ns, lost int64) {
	p.work, p.time, p.lost = p.work+work, p.time+ns, p.lost+lost
	if p.time < paceWindow {
		return
	}
	rate := float64(p.work) / float64(p.time)
	if p.trial == 0 {
		p.watch(now)
	} else {
		p.judge(now, rate)
	}
	p.work, p.time, p.lost = 0, 0, 0
}

// watch begins a trial where there is reason for one.
func (p *pace) watch(now int64) {
	if float64(p.lost) < paceShare*float64(p.time) {
		p.late, p.lateWork, p.lateTime = 0, 0, 0
	} else {
		p.late, p.lateWork, p.lateTime = p.late+1, p.lateWork+p.work, p.lateTime+p.time
	}
	switch {
	case p.active > 1 && p.late >= paceLate && now >= p.drop:
		p.trial, p.base = -1, float64(p.lateWork)/float64(p.lateTime)
	case p.active < p.most && now >= p.raise:
		p.trial, p.base = +1, float64(p.work)/float64(p.time)
	default:
		return
	}
	p.active += p.trial
}

// judge ends a trial. What it finds makes the next of its kind rarer or sooner: a
// worker that is missed soon after it was dropped was dropped for a passing reason.
func (p *pace) judge(now int64, rate float64) {
	later := func(pause int64) int64 { return min(2*pause, paceSeldom) }
	switch less := p.trial < 0; {
	case less && rate > paceLess*p.base:
		p.raise = now + p.holding
	case less:
		p.active++
		p.wait = later(p.wait)
	case rate > paceMore*p.base:
		p.holding, p.wait = paceSoon, later(p.wait)
	default:
		p.active--
		p.holding, p.wait = later(p.holding), paceSoon
		p.raise = now + p.holding
	}
	p.drop = now + p.wait
	p.trial, p.late, p.lateWork, p.lateTime = 0, 0, 0, 0
}
