package report

import (
	"fmt"
	"math"

	"drover/internal/compare"
)

// load is where a cell stands on a roofline.
type load struct {
	perOp     float64 // bytes per operation
	rate      float64 // operations a second
	estimated bool    // bytes are of the model's size, not of a record
}

// loads gives the place of every cell. An operation is a multiplication or an
// addition; a token's are twice the weights that it meets: those that decoding
// reads where a record of the same model says so, which leaves out an embedding
// and the experts that are not chosen, else all.
func loads(t *compare.Table) map[*compare.Cell]load {
	met := map[compare.Model]float64{} // weights
	for _, r := range t.Rows {
		for _, c := range r.Cells {
			if c != nil && c.BytesPerToken != nil && c.ModelSize > 0 {
				n := *c.BytesPerToken * float64(r.Test.Sequences) / float64(c.ModelSize) * float64(r.Model.Params)
				if old, ok := met[r.Model]; !ok || n < old {
					met[r.Model] = n
				}
			}
		}
	}
	all := map[*compare.Cell]load{}
	for _, r := range t.Rows {
		weights := float64(r.Model.Params)
		if n, ok := met[r.Model]; ok {
			weights = min(weights, n)
		}
		for i, c := range r.Cells {
			if c == nil || weights == 0 || c.ModelSize == 0 {
				continue
			}
			ops := 2 * weights
			rows := r.Test.Sequences // that share one reading of the weights
			if r.Test.Gen == 0 {
				rows *= r.Test.Prompt
				if b := t.Columns[i].Batch; b > 0 {
					rows = min(rows, b)
				}
			}
			l := load{perOp: float64(c.ModelSize) * weights / float64(r.Model.Params) / float64(rows) / ops, rate: c.Mean * ops, estimated: true}
			if c.BytesPerToken != nil {
				l.perOp, l.estimated = *c.BytesPerToken/ops, false
			}
			all[c] = l
		}
	}
	return all
}

// roof is what a column's device allows: bytes and operations a second, 0 where
// no record tells.
type roof struct{ bytes, ops float64 }

func roofs(t *compare.Table, at map[*compare.Cell]load) []roof {
	all := make([]roof, len(t.Columns))
	for _, r := range t.Rows {
		for i, c := range r.Cells {
			if c == nil || c.Limit == nil {
				continue
			}
			switch l, ok := at[c]; {
			case c.BytesPerToken != nil:
				all[i].bytes = max(all[i].bytes, *c.Limit**c.BytesPerToken)
			case ok && r.Test.Gen == 0:
				all[i].ops = max(all[i].ops, *c.Limit*l.rate/c.Mean)
			}
		}
	}
	return all
}

// roofline draws bytes per operation against the rate of operations, and the
// lines that memory and arithmetic allow; nil where no cell has a place.
func roofline(t *compare.Table) *chart {
	at := loads(t)
	if len(at) == 0 {
		return nil
	}
	lines := roofs(t, at)
	x, y := around(at, lines)
	c := newChart("roofline", "Roofline", &x, &y, "bytes read per operation", "operations a second")
	for i, l := range lines {
		if p := l.path(x, y); p != "" {
			c.Lines = append(c.Lines, chartLine{Class: keyOf(i).Class, Dashed: true, Points: p})
			c.Text += fmt.Sprintf(" Limits of %s: %s.", letter(i), l)
		}
	}
	drawn := map[int]bool{}
	for _, r := range t.Rows {
		for i, cell := range r.Cells {
			l, ok := at[cell]
			if !ok || cell == nil {
				continue
			}
			drawn[i] = true
			text := fmt.Sprintf("%s: %s, %s: %.3g bytes per operation, %s operations a second", letter(i), clip(r.Type, maxName), r.Name, l.perOp, short(l.rate))
			c.add(mark{X: x.at(l.perOp), Y: y.at(l.rate), Key: keyOf(i), Hollow: l.estimated, Text: text})
		}
	}
	c.Key = keys(t, drawn)
	c.Text = fmt.Sprintf("%d tests by bytes read per operation and operations a second, both axes logarithmic.%s The table below has every speed.", len(c.Marks), c.Text)
	return &c
}

// String is a roof in words.
func (l roof) String() string {
	switch {
	case l.ops == 0:
		return short(l.bytes) + "B/s of memory"
	case l.bytes == 0:
		return short(l.ops) + " operations a second"
	}
	return short(l.bytes) + "B/s of memory, " + short(l.ops) + " operations a second"
}

// path is the line of a roof: level as far as arithmetic binds, then falling by
// what memory allows.
func (l roof) path(x, y axis) string {
	bound := func(v float64) float64 {
		switch {
		case l.bytes == 0:
			return l.ops
		case l.ops == 0:
			return l.bytes / v
		}
		return min(l.ops, l.bytes/v)
	}
	if l.bytes == 0 && l.ops == 0 {
		return ""
	}
	places := []float64{x.lo}
	if l.bytes > 0 && l.ops > 0 && l.bytes/l.ops > x.lo && l.bytes/l.ops < x.hi {
		places = append(places, l.bytes/l.ops)
	}
	var points [][2]float64
	for _, v := range append(places, x.hi) {
		points = append(points, [2]float64{x.at(v), y.at(min(y.hi, max(y.lo, bound(v))))})
	}
	return polyline(points)
}

// around are axes with room about all points and the corners of the roofs.
func around(at map[*compare.Cell]load, lines []roof) (x, y axis) {
	x, y = axis{lo: math.Inf(1), logarithms: true}, axis{lo: math.Inf(1), logarithms: true}
	for _, l := range at {
		x.lo, x.hi = min(x.lo, l.perOp), max(x.hi, l.perOp)
		y.lo, y.hi = min(y.lo, l.rate), max(y.hi, l.rate)
	}
	for _, l := range lines {
		if l.bytes > 0 && l.ops > 0 {
			x.lo, x.hi = min(x.lo, l.bytes/l.ops), max(x.hi, l.bytes/l.ops)
		}
		y.hi = max(y.hi, l.ops)
	}
	for _, l := range lines {
		if l.bytes > 0 && l.ops == 0 {
			y.hi = max(y.hi, l.bytes/x.lo)
		}
		if l.bytes > 0 {
			y.lo = min(y.lo, l.bytes/x.hi)
		}
	}
	x.lo, x.hi, y.lo, y.hi = x.lo/2, x.hi*2, y.lo/2.5, y.hi*2
	return x, y
}

// keys are the columns that were drawn.
func keys(t *compare.Table, drawn map[int]bool) (all []pageColumn) {
	for i, c := range t.Columns {
		if drawn[i] {
			all = append(all, pageColumn{Letter: letter(i), Name: clip(c.Name, maxName), Key: keyOf(i)})
		}
	}
	return all
}
