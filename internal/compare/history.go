package compare

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"drover/internal/bench"
)

// Past is how fast one piece of work was on one setup, whatever was the build.
type Past struct {
	Model  Model   `json:"model"`
	Type   string  `json:"model_type"`
	Test   Test    `json:"test"`
	Name   string  `json:"name"` // of the test
	Setup  Setup   `json:"setup"`
	Points []Point `json:"points"` // the oldest first
}

// Point is one record of a past.
type Point struct {
	Time     time.Time `json:"test_time"`
	Build    string    `json:"build"`
	Driver   string    `json:"driver"`
	Cell     *Cell     `json:"result"`
	First    *Against  `json:"against_first"`    // null for the first itself
	Previous *Against  `json:"against_previous"` // likewise
}

// History sorts kept records into pasts. Of several texts each must be in a
// past's model, test or setup; case does not matter.
func History(records []bench.Record, texts []string) []Past {
	type key struct {
		Model
		Test
		Setup
	}
	pasts := map[key]*Past{}
	for _, r := range records {
		one := Result{Record: r, Tool: Drover, Build: build(r)}
		s := setupOf(one)
		p := Point{Time: r.TestTime, Build: one.Build, Driver: s.Driver, Cell: newCell([]Result{one})}
		s.Build, s.Driver, s.Fingerprint = "", "", s.hardware()
		k := key{modelOf(r), testOf(r), s}
		if pasts[k] == nil {
			pasts[k] = &Past{Model: k.Model, Type: r.ModelType, Test: k.Test, Name: k.Test.Name(), Setup: s}
		}
		pasts[k].Points = append(pasts[k].Points, p)
	}
	all := []Past{}
	for _, p := range pasts {
		if p.has(texts) {
			p.judge()
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b Past) int {
		return cmp.Or(a.Model.less(b.Model), strings.Compare(a.Setup.Describe(), b.Setup.Describe()), a.Test.less(b.Test))
	})
	return all
}

func (p *Past) has(texts []string) bool {
	all := strings.ToLower(p.Type + " " + p.Model.Format + " " + p.Name + " " + p.Setup.Describe())
	return !slices.ContainsFunc(texts, func(t string) bool { return !strings.Contains(all, strings.ToLower(t)) })
}

func (p *Past) judge() {
	slices.SortStableFunc(p.Points, func(a, b Point) int { return a.Time.Compare(b.Time) })
	var judged []*Against
	for i := 1; i < len(p.Points); i++ {
		now := &p.Points[i]
		now.First, now.Previous = against(p.Points[0].Cell, now.Cell), against(p.Points[i-1].Cell, now.Cell)
		judged = append(judged, now.First, now.Previous)
	}
	decide(judged)
}

// Setups are those of pasts in the order in which they first appear, each named
// by what sets it apart from the others, or by its devices where it is alone.
func Setups(pasts []Past) (all []Column) {
	seen := map[Setup]bool{}
	for _, p := range pasts {
		if !seen[p.Setup] {
			seen[p.Setup] = true
			all = append(all, Column{Setup: p.Setup})
		}
	}
	varied := variedParts(all)
	for i := range all {
		c := &all[i]
		c.Name = cmp.Or(c.apart(varied[c.File]), strings.TrimSpace(c.Backends+" "+c.ISA))
	}
	number(all)
	return all
}
