package bench

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestMeanDeviation(t *testing.T) {
	for _, c := range []struct {
		x               []float64
		mean, deviation float64
	}{{[]float64{3}, 3, 0}, {[]float64{1, 3}, 2, math.Sqrt2}, {[]float64{2, 4, 4, 4, 5, 5, 7, 9}, 5, math.Sqrt(32.0 / 7)}} {
		if mean, deviation := meanDeviation(c.x); math.Abs(mean-c.mean) > 1e-12 || math.Abs(deviation-c.deviation) > 1e-12 {
			t.Errorf("%v: %v ± %v, want %v ± %v", c.x, mean, deviation, c.mean, c.deviation)
		}
	}
}

// Against quantiles of published tables.
func TestInterval(t *testing.T) {
	for _, c := range []struct {
		x    []float64
		want float64
	}{{[]float64{1, 3}, 12.706}, {[]float64{10, 10, 10}, 0}, {[]float64{9, 10, 11}, 2.4842}, {[]float64{2, 4, 4, 4, 5, 5, 7, 9}, 1.7876}} {
		if got, ok := interval(c.x); !ok || math.Abs(got-c.want) > 1e-3 {
			t.Errorf("%v: ± %v, want %v", c.x, got, c.want)
		}
	}
	if _, ok := interval([]float64{1}); ok {
		t.Error("a single value has an interval")
	}
	for freedom, want := range map[int]float64{1: 12.706, 30: 2.042, 40: 2.0211, 120: 1.9799, 1e6: 1.96} {
		if got := student(freedom); math.Abs(got-want) > 2e-3 {
			t.Errorf("%d degrees of freedom: %v, want %v", freedom, got, want)
		}
	}
}

func TestOutliers(t *testing.T) {
	for _, c := range []struct {
		x    []float64
		want []int
	}{
		{[]float64{100, 101, 99, 100.5, 80}, []int{4}},
		{[]float64{100, 101, 99, 100.5, 102.5}, []int{}},
		{[]float64{5, 100, 101, 99, 100.5, 102, 250}, []int{0, 6}},
		{[]float64{100, 1, 100}, []int{}},           // too few to say
		{[]float64{100, 100, 100, 100, 1}, []int{}}, // most are the same: nothing to measure distance by
		{[]float64{7}, []int{}},
	} {
		if got := outliers(c.x); !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%v: outliers %v, want %v", c.x, got, c.want)
		}
	}
}

// A test ends when its mean is known, or its repeats or its time are used up.
func TestEnough(t *testing.T) {
	steady, wide := []float64{100, 100.5, 99.5}, []float64{100, 110, 90}
	for _, c := range []struct {
		samples []float64
		repeats int
		budget  time.Duration
		spent   time.Duration
		want    bool
	}{
		{nil, 5, time.Second, time.Hour, false}, // a sample there must be
		{steady[:1], 5, time.Minute, time.Second, false},
		{steady[:2], 5, time.Minute, time.Second, false}, // however alike
		{steady, 5, time.Minute, time.Second, true},
		{wide, 5, time.Minute, time.Second, false},
		{wide, 3, time.Minute, time.Second, true},
		{wide[:1], 1, 0, 0, true},
		{wide, 5, time.Minute, time.Minute, true},
		{wide[:1], 5, time.Minute, time.Hour, true},
		{wide, 5, 0, 1000 * time.Hour, false}, // no bound
	} {
		o := Options{Repeats: c.repeats, Budget: c.budget}
		if got := o.enough(c.samples, c.spent); got != c.want {
			t.Errorf("%v of %d in %v of %v: %v, want %v", c.samples, c.repeats, c.spent, c.budget, got, c.want)
		}
	}
}
