package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"drover/internal/compare"
)

// History writes pasts, a table each.
func History(w io.Writer, pasts []compare.Past) error {
	for i, p := range pasts {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s, %s: %s\n\n", Plain(p.Type), p.Name, Plain(p.Setup.Describe()))
		rows := [][]string{{"time", "build", "t/s", "of limit", "against the first", "against the one before"}}
		for _, q := range p.Points {
			rows = append(rows, []string{q.Time.Format("2006-01-02 15:04:05"), Plain(q.Build), Rate(q.Cell), share(q.Cell.Share), Against(q.First), Against(q.Previous)})
		}
		if err := align(w, rows, 2); err != nil {
			return err
		}
	}
	return nil
}

//go:embed history.html
var historyHTML string

// Bounds of a page of history. It shows the newest records, as many as make a
// page of maxPage bytes.
const (
	maxPage    = 490_000
	maxRecords = 2000
)

// historyPage is what history.html shows. All text in it is escaped there.
type historyPage struct {
	frame
	Level, Floor string
	Columns      []pageColumn
	Charts       []chart
	Alone        int // records that no chart has
	Rows         []historyRow
	Older        int // records that are left out
}

type historyRow struct {
	Time, Model, Test, Letter, Name, Build string
	Rate, Interval, Share                  string
	First, Previous                        string
	Unix                                   int64
	Order                                  int // of the test
	RateV, Half, ShareV, FirstV, PreviousV float64
	Samples                                int
	Throttled, Simulated                   bool
}

// HistoryPage writes pasts as one HTML page that needs nothing else. words are
// those that chose them.
func HistoryPage(w io.Writer, pasts []compare.Past, words []string) error {
	tmpl := parsePage("history.html", historyHTML)
	for most := maxRecords; ; most /= 2 {
		var page bytes.Buffer
		if err := tmpl.Execute(&page, newHistoryPage(pasts, words, most)); err != nil {
			return err
		}
		if page.Len() <= maxPage || most == 1 {
			_, err := page.WriteTo(w)
			return err
		}
	}
}

func newHistoryPage(pasts []compare.Past, words []string, most int) historyPage {
	title := "Benchmark history"
	if len(words) > 0 {
		title += ": " + clip(strings.Join(words, " "), maxName)
	}
	p := historyPage{frame: newFrame(title, "--history --html"), Level: level, Floor: floor}
	pasts, p.Older = newest(pasts, most)
	setups := compare.Setups(pasts)
	place := map[compare.Setup]int{}
	for i, c := range setups {
		place[c.Setup] = i
		p.Columns = append(p.Columns, pageColumn{Letter: letter(i), Name: clip(c.Name, maxName), Setup: clip(c.Describe(), maxSetup), Key: keyOf(i)})
	}
	for n, past := range pasts {
		c := p.Columns[place[past.Setup]]
		for _, q := range past.Points {
			r := historyRow{Time: q.Time.UTC().Format(time.DateTime), Unix: q.Time.Unix(), Model: clip(past.Type, maxName), Test: past.Name, Order: n, Letter: c.Letter, Name: c.Name, Simulated: past.Setup.Simulated,
				Build: clip(q.Build, maxName), Rate: number(q.Cell.Mean), RateV: q.Cell.Mean, Samples: len(q.Cell.Samples), Share: share(q.Cell.Share), ShareV: value(q.Cell.Share), Throttled: q.Cell.Throttled,
				First: Against(q.First), FirstV: ratio(q.First), Previous: Against(q.Previous), PreviousV: ratio(q.Previous)}
			if q.Cell.Hi != nil {
				r.Interval, r.Half = "± "+half(q.Cell), *q.Cell.Hi-q.Cell.Mean
			}
			p.Rows = append(p.Rows, r)
		}
	}
	for _, g := range pieces(pasts) {
		if n := g.records(); n > 1 {
			p.Charts = append(p.Charts, g.chart(fmt.Sprintf("past-%d", len(p.Charts)+1), p.Columns, place))
		} else {
			p.Alone += n
		}
	}
	return p
}

// ratio sorts what was not compared before all else.
func ratio(a *compare.Against) float64 {
	if a == nil {
		return -1
	}
	return a.Ratio
}

