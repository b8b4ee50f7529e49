package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"drover/internal/compare"
)

//go:embed page.html
var pageHTML string

//go:embed parts.html
var partsHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

// Bounds that keep a page below 500 KB: drawings that go beyond are in the table
// alone, rows in the files.
const (
	maxBars   = 200
	maxMarks  = 200
	maxCharts = 12        // of each kind
	maxRows   = 300 << 10 // bytes of the table
	maxName   = 80        // runes of a name
	maxSetup  = 300
)

// frame is what every page has.
type frame struct {
	CSS     template.CSS
	JS      template.JS
	Title   string
	Command string // that makes such a page
}

func newFrame(title, command string) frame {
	return frame{CSS: template.CSS(pageCSS), JS: template.JS(pageJS), Title: title, Command: command}
}

// level of the intervals, and the least change that is called one.
var (
	level = fmt.Sprintf("%.0f %%", 100*compare.Confidence)
	floor = fmt.Sprintf("%.0f %%", 100*compare.Floor)
)

// parsePage is a page's template with the parts that all share.
func parsePage(name, text string) *template.Template {
	return template.Must(template.Must(template.New(name).Parse(text)).New("parts.html").Parse(partsHTML)).Lookup(name)
}

// page is what page.html shows. All text in it is escaped there.
type page struct {
	frame
	Columns  []pageColumn
	Means    []pageMean
	Bars     []barGroup
	LeftOut  int // bars
	Rest     int // rows
	Roofline *chart
	Scaling  []chart
	Rows     []pageRow
	Level    string // of the intervals
	Floor    string
	Scale    string // of the bars
}

type pageColumn struct {
	Letter, Name, Setup string
	Unlike              string // the first column
	Key                 key
}

// key is how a chart shows a column: a colour and a shape.
type key struct {
	Class string
	Shape string // an SVG path about (0, 0)
}

type pageMean struct {
	Letter, Name, Rate, Change string
	Rows                       int
}

type pageRow struct {
	Model, Test, Letter, Name   string
	Rate, Interval, Share       string
	Change, Verdict             string
	Predicted, Joules, First    string
	Order                       int // of the test
	RateV, ShareV, ChangeV      float64
	PredictedV, JoulesV, FirstV float64
	Half                        float64
	Samples                     int
	Throttled, Better, Declined bool
}

// Page writes a table as one HTML page that needs nothing else: no network, no
// other file.
func Page(w io.Writer, t *compare.Table) error {
	p := page{Level: level, Floor: floor}
	var files []string
	for i, c := range t.Columns {
		v := pageColumn{Letter: letter(i), Name: clip(c.Name, maxName), Setup: clip(c.Describe(), maxSetup), Key: keyOf(i)}
		if i > 0 {
			v.Unlike = clip(strings.Join(t.Columns[0].Differences(c.Setup), "; "), maxSetup)
			m := t.Means[i]
			p.Means = append(p.Means, pageMean{Letter: v.Letter, Name: v.Name, Rate: meanRate(m), Change: meanChange(m), Rows: m.Rows})
		}
		p.Columns = append(p.Columns, v)
		if name := clip(filepath.Base(c.File), maxName); !slices.Contains(files, name) {
			files = append(files, name)
		}
	}
	title := "Benchmarks: " + strings.Join(files[:min(len(files), 3)], ", ")
	if len(files) > 3 {
		title += fmt.Sprintf(" and %d more", len(files)-3)
	}
	p.frame = newFrame(title, "--html")
	p.Scale = "All tests of a group have one scale."
	if len(t.Columns) > 1 {
		p.Scale = "Each test has its own scale."
	}
	p.Bars, p.LeftOut = bars(t)
	p.Roofline = roofline(t)
	p.Scaling = append(scaling(t, byDepth), scaling(t, bySequences)...)
	p.Rows, p.Rest = pageRows(t)
	return parsePage("page.html", pageHTML).Execute(w, p)
}

// shapes tell columns apart without colour: circle, square, triangles, diamond,
// plus, cross, bar.
var shapes = [...]string{
	"M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z", "M-5-5h10v10h-10z", "M0-6l6 11h-12z", "M0 6l6-11h-12z", "M0-7l6 7l-6 7l-6-7z",
	"M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z", "M-6-4l2-2l4 4l4-4l2 2l-4 4l4 4l-2 2l-4-4l-4 4l-2-2l4-4z", "M-6-2h12v4h-12z",
}

func keyOf(column int) key {
	n := column % len(shapes)
	return key{Class: fmt.Sprintf("s%d", n), Shape: shapes[n]}
}

// barGroup is the bars of a model and a kind of test.
type barGroup struct {
	Title string
	Bars  []bar
}

