// Package report writes the results of benchmarks for people and programs. It
// knows records and formats, and nothing of how they were measured.
package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"drover/internal/bench"
)

// Formats lists the names that New takes.
func Formats() []string { return []string{"md", "csv", "json", "jsonl", "benchstat"} }

// Writer takes records as they are measured. All formats but json write each
// one at once, so that an interrupted run keeps what it has.
type Writer interface {
	Add(bench.Record) error
	Close() error // ends the document; does not close the file beneath
}

// New makes a writer of the named format.
func New(w io.Writer, format string) (Writer, error) {
	switch format {
	case "md":
		return &markdown{w: w}, nil
	case "csv":
		return &table{w: csv.NewWriter(w)}, nil
	case "json":
		return &document{w: w, records: []bench.Record{}}, nil
	case "jsonl":
		return lines{json.NewEncoder(w)}, nil
	case "benchstat":
		return &benchstat{w: w}, nil
	}
	return nil, fmt.Errorf("unknown output format %q: one of %s", format, strings.Join(Formats(), ", "))
}

// document is one JSON object with all records.
type document struct {
	w       io.Writer
	records []bench.Record
}

func (d *document) Add(r bench.Record) error { d.records = append(d.records, r); return nil }

func (d *document) Close() error {
	e := json.NewEncoder(d.w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Schema  int            `json:"schema"`
		Records []bench.Record `json:"records"`
	}{bench.Schema, d.records})
}

// lines is a JSON record a line.
type lines struct{ e *json.Encoder }

func (l lines) Add(r bench.Record) error { return l.e.Encode(r) }
func (l lines) Close() error             { return nil }

// table is CSV with a record's JSON names as the head; what is null is empty,
// lists and objects are JSON.
type table struct {
	w     *csv.Writer
	names []string
}

func (t *table) Add(r bench.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	names, values, err := flat(data)
	if err != nil {
		return err
	}
	if t.names == nil {
		t.names = names
		if err := t.w.Write(names); err != nil {
			return err
		}
	}
	if err := t.w.Write(values); err != nil {
		return err
	}
	t.w.Flush()
	return t.w.Error()
}

func (t *table) Close() error { return nil }

// flat takes a JSON object apart, in its own order.
func flat(data []byte) (names, values []string, err error) {
	d := json.NewDecoder(strings.NewReader(string(data)))
	if _, err := d.Token(); err != nil {
		return nil, nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, nil, err
		}
		var text string
		switch {
		case string(raw) == "null":
		case json.Unmarshal(raw, &text) != nil:
			text = string(raw)
		}
		names, values = append(names, fmt.Sprint(name)), append(values, text)
	}
	return names, values, nil
}
