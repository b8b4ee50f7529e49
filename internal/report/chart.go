package report

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// chart is a drawing of points in a frame, in SVG's units.
type chart struct {
	ID, Title, Text string // Text says in words what is drawn
	Heading         string // where it is not the title
	Left, Top       float64
	Right, Bottom   float64
	X, Y            []tick
	XName, YName    string
	Lines           []chartLine
	Marks           []mark
	Key             []pageColumn // the columns that are in it
	LeftOut         int          // marks
}

type tick struct {
	At    float64
	Label string
}

type chartLine struct {
	Class  string
	Dashed bool
	Points string
}

type mark struct {
	X, Y     float64
	Key      key
	Text     string
	Hollow   bool
	Lo, Hi   float64 // of the interval, in SVG's units
	Interval bool
}

// The frame's place in a drawing of 640 by 400.
const frameLeft, frameTop, frameRight, frameBottom = 74, 14, 626, 344

// axis maps values to places.
type axis struct {
	lo, hi     float64 // of the values
	from, to   float64 // of the places
	logarithms bool
}

func (a axis) at(x float64) float64 {
	lo, hi := a.lo, a.hi
	if a.logarithms {
		x, lo, hi = math.Log(x), math.Log(lo), math.Log(hi)
	}
	return math.Round(10*(a.from+(a.to-a.from)*(x-lo)/(hi-lo))) / 10
}

// ticks are round numbers: on a logarithmic axis powers of ten, with 2 and 5
// times those where these are few.
func (a axis) ticks() []tick {
	var values []float64
	if a.logarithms {
		lo, hi := int(math.Floor(math.Log10(a.lo))), int(math.Ceil(math.Log10(a.hi)))
		step := max(1, (hi-lo)/8)
		for e := lo; e <= hi; e += step {
			for _, m := range []float64{1, 2, 5} {
				if m == 1 || hi-lo <= 3 {
					values = append(values, m*math.Pow(10, float64(e)))
				}
			}
		}
	} else {
		step := math.Pow(10, math.Floor(math.Log10((a.hi-a.lo)/2)))
		for (a.hi-a.lo)/step > 6 {
			step *= 2
		}
		for x := math.Ceil(a.lo/step) * step; x <= a.hi*1.0001; x += step {
			values = append(values, x)
		}
	}
	var all []tick
	for _, v := range values {
		if v >= a.lo*0.9999 && v <= a.hi*1.0001 {
			all = append(all, tick{a.at(v), short(v)})
		}
	}
	return all
}

// timeSteps are the distances of ticks on an axis of seconds, and how a tick is
// written; one of months has the seconds of the longest.
var timeSteps = []struct {
	seconds float64
	months  int
	layout  string
}{
	{60, 0, "2 Jan 15:04"}, {120, 0, "2 Jan 15:04"}, {300, 0, "2 Jan 15:04"}, {600, 0, "2 Jan 15:04"}, {1800, 0, "2 Jan 15:04"},
	{3600, 0, "2 Jan 15:04"}, {2 * 3600, 0, "2 Jan 15:04"}, {6 * 3600, 0, "2 Jan 15:04"}, {12 * 3600, 0, "2 Jan 15:04"},
	{86400, 0, "2006-01-02"}, {2 * 86400, 0, "2006-01-02"}, {4 * 86400, 0, "2006-01-02"}, {7 * 86400, 0, "2006-01-02"}, {14 * 86400, 0, "2006-01-02"},
	{31 * 86400, 1, "2006-01"}, {62 * 86400, 2, "2006-01"}, {124 * 86400, 4, "2006-01"}, {366 * 86400, 12, "2006"}, {2 * 366 * 86400, 24, "2006"},
	{5 * 366 * 86400, 60, "2006"}, {10 * 366 * 86400, 120, "2006"}, {100 * 366 * 86400, 1200, "2006"}, {2500 * 366 * 86400, 30000, "2006"},
}

// timeTicks are up to five moments in UTC that people would name.
func timeTicks(a axis) (all []tick) {
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if (a.hi-a.lo)/s.seconds < 4 {
			step = s
			break
		}
	}
	at, next := time.Unix(int64(a.lo), 0).UTC(), func(t time.Time) time.Time { return t.Add(time.Duration(step.seconds) * time.Second) }
	if step.months == 0 {
		at = at.Truncate(time.Duration(step.seconds) * time.Second)
	} else {
		months := 12*at.Year() + int(at.Month()) - 1
		at = time.Date(0, time.Month(1+months-months%step.months), 1, 0, 0, 0, 0, time.UTC)
		next = func(t time.Time) time.Time { return t.AddDate(0, step.months, 0) }
	}
	for ; seconds(at) <= a.hi; at = next(at) {
		if seconds(at) < a.lo {
			continue
		}
		t := tick{At: a.at(seconds(at))}
		if t.At < frameRight-40 { // a name further right would leave the drawing
			t.Label = at.Format(step.layout)
		}
		all = append(all, t)
	}
	return all
}

func seconds(t time.Time) float64 { return float64(t.Unix()) }

// short is a number with a unit's prefix.
func short(x float64) string {
	if x == 0 {
		return "0"
	}
	for _, u := range []struct {
		size float64
		name string
	}{{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if x >= u.size*0.9999 {
			return fmt.Sprintf("%.3g %s", x/u.size, u.name)
		}
	}
	return fmt.Sprintf("%.3g", x)
}

func newChart(id, title string, x, y *axis, xName, yName string) chart {
	x.from, x.to, y.from, y.to = frameLeft, frameRight, frameBottom, frameTop
	return chart{ID: id, Title: title, Left: frameLeft, Top: frameTop, Right: frameRight, Bottom: frameBottom, X: x.ticks(), Y: y.ticks(), XName: xName, YName: yName}
}

// add puts a point in, or counts it where there are too many.
func (c *chart) add(m mark) {
	if len(c.Marks) == maxMarks {
		c.LeftOut++
		return
	}
	c.Marks = append(c.Marks, m)
}

// polyline is SVG's list of points.
func polyline(points [][2]float64) string {
	var s strings.Builder
	for _, p := range points {
		fmt.Fprintf(&s, "%.1f,%.1f ", p[0], p[1])
	}
	return strings.TrimSpace(s.String())
}