// newest keeps the last records of all pasts, and counts those before them.
func newest(pasts []compare.Past, most int) (kept []compare.Past, older int) {
	type record struct {
		past int
		time time.Time
	}
	var all []record
	for i, p := range pasts {
		for _, q := range p.Points {
			all = append(all, record{i, q.Time})
		}
	}
	slices.SortStableFunc(all, func(a, b record) int { return b.time.Compare(a.time) })
	count := make([]int, len(pasts))
	for _, r := range all[:min(most, len(all))] {
		count[r.past]++
	}
	for i, p := range pasts {
		if count[i] > 0 {
			p.Points = p.Points[len(p.Points)-count[i]:]
			kept = append(kept, p)
		}
	}
	return kept, max(0, len(all)-most)
}

// piece is the pasts of one piece of work on one device set: a chart. Software
// devices have charts of their own.
type piece struct {
	title string
	pasts []compare.Past
}

func pieces(pasts []compare.Past) (all []piece) {
	type key struct {
		compare.Model
		compare.Test
		devices   string
		simulated bool
	}
	at := map[key]int{}
	for _, p := range pasts {
		k := key{p.Model, p.Test, p.Setup.DeviceSet, p.Setup.Simulated}
		if k.devices == "" {
			k.devices = p.Setup.Backends
		}
		if _, ok := at[k]; !ok {
			at[k] = len(all)
			title := fmt.Sprintf("%s, %s on %s", clip(p.Type, maxName), p.Name, clip(k.devices, maxName))
			if k.simulated {
				title += " (simulated)"
			}
			all = append(all, piece{title: title})
		}
		g := &all[at[k]]
		g.pasts = append(g.pasts, p)
	}
	return all
}

func (g *piece) records() (n int) {
	for _, p := range g.pasts {
		n += len(p.Points)
	}
	return n
}

// chart draws speeds by time, a line a past.
func (g *piece) chart(id string, columns []pageColumn, place map[compare.Setup]int) chart {
	x, y, yName := g.axes()
	c := newChart(id, g.title+" over time", &x, &y, "time of the test, UTC", yName)
	c.Heading, c.X = g.title, timeTicks(x)
	var words []string
	for _, p := range g.pasts {
		column := columns[place[p.Setup]]
		var points [][2]float64
		for _, q := range p.Points {
			m := mark{X: x.at(seconds(q.Time)), Y: y.at(q.Cell.Mean), Key: column.Key, Hollow: q.Cell.Throttled,
				Text: fmt.Sprintf("%s, %s, build %s: %s tokens/s", column.Letter, q.Time.UTC().Format(time.DateTime), clip(q.Build, maxName), Rate(q.Cell))}
			if q.Previous != nil {
				m.Text += ", " + Against(q.Previous) + " against the one before"
			}
			if q.Cell.Lo != nil {
				m.Interval, m.Lo, m.Hi = true, y.at(max(y.lo, *q.Cell.Lo)), y.at(min(y.hi, *q.Cell.Hi))
			}
			c.Marks = append(c.Marks, m)
			points = append(points, [2]float64{m.X, m.Y})
		}
		c.Lines = append(c.Lines, chartLine{Class: column.Key.Class, Points: polyline(points)})
		c.Key = append(c.Key, column)
		first, last := p.Points[0], p.Points[len(p.Points)-1]
		words = append(words, fmt.Sprintf("%s has %d records from %s to %s, the first of %s tokens a second, the last of %s", column.Letter, len(p.Points),
			first.Time.UTC().Format(time.DateOnly), last.Time.UTC().Format(time.DateOnly), number(first.Cell.Mean), number(last.Cell.Mean)))
	}
	c.Text = strings.Join(words, "; ") + "."
	return c
}

// axes have room for a tenth above and below, so that chance does not look like a
// change. Intervals that are wider end at the frame.
func (g *piece) axes() (x, y axis, yName string) {
	x, y = axis{lo: math.Inf(1), hi: math.Inf(-1)}, axis{lo: math.Inf(1)}
	for _, p := range g.pasts {
		for _, q := range p.Points {
			x.lo, x.hi = min(x.lo, seconds(q.Time)), max(x.hi, seconds(q.Time))
			y.lo, y.hi = min(y.lo, 0.9*q.Cell.Mean), max(y.hi, 1.1*q.Cell.Mean)
		}
	}
	room := max(30, (x.hi-x.lo)/50)
	x.lo, x.hi = x.lo-room, x.hi+room
	if y.hi > 20*y.lo {
		y.logarithms = true
		return x, y, "tokens a second, logarithmic"
	}
	return x, y, "tokens a second"
}
