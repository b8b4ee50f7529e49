package report

import (
	"fmt"
	"io"
	"strings"

	"drover/internal/bench"
)

// markdown is a table that also reads well as plain text. Profiles follow it, a
// table for each test.
type markdown struct {
	w        io.Writer
	begun    bool
	profiled []bench.Record
}

// column is a head and the least width; numbers stand to the right.
type column struct {
	head  string
	width int
	right bool
}

var columns = []column{
	{"model", 24, false}, {"size", 10, true}, {"device", 16, false}, {"threads", 7, true},
	{"test", 16, true}, {"t/s", 18, true}, {"limit t/s", 9, true}, {"of limit", 8, true}, {"predicted", 9, true}, {"first token", 11, true}, {"J/token", 8, true}, {"peak memory", 11, true},
}

func (m *markdown) Add(r bench.Record) error {
	if !m.begun {
		m.begun = true
		if err := begin(m.w, columns); err != nil {
			return err
		}
	}
	if r.Profile != nil {
		m.profiled = append(m.profiled, r)
	}
	return row(m.w, columns, []string{
		r.ModelType, Bytes(r.ModelSize), shown(r), known(r.Threads, "%d"),
		test(r).Name() + cache(r), speed(r), known(r.LimitTS, "%.2f"), share(r.LimitShare), known(r.PredictedTS, "%.2f"),
		known(r.FirstToken, "%.4g ms"), known(r.Joules, "%.3g"), memory(r.PeakBytes),
	})
}

// shown is the devices for people: what was asked for where that says less, and
// that they are software.
func shown(r bench.Record) string {
	s := devices(r) + " " + r.ISA
	if r.DeviceSet != "" && r.DeviceSet != devices(r) {
		s = r.DeviceSet + ": " + s
	}
	if r.Simulated != nil && *r.Simulated {
		s += " (simulated)"
	}
	return s
}

// devices that carry the model.
func devices(r bench.Record) string {
	if r.Devices != "" {
		return r.Devices
	}
	return r.Backends
}

// cache is the formats of the cache where they are not the usual ones.
func cache(r bench.Record) string {
	if r.TypeK == "f16" && r.TypeV == "f16" {
		return ""
	}
	return " " + r.TypeK + "/" + r.TypeV
}

// speed is the mean with its 95 % confidence interval, or of a single repeat alone.
func speed(r bench.Record) string {
	if r.Interval == nil {
		return fmt.Sprintf("%.2f", r.AvgTS)
	}
	return fmt.Sprintf("%.2f ± %.2f", r.AvgTS, *r.Interval)
}

func test(r bench.Record) bench.Test {
	return bench.Test{Prompt: r.Prompt, Gen: r.Gen, Depth: r.Depth, Sequences: r.Sequences}
}

// Close writes the profiles.
func (m *markdown) Close() error {
	for _, r := range m.profiled {
		if err := profile(m.w, r); err != nil {
			return err
		}
	}
	return nil
}

// begin writes a table's head.
func begin(w io.Writer, columns []column) error {
	var heads, rules []string
	for _, c := range columns {
		heads = append(heads, c.head)
		dashes := strings.Repeat("-", c.width)
		if c.right {
			dashes = dashes[1:] + ":"
		}
		rules = append(rules, dashes)
	}
	if err := row(w, columns, heads); err != nil {
		return err
	}
	return row(w, columns, rules)
}

func row(w io.Writer, columns []column, cells []string) error {
	var line strings.Builder
	for i, c := range columns {
		if c.right {
			fmt.Fprintf(&line, "| %*s ", c.width, cells[i])
		} else {
			fmt.Fprintf(&line, "| %-*s ", c.width, cells[i])
		}
	}
	_, err := fmt.Fprintln(w, line.String()+"|")
	return err
}

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
