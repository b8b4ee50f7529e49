package engine

import (
	"errors"
	"fmt"
	"slices"

	"drover/backend"
	"drover/internal/quant"
)

// Options is how much a model is asked to carry. The zero value is one
// sequence of the model's own context, with an F32 cache.
type Options struct {
	Context   int        // most positions of a sequence; 0: the model's
	Batch     int        // most rows in a forward pass; 0: 2048
	Sequences int        // most sequences in a batch; 0: 1. More may be asked for: they wait
	Pages     int        // cache pages for all sequences; 0: Context for each of Sequences
	Outs      int        // most rows with logits in a forward pass; 0: 4 MiB of logits
	K, V      quant.Type // cache formats
}

// Placement is a device and the runs of blocks that it is to carry.
type Placement struct {
	Device backend.Device
	Runs   []backend.Range
}

// Whole places all of a model on one device.
func Whole(m *backend.Model, dev backend.Device) []Placement {
	return []Placement{{dev, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}}}
}

// run is a run of blocks: which stage carries it, and which of its runs it is.
type run struct {
	stage, index int
	blocks       backend.Range
}

// order gives the runs in the order of the blocks, which they must cover once
// and without a gap.
func order(m *backend.Model, places []Placement) ([]run, error) {
	var runs []run
	for i, p := range places {
		for j, r := range p.Runs {
			runs = append(runs, run{i, j, r})
		}
	}
	slices.SortStableFunc(runs, func(a, b run) int { return a.blocks.Lo - b.blocks.Lo })
	at := 0
	for _, r := range runs {
		if r.blocks.Lo != at || r.blocks.Hi <= r.blocks.Lo {
			return nil, fmt.Errorf("placement: blocks %d-%d where block %d should follow", r.blocks.Lo, r.blocks.Hi, at)
		}
		at = r.blocks.Hi
	}
	if at != m.Config.Blocks() {
		return nil, fmt.Errorf("placement: blocks up to %d of %d", at, m.Config.Blocks())
	}
	return runs, nil
}

func (o Options) check() error {
	for _, c := range []struct {
		name  string
		value int
	}{{"context", o.Context}, {"batch", o.Batch}, {"sequences", o.Sequences}, {"pages", o.Pages}, {"outs", o.Outs}} {
		if c.value < 0 {
			return fmt.Errorf("%s %d: want 0 (automatic) or a positive number", c.name, c.value)
		}
	}
	for _, t := range []quant.Type{o.K, o.V} {
		if t != quant.F32 && t != quant.F16 && t != quant.Q8_0 {
			return fmt.Errorf("cache format %v: want f32, f16 or q8_0", t)
		}
	}
	return nil
}

// Limits follows from the options once the context is known.
func (o Options) Limits(c *backend.Config, context int) backend.Limits {
	seqs := max(o.Sequences, 1)
	l := backend.Limits{Seqs: seqs, Context: context, Pages: o.Pages, Outs: o.Outs, K: o.K, V: o.V}
	if l.Pages == 0 {
		l.Pages = seqs * pagesOf(context)
	}
	batch := o.Batch
	if batch == 0 {
		batch = 2048
	}
	l.Rows = max(seqs, min(batch, l.Pages*backend.PageRows))
	if l.Outs == 0 {
		l.Outs = min(l.Rows, (1<<20)/c.Vocab)
	}
	l.Outs = min(l.Rows, max(l.Outs, seqs))
	// a sequence alone must always fit, so that the oldest one is never stuck
	if l.Pages < holding(c.Window, context) {
		l.Context = l.Pages * backend.PageRows
	}
	return l
}

// pagesOf is how many pages n positions need.
func pagesOf(n int) int { return (n + backend.PageRows - 1) / backend.PageRows }

// holding is how many pages a sequence of n positions holds at most: with a
// sliding window, those that the next row sees and a page's worth of new rows,
// which need not begin at a page's start.
func holding(window, n int) int {
	if window == 0 {
		return pagesOf(n)
	}
	return min(pagesOf(n), pagesOf(window-1+backend.PageRows)+1)
}

// errClosed is what requests get once Close was called.
var errClosed = errors.New("engine is closed")

// ContextError: more tokens than a sequence can have.
type ContextError struct{ Tokens, Context int }

func (e *ContextError) Error() string {
	return fmt.Sprintf("%d tokens do not fit the context of %d: shorten the prompt or raise --ctx-size", e.Tokens, e.Context)
}
