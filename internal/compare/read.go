// Package compare lines up the results of benchmarks and says what differs. It
// reads the files of drover bench and of llama-bench, and knows nothing of how
// either measures.
package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"drover/internal/bench"
)

// ErrFormat: a file is not one of results.
var ErrFormat = errors.New("no results of a benchmark")

const expected = "expected what drover bench or llama-bench write with -o json or -o jsonl"

// Bounds on what is read.
const (
	maxFile    = 64 << 20 // bytes
	maxRecords = 50_000
)

// The tools whose results are read.
const (
	Drover     = "drover"
	LlamaBench = "llama-bench"
)

// Result is a record and where it is from.
type Result struct {
	bench.Record
	File  string
	Tool  string
	Build string // of the tool: a commit or a digest of the program; empty: not known
}

// ReadFile reads a file of results. Errors: ErrFormat, those of the file.
func ReadFile(path string) ([]Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s: %w: it is a folder; %s", path, ErrFormat, expected)
	}
	return Read(path, f)
}

// Read reads results: one JSON document, or JSON lines. name is what errors and
// results call it.
func Read(name string, r io.Reader) ([]Result, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	fail := func(format string, args ...any) ([]Result, error) {
		return nil, fmt.Errorf("%s: %w: %w; %s", name, ErrFormat, fmt.Errorf(format, args...), expected)
	}
	if len(text) > maxFile {
		return fail("more than %d MiB", maxFile>>20)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // as PowerShell redirects
	results := []Result{}
	in := json.NewDecoder(bytes.NewReader(text))
	for {
		var document json.RawMessage
		err := in.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fail("at byte %d: %w", in.InputOffset(), err)
		}
		records, err := recordsOf(document)
		if err != nil {
			return fail("%w", err)
		}
		for _, record := range records {
			if len(results) == maxRecords {
				return fail("more than %d records", maxRecords)
			}
			result, err := decode(record)
			if err != nil {
				return fail("record %d: %w", len(results)+1, err)
			}
			result.File = name
			results = append(results, result)
		}
	}
	if len(results) == 0 {
		return fail("it holds no record")
	}
	return results, nil
}

// recordsOf takes a document apart: llama-bench's array, drover's object with a
// list of records, or a line that is a record itself.
func recordsOf(document json.RawMessage) ([]json.RawMessage, error) {
	var list []json.RawMessage
	switch document[0] {
	case '[':
		err := json.Unmarshal(document, &list)
		return list, err
	case '{':
		var d struct {
			Records *[]json.RawMessage `json:"records"`
			Error   *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(document, &d); err != nil {
			return nil, err
		}
		switch {
		case d.Records != nil:
			return *d.Records, nil
		case d.Error != nil:
			return nil, fmt.Errorf("it tells of an error: %.200s", d.Error.Message)
		}
		return []json.RawMessage{document}, nil
	}
	return nil, fmt.Errorf("a JSON value that is neither a list nor an object: %.40s", document)
}

// decode reads one record of either tool: llama-bench's have no schema.
func decode(record json.RawMessage) (Result, error) {
	var has struct {
		Schema *int     `json:"schema"`
		Commit *string  `json:"build_commit"`
		Rate   *float64 `json:"avg_ts"`
	}
	if err := json.Unmarshal(record, &has); err != nil {
		return Result{}, err
	}
	switch {
	case has.Schema != nil:
		r, err := bench.Decode(record)
		return Result{Record: r, Tool: Drover, Build: build(r)}, err
	case has.Commit != nil && has.Rate != nil:
		return decodeLlama(record, *has.Commit)
	}
	return Result{}, errors.New("it has neither drover's schema nor llama-bench's build_commit and avg_ts")
}

// build is drover's version and the program's digest, which differs between two
// builds of one commit.
func build(r bench.Record) string {
	_, program, _ := strings.Cut(r.Fingerprint, "-")
	switch v := r.Machine.Version; v {
	case "", "unknown", "(devel)":
		return program
	default:
		return v + " " + program
	}
}

// decodeLlama reads a record of llama-bench, whose names drover's records share.
func decodeLlama(record json.RawMessage, commit string) (Result, error) {
	var r bench.Record
	if err := json.Unmarshal(record, &r); err != nil {
		return Result{}, err
	}
	r.Schema, r.Sequences = bench.Schema, 1
	r.Backends = strings.ToLower(r.Backends)
	for _, s := range []**string{&r.CPUInfo, &r.GPUInfo} {
		if *s != nil && **s == "" {
			*s = nil
		}
	}
	if err := r.Check(); err != nil {
		return Result{}, err
	}
	if len(commit) > 64 {
		return Result{}, fmt.Errorf("build_commit of %d bytes", len(commit))
	}
	return Result{Record: r, Tool: LlamaBench, Build: commit}, nil
}

// maxSetups bounds the columns of a table: each row has a cell for each.
const maxSetups = 64

// Comparable says whether results can stand in one table. Errors: ErrMixed,
// ErrFormat for more setups than a table takes.
func Comparable(results []Result) error {
	if err := Unmixed(results); err != nil {
		return err
	}
	setups := map[Setup]bool{}
	for _, r := range results {
		if setups[setupOf(r)] = true; len(setups) > maxSetups {
			return fmt.Errorf("%s: %w: with the files before it more than %d setups of device, build and settings", r.File, ErrFormat, maxSetups)
		}
	}
	return nil
}

// ErrMixed: results of software devices beside those of real ones.
var ErrMixed = errors.New("simulated and real results do not compare")

// Unmixed refuses results of software devices beside those of real ones: a
// software device's time says nothing about a real one. Errors: ErrMixed.
func Unmixed(results []Result) error {
	isSimulated := func(r Result) bool { return r.Simulated != nil && *r.Simulated }
	i := slices.IndexFunc(results, isSimulated)
	j := slices.IndexFunc(results, func(r Result) bool { return !isSimulated(r) })
	if i < 0 || j < 0 {
		return nil
	}
	return fmt.Errorf("%w: %s was measured on a software device (%s), %s on a real one (%s)",
		ErrMixed, results[i].File, Device(results[i]), results[j].File, Device(results[j]))
}

// Device names what ran a result: "cuda sm_90 NVIDIA H100".
func Device(r Result) string {
	words := []string{r.Backends}
	if r.ISA != "" {
		words = append(words, r.ISA)
	}
	switch {
	case r.GPUInfo != nil:
		words = append(words, *r.GPUInfo)
	case r.CPUInfo != nil:
		words = append(words, *r.CPUInfo)
	}
	return strings.Join(words, " ")
}
