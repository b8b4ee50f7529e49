package report

import (
	"fmt"
	"strings"

	"drover/internal/bench"
)

// Remarks are what a reader of a record's speed should know of it, a line each;
// repeats: how many it might have had.
func Remarks(r bench.Record, repeats int) []string {
	var lines []string
	say := func(format string, args ...any) {
		lines = append(lines, test(r).Name()+": "+fmt.Sprintf(format, args...))
	}
	n := len(r.SamplesTS)
	if n < min(repeats, bench.LeastRepeats) {
		say("repeated %d of %d times: it was interrupted, or --budget was spent", n, repeats)
	}
	if r.Interval != nil && *r.Interval > bench.Narrow*r.AvgTS {
		say("after %d repeats the mean is known to ± %.1f %% (95 %%)", n, 100**r.Interval/r.AvgTS)
	}
	if len(r.Outliers) > 0 {
		say("%d of %d repeats are far from the others", len(r.Outliers), n)
	}
	if len(r.ThrottledBy) > 0 {
		say("slower than the device could be: %s", strings.Join(r.ThrottledBy, ", "))
	}
	return lines
}
