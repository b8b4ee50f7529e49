package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"drover/internal/bench"
	"drover/internal/report"
	"drover/internal/store"
)

// results is where records go: to a file or the standard output in the format
// of -o, with --json as one object to the standard output, and with --save to those
// that are kept.
type results struct {
	records []bench.Record
	without error         // why what was left out was, if anything
	json    io.Writer     // nil: not asked for
	report  report.Writer // nil: only JSON
	file    *os.File      // nil: the standard output
	kept    *store.Store  // nil: not asked for
}

func openResults(c *cli.Context) (*results, error) {
	out := &results{records: []bench.Record{}}
	if c.Bool("save") {
		out.kept = store.Open(store.Dir())
	}
	format, path := c.String("output"), c.String("output-file")
	if _, err := report.New(io.Discard, format); err != nil {
		return nil, usageError("", "flag --output: %w", err)
	}
	w := c.App.Writer
	if wantJSON(c) {
		out.json = w
		if path == "" && c.IsSet("output") && format != "json" {
			return nil, usageError("--json -O FILE writes both", "--json and -o %s both want the standard output", format)
		}
		if !c.IsSet("output") {
			format = "json"
		}
		if path == "" {
			return out, nil
		}
	}
	var err error
	if path != "" {
		if out.file, err = os.Create(path); err != nil {
			return nil, usageError("", "flag --output-file: %w", err)
		}
		w = out.file
	}
	out.report, err = report.New(w, format)
	return out, err
}

// add takes a record, and keeps it at once: later ones may not come.
func (r *results) add(b bench.Record) error {
	r.records = append(r.records, b)
	if r.kept != nil {
		if err := r.kept.Append([]bench.Record{b}); err != nil {
			return fmt.Errorf("flag --save: %w", err)
		}
	}
	if r.report == nil {
		return nil
	}
	return r.report.Add(b)
}

// leftOut says that devices were, and why.
func (r *results) leftOut(errs io.Writer, name string, why error) {
	fmt.Fprintf(errs, "%s: left out: %v\n", name, why)
	r.without = why
}

// end completes the output, also after err: what was measured is kept. Nothing
// measured at all is an error.
func (r *results) end(err error) error {
	if err == nil && len(r.records) == 0 {
		err = r.without
	}
	if r.report != nil {
		err = errors.Join(err, r.report.Close())
	}
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	switch {
	case r.json == nil:
		return err
	case err == nil:
		return writeJSON(r.json, map[string]any{"schema": bench.Schema, "records": r.records})
	}
	f := *classify(err)
	f.partly = map[string]any{"records": r.records}
	return &f
}
