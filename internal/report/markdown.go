package report

import (
	"fmt"
	"io"
	"strings"

	"drover/internal/bench"
)

// markdown is a table that also reads well as plain text.
type markdown struct {
	w     io.Writer
	begun bool
}

// the columns: a head and the least width; numbers stand to the right
var columns = [...]struct {
	head  string
	width int
	right bool
}{
	{"model", 24, false}, {"size", 10, true}, {"device", 12, false}, {"threads", 7, true},
	{"test", 16, true}, {"t/s", 18, true}, {"limit t/s", 9, true}, {"of limit", 8, true}, {"peak memory", 11, true},
}

func (m *markdown) Add(r bench.Record) error {
	if !m.begun {
		m.begun = true
		var head, rule []string
		for _, c := range columns {
			head = append(head, c.head)
			dashes := strings.Repeat("-", c.width)
			if c.right {
				dashes = dashes[1:] + ":"
			}
			rule = append(rule, dashes)
		}
		if err := m.row(head); err != nil {
			return err
		}
		if err := m.row(rule); err != nil {
			return err
		}
	}
	t := bench.Test{Prompt: r.Prompt, Gen: r.Gen, Depth: r.Depth, Sequences: r.Sequences}
	return m.row([]string{
		r.ModelType, Bytes(r.ModelSize), r.Backends + " " + r.ISA, known(r.Threads, "%d"),
		t.Name(), fmt.Sprintf("%.2f ± %.2f", r.AvgTS, r.StddevTS), known(r.LimitTS, "%.2f"), share(r.LimitShare), memory(r.PeakBytes),
	})
}

func (m *markdown) row(cells []string) error {
	var line strings.Builder
	for i, c := range columns {
		if c.right {
			fmt.Fprintf(&line, "| %*s ", c.width, cells[i])
		} else {
			fmt.Fprintf(&line, "| %-*s ", c.width, cells[i])
		}
	}
	_, err := fmt.Fprintln(m.w, line.String()+"|")
	return err
}

func (m *markdown) Close() error { return nil }

// known is empty for what was not measured.
func known[T any](x *T, format string) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf(format, *x)
}

func share(x *float64) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf("%.1f %%", 100**x)
}

func memory(n *uint64) string {
	if n == nil {
		return ""
	}
	return Bytes(*n)
}

// Bytes is a size for people: "3.56 GiB".
func Bytes(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1024, "KiB"
	for _, u := range []string{"MiB", "GiB", "TiB"} {
		if x < 1024 {
			break
		}
		x, unit = x/1024, u
	}
	return fmt.Sprintf("%.2f %s", x, unit)
}
