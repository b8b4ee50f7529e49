package sched

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write prints the plan as a table for people, and below it the reasons.
func (p *Plan) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "context %d (limit: %s)", p.Context, p.Limit)
	if p.Context < p.Wanted {
		fmt.Fprintf(&b, ": shrunk from %d, which would not fit or cost speed", p.Wanted)
	}
	b.WriteString("\n\n")
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tCARRIES\tWEIGHTS\tCACHE\tSCRATCH\tHOST\tFREE\tLEFT\tMS/TOKEN\tSHARE")
	for i := range p.Stages {
		s := &p.Stages[i]
		ms, share := "-", "-"
		if s.MS > 0 {
			ms, share = fmt.Sprintf("%.2f", s.MS), fmt.Sprintf("%.0f %%", 100*s.Share)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Device, shorten(s.What), size(s.Weights), size(s.Cache), size(s.Scratch),
			size(s.Host), size(s.Free), size(s.Left), ms, share)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range p.Stages {
		s := &p.Stages[i]
		if shorten(s.What) != s.What {
			fmt.Fprintf(&b, "%s carries %s\n", s.Device, s.What)
		}
		if len(s.Converted) > 0 {
			fmt.Fprintf(&b, "%s has no kernels for %s: converted exactly to int8 with a scale per 16, 10 bits a weight\n", s.Device, strings.Join(s.Converted, ", "))
		}
	}
	b.WriteString("\n")
	p.writeReasons(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeReasons prints the speed and what bounds it.
func (p *Plan) writeReasons(b *strings.Builder) {
	if p.Predicted > 0 {
		fmt.Fprintf(b, "predicted: %s tokens/s decoded at position %d", rate(p.Predicted), p.At)
		if p.At >= p.Context {
			b.WriteString(", beyond the context")
		}
		if p.Prompt > 0 {
			fmt.Fprintf(b, "; prompt of %d: %s tokens/s", p.Request.Prompt, rate(p.Prompt))
		}
		b.WriteString("\n")
	}
	if p.Binding != nil {
		b.WriteString(p.Binding.text(p))
	}
	for _, a := range p.Advice {
		fmt.Fprintf(b, "with %s: %s tokens/s (%+.0f %%), prompt %s tokens/s", a.Change, rate(a.Predicted), 100*(a.Predicted/p.Predicted-1), rate(a.Prompt))
		if a.Context > p.Context {
			fmt.Fprintf(b, ", context %d", a.Context)
		}
		b.WriteString("\n")
	}
	for _, l := range p.LeftOut {
		fmt.Fprintf(b, "%s carries nothing: %s\n", l.Device, l.Reason)
	}
}

// shorten fits a stage's blocks into a column.
func shorten(what string) string {
	const most = 48
	if len(what) <= most {
		return what
	}
	cut := strings.LastIndex(what[:most-4], ",")
	return what[:max(cut, 0)] + ", ..."
}

// rate is tokens/s with three figures.
func rate(x Figure) string {
	switch {
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func (b *Binding) text(p *Plan) string {
	speed := fmt.Sprintf("%s tokens/s, prompt %s tokens/s", rate(b.Fast), rate(b.Prompt))
	switch {
	case b.What == "wishes":
		return fmt.Sprintf("limit: the placement flags; without them %s\n", speed)
	case b.What == "memory" && p.Context < p.Wanted:
		return fmt.Sprintf("limit: the memory of %s; with enough of it the context would be %d, and %s\n", b.Device, p.Wanted, speed)
	case b.What == "memory":
		return fmt.Sprintf("limit: the memory of %s; with enough of it %s\n", b.Device, speed)
	}
	return fmt.Sprintf("limit: the bandwidth of %s; more memory would not make it faster\n", b.Device)
}
