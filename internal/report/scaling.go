package report

import (
	"fmt"
	"slices"
	"strings"

	"drover/internal/compare"
)

// variable is a length that tests may differ in.
type variable struct {
	id, name   string
	logarithms bool
	of         func(*compare.Test) *int
}

var (
	byDepth     = variable{"depth", "tokens in the cache before the test", false, func(t *compare.Test) *int { return &t.Depth }}
	bySequences = variable{"sequences", "sequences at once", true, func(t *compare.Test) *int { return &t.Sequences }}
)

// series is one column's cells by the value of a variable.
type series struct {
	column int
	values []int
	cells  []*compare.Cell
}

// scaling draws a chart for each piece of work that a column ran at several
// values of the variable, and is otherwise the same.
func scaling(t *compare.Table, v variable) (charts []chart) {
	type work struct {
		compare.Model
		compare.Test
	}
	var order []work
	groups := map[work][]series{}
	titles := map[work]string{}
	for _, r := range t.Rows {
		w := work{r.Model, r.Test}
		*v.of(&w.Test) = 1
		rest := w.Test
		if v.id == byDepth.id {
			rest.Depth = 0
		}
		if _, ok := groups[w]; !ok {
			order, titles[w] = append(order, w), clip(r.Type, maxName)+", "+rest.Name()
		}
		for i, c := range r.Cells {
			if c == nil {
				continue
			}
			at := slices.IndexFunc(groups[w], func(s series) bool { return s.column == i })
			if at < 0 {
				at = len(groups[w])
				groups[w] = append(groups[w], series{column: i})
			}
			s := &groups[w][at]
			s.values, s.cells = append(s.values, *v.of(&r.Test)), append(s.cells, c)
		}
	}
	for _, w := range order {
		several := slices.DeleteFunc(groups[w], func(s series) bool { return len(s.values) < 2 })
		if len(several) > 0 && len(charts) < maxCharts {
			charts = append(charts, scalingChart(t, v, fmt.Sprintf("%s-%d", v.id, len(charts)+1), titles[w], several))
		}
	}
	return charts
}

func scalingChart(t *compare.Table, v variable, id, title string, all []series) chart {
	x, y := axis{lo: float64(all[0].values[0]), logarithms: v.logarithms}, axis{}
	least := all[0].cells[0].Mean
	for _, s := range all {
		for i, c := range s.cells {
			x.lo, x.hi = min(x.lo, float64(s.values[i])), max(x.hi, float64(s.values[i]))
			y.hi, least = max(y.hi, 1.1*c.Mean), min(least, c.Mean)
		}
	}
	yName := "tokens a second"
	if y.hi > 20*least { // a slow device beside a fast one would lie on the axis
		y.lo, y.logarithms, yName = least/1.5, true, "tokens a second, logarithmic"
	}
	c := newChart(id, title+" by "+v.name, &x, &y, v.name, yName)
	if v.logarithms {
		c.X = nil
		for _, n := range distinct(all) {
			c.X = append(c.X, tick{x.at(float64(n)), fmt.Sprint(n)})
		}
	}
	drawn := map[int]bool{}
	var words []string
	for _, s := range all {
		drawn[s.column] = true
		var points [][2]float64
		for i, cell := range s.cells {
			m := mark{X: x.at(float64(s.values[i])), Y: y.at(cell.Mean), Key: keyOf(s.column), Text: fmt.Sprintf("%s at %d: %s tokens/s", letter(s.column), s.values[i], Rate(cell))}
			if cell.Lo != nil {
				m.Interval, m.Lo, m.Hi = true, y.at(max(y.lo, *cell.Lo)), y.at(min(y.hi, *cell.Hi))
			}
			c.add(m)
			points = append(points, [2]float64{m.X, m.Y})
		}
		c.Lines = append(c.Lines, chartLine{Class: keyOf(s.column).Class, Points: polyline(points)})
		last := len(s.cells) - 1
		words = append(words, fmt.Sprintf("%s goes from %s tokens a second at %d to %s at %d", letter(s.column), number(s.cells[0].Mean), s.values[0], number(s.cells[last].Mean), s.values[last]))
	}
	c.Key, c.Text = keys(t, drawn), strings.Join(words, "; ")+"."
	return c
}

// distinct are the values of all series, ascending.
func distinct(all []series) (values []int) {
	for _, s := range all {
		values = append(values, s.values...)
	}
	slices.Sort(values)
	return slices.Compact(values)
}
