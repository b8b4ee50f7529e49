package compare

import (
	"cmp"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// What is called a difference.
const (
	// Confidence is the level of all intervals.
	Confidence = 0.95
	// Alpha is the chance of calling any of a table's equal speeds different.
	Alpha = 0.001
	// Floor is the least change that is called one: two runs of the same program
	// differ by up to this share, by where their memory lies and how warm the
	// machine is, which the samples of one run do not show.
	Floor = 0.02
	// manyRuns are enough for their own spread to be known, which is wider than
	// that of one run's repeats: then a run is a sample.
	manyRuns = 3
)

// Verdict is what a cell says against the first column's.
type Verdict string

const (
	Faster  Verdict = "faster"
	Slower  Verdict = "slower"
	Same    Verdict = "same"    // no difference was found
	Unknown Verdict = "unknown" // a side has no repeats
)

// Cell is what one setup found for one piece of work, in tokens/s.
type Cell struct {
	Runs    int       `json:"runs"`       // records
	Samples []float64 `json:"samples_ts"` // ascending: repeats, or of manyRuns and more the mean of each
	Mean    float64   `json:"avg_ts"`
	Lo      *float64  `json:"lo_ts"` // the mean's confidence interval; null for one sample
	Hi      *float64  `json:"hi_ts"`

	Limit         *float64 `json:"limit_ts"`
	Share         *float64 `json:"limit_share"`
	Predicted     *float64 `json:"predicted_ts"`
	BytesPerToken *float64 `json:"bytes_per_token"`
	Joules        *float64 `json:"joules_per_token"`
	FirstToken    *float64 `json:"first_token_ms"`
	Throttled     bool     `json:"throttled"`
	ModelSize     uint64   `json:"model_size"`

	Against *Against `json:"against"` // null in the first column, and where that has no such row
}

// Against is a cell compared with the first column's.
type Against struct {
	Ratio   float64  `json:"ratio"` // of the means
	Lo      *float64 `json:"lo"`    // its confidence interval
	Hi      *float64 `json:"hi"`
	P       *float64 `json:"p"` // of a t test, times the tests of this table (Holm); null: not known
	Verdict Verdict  `json:"verdict"`
}

// Geomean is a column's mean over the rows that it shares with the first.
type Geomean struct {
	Rows  int      `json:"rows"`
	Rate  float64  `json:"rate"`  // of the tokens/s
	Ratio float64  `json:"ratio"` // of the ratios to the first column
	Lo    *float64 `json:"lo"`    // the ratio's confidence interval
	Hi    *float64 `json:"hi"`
}

// newCell pools the results of one setup and one piece of work.
func newCell(pool []Result) *Cell {
	c := &Cell{Runs: len(pool)}
	for _, r := range pool {
		if len(r.SamplesTS) == 0 || len(pool) >= manyRuns {
			c.Samples = append(c.Samples, r.AvgTS)
		} else {
			c.Samples = append(c.Samples, r.SamplesTS...)
		}
		c.Limit, c.Predicted, c.BytesPerToken, c.Joules = cmp.Or(r.LimitTS, c.Limit), cmp.Or(r.PredictedTS, c.Predicted), cmp.Or(r.BytesPerToken, c.BytesPerToken), cmp.Or(r.Joules, c.Joules)
		c.FirstToken = cmp.Or(r.FirstToken, c.FirstToken)
		c.Throttled = c.Throttled || r.Throttled != nil && *r.Throttled
		c.ModelSize = r.ModelSize
	}
	slices.Sort(c.Samples)
	s := benchmath.AssumeNormal.Summary(c.sample(), Confidence)
	c.Mean = s.Center
	if len(c.Samples) > 1 {
		lo, hi := max(0, s.Lo), s.Hi
		c.Lo, c.Hi = &lo, &hi
	}
	if c.Limit != nil {
		share := c.Mean / *c.Limit
		c.Share = &share
	}
	return c
}

func (c *Cell) sample() *benchmath.Sample {
	return &benchmath.Sample{Values: c.Samples, Thresholds: &benchmath.Thresholds{CompareAlpha: Alpha}}
}

// width is half the mean's interval as a share of it.
func (c *Cell) width() float64 { return (*c.Hi - c.Mean) / c.Mean }

// judge compares every column with the first.
func (t *Table) judge() {
	var judged []*Against
	for _, row := range t.Rows {
		for i, c := range row.Cells {
			if first := row.Cells[0]; i > 0 && c != nil && first != nil {
				c.Against = against(first, c)
				judged = append(judged, c.Against)
			}
		}
	}
	decide(judged)
	for i := range t.Columns {
		t.Means = append(t.Means, t.geomean(i))
	}
}

// decide gives the verdicts of comparisons that are shown together.
func decide(all []*Against) {
	judged := slices.DeleteFunc(all, func(a *Against) bool { return a.P == nil })
	holm(judged)
	for _, a := range judged {
		switch {
		case *a.P >= Alpha || math.Abs(a.Ratio-1) < Floor:
			a.Verdict = Same
		case a.Ratio > 1:
			a.Verdict = Faster
		default:
			a.Verdict = Slower
		}
	}
}

func against(first, c *Cell) *Against {
	a := &Against{Ratio: c.Mean / first.Mean, Verdict: Unknown}
	if first.Lo == nil || c.Lo == nil {
		return a
	}
	a.Lo, a.Hi = spread(a.Ratio, math.Hypot(first.width(), c.width()))
	p := benchmath.AssumeNormal.Compare(first.sample(), c.sample())
	if len(p.Warnings) > 0 && a.Ratio != 1 {
		p.P = 0 // no test where neither side varies: a difference is one
	}
	a.P = &p.P
	return a
}

// spread is an interval about a ratio: widths of independent means add as
// squares, on a logarithmic scale.
func spread(ratio, width float64) (lo, hi *float64) {
	l, h := ratio*math.Exp(-width), ratio*math.Exp(width)
	return &l, &h
}

// holm corrects for many tests at once: the chance that any of them errs stays
// below Alpha (Holm 1979).
func holm(tests []*Against) {
	slices.SortStableFunc(tests, func(a, b *Against) int { return cmp.Compare(*a.P, *b.P) })
	least := 0.0
	for i, a := range tests {
		least = max(least, min(1, *a.P*float64(len(tests)-i)))
		p := least
		a.P = &p
	}
}

func (t *Table) geomean(column int) Geomean {
	var g Geomean
	var rate, ratio, squares float64
	known := true
	for _, row := range t.Rows {
		first, c := row.Cells[0], row.Cells[column]
		if first == nil || c == nil {
			continue
		}
		g.Rows++
		rate += math.Log(c.Mean)
		ratio += math.Log(c.Mean / first.Mean)
		if known = known && first.Lo != nil && c.Lo != nil; known {
			squares += first.width()*first.width() + c.width()*c.width()
		}
	}
	if g.Rows == 0 {
		return g
	}
	n := float64(g.Rows)
	g.Rate, g.Ratio = math.Exp(rate/n), math.Exp(ratio/n)
	if known && column > 0 {
		g.Lo, g.Hi = spread(g.Ratio, math.Sqrt(squares)/n)
	}
	return g
}

// Regression is a row that a column does more slowly.
type Regression struct {
	Row    int     `json:"row"`
	Column int     `json:"column"`
	Ratio  float64 `json:"ratio"`
}

// Regressions are the rows that are slower than the first column's by more than
// percent, with significance.
func (t *Table) Regressions(percent float64) []Regression {
	found := []Regression{}
	for i, row := range t.Rows {
		for j, c := range row.Cells {
			if c != nil && c.Against != nil && c.Against.Verdict == Slower && 100*(1-c.Against.Ratio) > percent {
				found = append(found, Regression{i, j, c.Against.Ratio})
			}
		}
	}
	return found
}

// Judged is how many cells were compared with the first column's.
func (t *Table) Judged() (n int) {
	for _, row := range t.Rows {
		for _, c := range row.Cells {
			if c != nil && c.Against != nil && c.Against.P != nil {
				n++
			}
		}
	}
	return n
}
