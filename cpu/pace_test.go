package cpu

import "testing"

// busyCore is a machine for pace: n workers do n units of work a ms, and where another
// process holds a core all of them wait half of the time.
type busyCore struct {
	pace pace
	now  int64
	held bool
	// what n workers do when nothing is held: gain[n-1]
	rate []float64
}

// run lets so many ns pass in batches of 2 ms, and says what share of the time ran
// with how many workers, and the work done.
func (m *busyCore) run(ns int64) (share []float64, work float64) {
	const step = 2e6
	share = make([]float64, m.pace.most+1)
	for end := m.now + ns; m.now < end; m.now += step {
		n := m.pace.active
		rate, lost := m.rate[n-1], 0.05
		if m.held && n == m.pace.most {
			rate, lost = rate/2.5, 0.5
		}
		share[n] += step / float64(ns)
		work += rate * step
		m.pace.add(m.now+step, int64(rate*step), step, int64(lost*step))
	}
	return share, work
}

func TestPace(t *testing.T) {
	const second = 1e9
	for _, rate := range [][]float64{{1, 2}, {1, 1.6}, {1, 2, 3, 4, 5, 6, 7, 8}} {
		n := len(rate)
		m := &busyCore{pace: newPace(n), rate: rate}
		if share, _ := m.run(10 * second); share[n] < 0.999 {
			t.Errorf("%d workers, idle machine: %v", n, share)
		}
		m.held = true
		m.run(second)
		if share, _ := m.run(20 * second); share[n-1] < 0.97 {
			t.Errorf("%d workers, a core taken: %v", n, share)
		}
		m.held = false
		m.run(paceSeldom + second)
		if share, _ := m.run(10 * second); share[n] < 0.999 {
			t.Errorf("%d workers, the core given back: %v", n, share)
		}
	}
}

// TestPaceNoGain: time is lost, but one worker less is no faster; the trials must
// cost little.
func TestPaceNoGain(t *testing.T) {
	m := &busyCore{pace: newPace(2), rate: []float64{0.7, 2}, held: true} // 0.8 with both
	m.run(30e9)
	share, _ := m.run(100e9)
	if share[1] > 0.01 || share[1] == 0 {
		t.Errorf("%v", share)
	}
}

// TestPaceStall: one long stall is no reason to change.
func TestPaceStall(t *testing.T) {
	m := &busyCore{pace: newPace(2), rate: []float64{1, 2}}
	m.run(1e9)
	m.pace.add(m.now, 1, 200e6, 150e6)
	if share, _ := m.run(1e9); share[2] < 0.999 {
		t.Errorf("%v", share)
	}
}

// TestPaceBursts: where others come for a moment again and again, little is lost
// against always running all workers.
func TestPaceBursts(t *testing.T) {
	rate := []float64{1, 1.25}
	work := func(fixed bool) float64 {
		m := &busyCore{pace: newPace(2), rate: rate}
		if fixed {
			m.pace.drop = 1 << 62
		}
		sum := 0.0
		for range 60 {
			for _, m.held = range []bool{true, false} {
				_, w := m.run(map[bool]int64{true: 100e6, false: 400e6}[m.held])
				sum += w
			}
		}
		return sum
	}
	if got, want := work(false), work(true); got < 0.98*want {
		t.Errorf("%g of the work", got/want)
	}
}