// bar is lengths in percent of the track.
type bar struct {
	Test, Letter, Text, Class string
	Width, Lo, Span, Limit    float64
	Interval, HasLimit        bool
	LimitText, Note           string
}

// bars groups rows by model and kind of test.
func bars(t *compare.Table) (groups []barGroup, leftOut int) {
	for lo := 0; lo < len(t.Rows); {
		hi := lo + 1
		for hi < len(t.Rows) && t.Rows[hi].Model == t.Rows[lo].Model && t.Rows[hi].Test.Kind() == t.Rows[lo].Test.Kind() {
			hi++
		}
		g := barGroup{Title: clip(t.Rows[lo].Type, maxName) + ", " + t.Rows[lo].Test.Kind()}
		for n, r := range t.Rows[lo:hi] {
			// a test on its own scale shows how setups differ, one setup's tests on
			// one scale how these do
			full := scale(t.Rows[lo:hi])
			if len(t.Columns) > 1 {
				full = scale(t.Rows[lo+n : lo+n+1])
			}
			for i, c := range r.Cells {
				switch {
				case c == nil:
				case leftOut > 0 || drawnBars(groups)+len(g.Bars) == maxBars:
					leftOut++
				default:
					g.Bars = append(g.Bars, newBar(r, i, c, full))
				}
			}
		}
		if len(g.Bars) > 0 {
			groups = append(groups, g)
		}
		lo = hi
	}
	return groups, leftOut
}

func drawnBars(groups []barGroup) (n int) {
	for _, g := range groups {
		n += len(g.Bars)
	}
	return n
}

// scale is the speed at the track's end: room for the intervals, and for limits
// that do not make the bars too short to read.
func scale(rows []compare.Row) float64 {
	top, limit := 0.0, 0.0
	for _, r := range rows {
		for _, c := range r.Cells {
			if c == nil {
				continue
			}
			top = max(top, c.Mean)
			if c.Limit != nil {
				limit = max(limit, *c.Limit)
			}
		}
	}
	if limit > 3*top {
		limit = 0
	}
	return 1.08 * max(top, limit)
}

func newBar(r compare.Row, column int, c *compare.Cell, full float64) bar {
	share := func(x float64) float64 { return math.Round(1000*min(1, max(0, x/full))) / 10 }
	b := bar{Test: r.Name, Letter: letter(column), Text: Rate(c), Class: keyOf(column).Class, Width: share(c.Mean), Note: change(c)}
	if c.Lo != nil {
		b.Interval, b.Lo, b.Span = true, share(*c.Lo), share(*c.Hi)-share(*c.Lo)
	}
	if c.Limit != nil {
		b.LimitText = percentOf(*c.Share)
		if *c.Limit <= full {
			b.HasLimit, b.Limit = true, share(*c.Limit)
		}
	}
	return b
}

func percentOf(x float64) string { return fmt.Sprintf("%.0f %% of limit", 100*x) }

// pageRows gives the table's rows, and how many more there are.
func pageRows(t *compare.Table) (rows []pageRow, rest int) {
	bytes := 0
	for n, r := range t.Rows {
		for i, c := range r.Cells {
			if c == nil {
				continue
			}
			v := pageRow{Model: clip(r.Type, maxName), Test: r.Name, Letter: letter(i), Name: clip(t.Columns[i].Name, maxName), Order: n, Rate: number(c.Mean), RateV: c.Mean,
				Share: share(c.Share), ShareV: value(c.Share), Predicted: optional(c.Predicted), PredictedV: value(c.Predicted),
				Joules: optional(c.Joules), JoulesV: value(c.Joules), First: optional(c.FirstToken), FirstV: value(c.FirstToken), Samples: len(c.Samples), Throttled: c.Throttled}
			if c.Hi != nil {
				v.Interval, v.Half = "± "+half(c), *c.Hi-c.Mean
			}
			if a := c.Against; a != nil {
				v.Change, v.ChangeV, v.Verdict = percent(a.Ratio), a.Ratio, verdicts[a.Verdict]
				v.Better, v.Declined = a.Verdict == compare.Faster, a.Verdict == compare.Slower
			}
			// escaped, a byte of a name may take six
			if bytes += 420 + 6*(len(v.Model)+len(v.Name)); bytes > maxRows {
				rest++
				continue
			}
			rows = append(rows, v)
		}
	}
	return rows, rest
}

// clip keeps the first runes of what may be long.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

var verdicts = map[compare.Verdict]string{
	compare.Faster: "faster", compare.Slower: "slower", compare.Same: "no difference found", compare.Unknown: "not repeated",
}

func optional(x *float64) string {
	if x == nil {
		return ""
	}
	return number(*x)
}

// value sorts what is not known before all else.
func value(x *float64) float64 {
	if x == nil {
		return -1
	}
	return *x
}
