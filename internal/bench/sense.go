package bench

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"drover/backend"
)

// gauge is what one device's sensors have told during a test.
type gauge struct {
	device backend.Device
	energy curve
	dumb   bool // a reading had neither energy nor power
	before backend.Sensors
	busy   []float64 // MHz while it worked
	why    []string  // it was throttled
	told   bool      // of throttling
}

// read takes the sensors; busy: the device works, or has just stopped.
func (g *gauge) read(at time.Time, busy bool) backend.Sensors {
	s := g.device.Sensors()
	g.take(s, at, busy)
	return s
}

func (g *gauge) take(s backend.Sensors, at time.Time, busy bool) {
	switch {
	case s.Joules != nil:
		g.energy.count(at, *s.Joules)
	case s.Watts != nil:
		g.energy.power(at, *s.Watts)
	default:
		g.dumb = true
	}
	g.told = g.told || s.Throttle != nil || s.MHz != nil
	if !busy {
		return
	}
	if s.MHz != nil {
		g.busy = append(g.busy, *s.MHz)
	}
	for _, why := range s.Throttle {
		if !slices.Contains(g.why, why) {
			g.why = append(g.why, why)
		}
	}
}

// A clock that falls by more than slower under load means throttling.
const slower = 0.05

// throttled is why the device was slower than it could be.
func (g *gauge) throttled() []string {
	why := slices.Clone(g.why)
	if len(g.busy) > 0 {
		if lo, hi := slices.Min(g.busy), slices.Max(g.busy); lo < (1-slower)*hi {
			why = append(why, fmt.Sprintf("clock from %.0f to %.0f MHz", hi, lo))
		}
	}
	return why
}

// curve is the energy taken up to each of some moments, in joules.
type curve struct {
	at     []time.Time
	joules []float64
	watts  float64 // at the last moment, where power is what is told
}

func (c *curve) count(at time.Time, joules float64) {
	c.at, c.joules = append(c.at, at), append(c.joules, joules)
}

// power adds the trapezoid between two readings of power.
func (c *curve) power(at time.Time, watts float64) {
	sum := 0.0
	if n := len(c.at); n > 0 {
		sum = c.joules[n-1] + (c.watts+watts)/2*at.Sub(c.at[n-1]).Seconds()
	}
	c.count(at, sum)
	c.watts = watts
}

// between is the energy between two moments, straight lines between readings;
// false where they are not within the readings.
func (c *curve) between(from, to time.Time) (float64, bool) {
	a, ok := c.value(from)
	b, also := c.value(to)
	return b - a, ok && also
}

func (c *curve) value(at time.Time) (float64, bool) {
	i, found := slices.BinarySearchFunc(c.at, at, time.Time.Compare)
	if found {
		return c.joules[i], true
	}
	if i == 0 || i == len(c.at) {
		return 0, false
	}
	share := float64(at.Sub(c.at[i-1])) / float64(c.at[i].Sub(c.at[i-1]))
	return c.joules[i-1] + share*(c.joules[i]-c.joules[i-1]), true
}

// meter reads the sensors of a test's devices. The first device is the one whose
// clock and temperature are shown.
type meter struct{ gauges []*gauge }

// readEvery is how often sensors are read meanwhile: power meters of cards give a
// new value about as often.
const readEvery = 100 * time.Millisecond

func newMeter(devices []backend.Device) *meter {
	m := &meter{}
	for _, d := range devices {
		g := &gauge{device: d}
		g.before = g.read(time.Now(), false)
		m.gauges = append(m.gauges, g)
	}
	return m
}

// watch reads the sensors until the function that it gives is called, which says
// what the first device's tell then. Devices without sensors cost nothing.
func (m *meter) watch() (stop func() backend.Sensors) {
	for _, g := range m.gauges {
		g.read(time.Now(), false)
	}
	done := make(chan struct{})
	var reading sync.WaitGroup
	if slices.ContainsFunc(m.gauges, func(g *gauge) bool { return g.told || !g.dumb }) {
		reading.Go(func() {
			tick := time.NewTicker(readEvery)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case now := <-tick.C:
					for _, g := range m.gauges {
						g.read(now, true)
					}
				}
			}
		})
	}
	return func() backend.Sensors {
		close(done)
		reading.Wait()
		var first backend.Sensors
		for i, g := range m.gauges {
			if s := g.read(time.Now(), true); i == 0 {
				first = s
			}
		}
		return first
	}
}

// energy is what all devices together took between two moments; false where one
// does not tell.
func (m *meter) energy(from, to time.Time) (joules float64, ok bool) {
	for _, g := range m.gauges {
		j, ok := g.energy.between(from, to)
		if g.dumb || !ok {
			return 0, false
		}
		joules += j
	}
	return joules, true
}

// throttled is why devices were slower than they could be; nil where none tells.
func (m *meter) throttled() []string {
	var why []string
	for _, g := range m.gauges {
		if !g.told {
			continue
		}
		if why == nil {
			why = []string{}
		}
		for _, w := range g.throttled() {
			if len(m.gauges) > 1 {
				w = g.device.Info().ID + ": " + w
			}
			why = append(why, w)
		}
	}
	return why
}
