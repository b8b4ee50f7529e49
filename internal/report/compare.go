package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"

	"drover/internal/compare"
)

// Compare writes results side by side: what each column is, then a row a test
// with its mean ± half of its confidence interval.
func Compare(w io.Writer, t *compare.Table) error {
	for i, c := range t.Columns {
		if _, err := fmt.Fprintf(w, "%s  %s: %s\n", letter(i), Plain(c.Name), Plain(c.Describe())); err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		if d := t.Columns[0].Differences(c.Setup); len(d) > 0 {
			fmt.Fprintf(w, "   unlike A: %s\n", Plain(strings.Join(d, "; ")))
		}
	}
	fmt.Fprintln(w)
	rows := [][]string{{"model", "test"}}
	for i := range t.Columns {
		rows[0] = append(rows[0], letter(i)+" t/s")
		if i > 0 {
			rows[0] = append(rows[0], letter(i)+" against A")
		}
	}
	if len(t.Columns) == 1 {
		rows[0] = append(rows[0], "of limit")
	}
	for _, r := range t.Rows {
		line := []string{Plain(r.Type), r.Name}
		for i, c := range r.Cells {
			line = append(line, Rate(c))
			if i > 0 {
				line = append(line, change(c))
			}
		}
		if len(t.Columns) == 1 {
			line = append(line, share(r.Cells[0].Share))
		}
		rows = append(rows, line)
	}
	if len(t.Columns) > 1 {
		line := []string{"geometric mean", ""}
		for i, g := range t.Means {
			line = append(line, meanRate(g))
			if i > 0 {
				line = append(line, meanChange(g))
			}
		}
		rows = append(rows, line)
	}
	return align(w, rows, 2)
}

// align writes a table as wide as its cells; the first left columns stand to
// the left.
func align(w io.Writer, rows [][]string, left int) error {
	columns := make([]column, len(rows[0]))
	for i, head := range rows[0] {
		columns[i] = column{head: head, width: 3, right: i >= left}
		for _, r := range rows {
			columns[i].width = max(columns[i].width, len([]rune(r[i])))
		}
	}
	if err := begin(w, columns); err != nil {
		return err
	}
	for _, r := range rows[1:] {
		if err := row(w, columns, r); err != nil {
			return err
		}
	}
	return nil
}

// letter names a column: A to Z, then AA.
func letter(i int) string {
	if i < 26 {
		return string(rune('A' + i))
	}
	return letter(i/26-1) + letter(i%26)
}

// Rate is a mean ± half of its interval; a mean without one is of one sample.
func Rate(c *compare.Cell) string {
	if c == nil {
		return ""
	}
	s := number(c.Mean)
	if half := half(c); half != "" {
		s += " ± " + half
	}
	if c.Throttled {
		s += " throttled"
	}
	return s
}

// half is half of a mean's interval, as exact as number has the mean; empty for
// one sample.
func half(c *compare.Cell) string {
	if c.Hi == nil {
		return ""
	}
	return fmt.Sprintf("%.*f", decimals(c.Mean), *c.Hi-c.Mean)
}

// number has four digits or all before the point.
func number(x float64) string { return fmt.Sprintf("%.*f", decimals(x), x) }

func decimals(x float64) int {
	if x == 0 {
		return 0
	}
	return min(6, max(0, 3-int(math.Floor(math.Log10(math.Abs(x))))))
}

func change(c *compare.Cell) string {
	if c == nil {
		return ""
	}
	return Against(c.Against)
}

// Against is a change and how sure it is. "~": no difference was found; "?": a
// side has no repeats.
func Against(a *compare.Against) string {
	if a == nil {
		return ""
	}
	s := percent(a.Ratio)
	switch {
	case a.Verdict == compare.Unknown:
		return s + " ?"
	case a.Verdict == compare.Same:
		s += " ~"
	default:
		s += " " + string(a.Verdict)
	}
	return s + fmt.Sprintf(" (p %.2g)", *a.P)
}

// percent is a change, which from twice as fast on is a factor.
func percent(ratio float64) string {
	if ratio >= 2 {
		return fmt.Sprintf("%.3g times", ratio)
	}
	return fmt.Sprintf("%+.1f %%", 100*(ratio-1))
}

func meanRate(g compare.Geomean) string {
	if g.Rows == 0 {
		return ""
	}
	return number(g.Rate)
}

func meanChange(g compare.Geomean) string {
	if g.Rows == 0 {
		return ""
	}
	s := percent(g.Ratio)
	if g.Lo != nil {
		s += fmt.Sprintf(" (%s to %s)", percent(*g.Lo), percent(*g.Hi))
	}
	return s
}

// Plain keeps what a file says from steering a terminal or a table.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == '|' {
			return '?'
		}
		return r
	}, s)
}
