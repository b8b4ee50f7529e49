package report

import (
	"fmt"
	"io"

	"drover/internal/bench"
)

// amounts and times are those of a token
var profileColumns = []column{
	{"op", 30, false}, {"calls", 8, true}, {"barriers", 8, true}, {"µs", 9, true}, {"of pass", 7, true},
	{"reads", 10, true}, {"activations", 11, true}, {"operations", 10, true}, {"limit µs", 9, true}, {"of limit", 8, true},
}

// profile writes where the time of a test went.
func profile(w io.Writer, r bench.Record) error {
	var us, limit, barriers float64
	for _, o := range r.Profile {
		us, barriers = us+o.US, barriers+o.Barriers
		if o.LimitUS != nil {
			limit += *o.LimitUS
		}
	}
	measured := 0.0
	if r.AvgTS > 0 {
		measured = 1e6 / r.AvgTS
	}
	if _, err := fmt.Fprintf(w, "\n%s, %s %s, %s: %.1f µs a token in a profiled pass, %.1f as measured; limits of the ops %.1f; barriers: %s a token, %s a layer\n\n",
		r.ModelType, r.Backends, r.ISA, test(r).Name(), us, measured, limit, count(barriers), count(layerBarriers(r.Profile))); err != nil {
		return err
	}
	if err := begin(w, profileColumns); err != nil {
		return err
	}
	for _, o := range r.Profile {
		name := o.Op
		if o.Block != "" {
			name = o.Block + ": " + o.Op
		}
		if err := row(w, profileColumns, []string{name, count(o.Calls), count(o.Barriers), fmt.Sprintf("%.2f", o.US), fmt.Sprintf("%.1f %%", 100*o.Share),
			amount(o.Bytes, Bytes), amount(o.Activations, Bytes), amount(o.Ops+o.FloatOps, operations), known(o.LimitUS, "%.2f"), share(o.LimitShare)}); err != nil {
			return err
		}
	}
	return nil
}

// layerBarriers is the barriers of one layer, of one tile of rows: a block's
// first op is called once each time.
func layerBarriers(ops []bench.Op) (n float64) {
	for _, block := range []string{"attention", "feed-forward"} {
		calls, barriers := 0.0, 0.0
		for _, o := range ops {
			if o.Block != block {
				continue
			}
			if calls == 0 {
				calls = o.Calls
			}
			barriers += o.Barriers
		}
		if calls > 0 {
			n += barriers / calls
		}
	}
	return n
}

// count is a number of times, which for a prompt's token may be far below one.
func count(x float64) string { return fmt.Sprintf("%.4g", x) }

// amount is empty for nothing.
func amount(x float64, text func(uint64) string) string {
	if x == 0 {
		return ""
	}
	return text(uint64(x + 0.5))
}

// operations are for people: "1.23 G".
func operations(n uint64) string {
	x, unit := float64(n), ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if x < 1000 {
			break
		}
		x, unit = x/1000, " "+u
	}
	return fmt.Sprintf("%.4g%s", x, unit)
}
