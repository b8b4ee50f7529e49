package bench

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"drover/backend"
)

// at is a moment of a made-up clock.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func number(x float64) *float64 { return &x }

// Energy between moments: of a counter, and of power at some of them.
func TestCurve(t *testing.T) {
	var counter, power curve
	for i, j := range []float64{500, 510, 540} {
		counter.count(at(float64(i)), j)
	}
	for i, w := range []float64{100, 200, 200} { // 150 J, then 200 J
		power.power(at(float64(i)), w)
	}
	for _, c := range []struct {
		name     string
		curve    *curve
		from, to float64
		want     float64
		ok       bool
	}{
		{"counter", &counter, 0, 2, 40, true},
		{"counter, between readings", &counter, 0.5, 1.5, 20, true},
		{"counter, before the first", &counter, -0.5, 1, 0, false},
		{"counter, after the last", &counter, 1, 2.5, 0, false},
		{"power", &power, 0, 2, 350, true},
		{"power, between readings", &power, 0.5, 1.5, 175, true},
		{"nothing", &curve{}, 0, 1, 0, false},
	} {
		got, ok := c.curve.between(at(c.from), at(c.to))
		if ok != c.ok || ok && math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v J, %v; want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// A device is throttled if it says so, or if its clock falls while it works; what
// an idle one's clock does is nothing.
func TestThrottled(t *testing.T) {
	mhz := func(all ...float64) (list []backend.Sensors) {
		for _, m := range all {
			list = append(list, backend.Sensors{MHz: number(m)})
		}
		return list
	}
	for _, c := range []struct {
		name     string
		idle     backend.Sensors
		busy     []backend.Sensors
		want     []string
		nobody   bool // tells
		noEnergy bool
	}{
		{"steady", mhz(300)[0], mhz(2000, 1950, 1980), []string{}, false, true},
		{"falling", mhz(300)[0], mhz(2000, 1990, 1800), []string{"clock from 2000 to 1800 MHz"}, false, true},
		{"reasons", backend.Sensors{Throttle: []string{"old"}}, []backend.Sensors{{Throttle: []string{"a"}}, {Throttle: []string{"b", "a"}}}, []string{"a", "b"}, false, true},
		{"none", backend.Sensors{Throttle: []string{}}, []backend.Sensors{{Throttle: []string{}}}, []string{}, false, true},
		{"no sensors", backend.Sensors{}, make([]backend.Sensors, 2), nil, true, true},
		{"only energy", backend.Sensors{Joules: number(1)}, []backend.Sensors{{Joules: number(2)}}, nil, true, false},
	} {
		g := &gauge{}
		g.take(c.idle, at(0), false)
		for i, s := range c.busy {
			g.take(s, at(float64(i+1)), true)
		}
		m := &meter{[]*gauge{g}}
		got := m.throttled()
		if !slices.Equal(got, c.want) || (got == nil) != c.nobody {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if _, ok := m.energy(at(0), at(1)); ok == c.noEnergy {
			t.Errorf("%s: energy told: %v", c.name, ok)
		}
	}
}

// The energy of several devices is their sum, and unknown where one does not tell,
// or stops to.
func TestMeterEnergy(t *testing.T) {
	gauges := []*gauge{{}, {}}
	for i := range 3 {
		gauges[0].take(backend.Sensors{Watts: number(100)}, at(float64(i)), true)
		gauges[1].take(backend.Sensors{Joules: number(50 * float64(i))}, at(float64(i)), true)
	}
	m := &meter{gauges}
	if got, ok := m.energy(at(0.5), at(2)); !ok || got != 225 {
		t.Errorf("%v J, %v; want 225", got, ok)
	}
	gauges[1].take(backend.Sensors{}, at(3), true)
	if got, ok := m.energy(at(0.5), at(2)); ok {
		t.Errorf("%v J, and one device has stopped to tell", got)
	}
}

// A record has what the sensors told: clocks before and after, and what was wrong.
func TestRecordSensors(t *testing.T) {
	readings := 0
	d := &device{sensors: func() backend.Sensors {
		readings++
		return backend.Sensors{MHz: number(2000), Celsius: number(40 + float64(readings)), Joules: number(float64(readings)), Throttle: []string{"power limit"}}
	}}
	got, err := collect(t.Context(), d, []Test{{Gen: 4, Sequences: 1}}, options)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	r := got[0]
	if len(r.Clocks) != 1+options.Repeats || len(r.Celsius) != 1+options.Repeats || r.Celsius[0] != 41 || r.Celsius[0] >= r.Celsius[1] {
		t.Errorf("clocks %v, temperatures %v", r.Clocks, r.Celsius)
	}
	if r.Throttled == nil || !*r.Throttled || !slices.Equal(r.ThrottledBy, []string{"power limit"}) || r.Joules == nil {
		t.Errorf("throttled %v by %q, %v J a token", r.Throttled, r.ThrottledBy, r.Joules)
	}
	d.sensors = func() backend.Sensors { return backend.Sensors{} }
	d.log = nil
	if got, err = collect(t.Context(), d, []Test{{Gen: 4, Sequences: 1}}, options); err != nil {
		t.Fatal(err)
	}
	if r := got[0]; r.Clocks != nil || r.Celsius != nil || r.Throttled != nil || r.ThrottledBy != nil || r.Joules != nil {
		t.Errorf("a device without sensors: %+v", r)
	}
}

// A device that is lost ends the run: it is not measured on another.
func TestLostEndsTheRun(t *testing.T) {
	d := &device{failAt: 3, fail: backend.ErrLost}
	got, err := collect(t.Context(), d, []Test{{Gen: 4, Sequences: 1}}, options)
	if !errors.Is(err, backend.ErrLost) || len(got) != 0 {
		t.Errorf("%d records, %v", len(got), err)
	}
}
