package compare

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Setup is all that a speed depends on beside the work: results of the same file
// and setup are samples of one thing.
type Setup struct {
	File        string `json:"file"`
	Tool        string `json:"tool"`
	Build       string `json:"build"`
	Backends    string `json:"backends"`
	DeviceSet   string `json:"device_set"` // as asked for
	ISA         string `json:"isa"`
	CPU         string `json:"cpu_info"`
	GPU         string `json:"gpu_info"`
	Driver      string `json:"driver"`
	Fingerprint string `json:"fingerprint"`
	Threads     int    `json:"n_threads"`
	Batch       int    `json:"n_batch"`
	TypeK       string `json:"type_k"`
	TypeV       string `json:"type_v"`
	Simulated   bool   `json:"simulated"`
}

func setupOf(r Result) Setup {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	s := Setup{File: r.File, Tool: r.Tool, Build: r.Build, Backends: r.Backends, DeviceSet: r.DeviceSet, ISA: r.ISA, CPU: text(r.CPUInfo), GPU: text(r.GPUInfo), Driver: text(r.Driver),
		Fingerprint: r.Fingerprint, Batch: r.Batch, TypeK: r.TypeK, TypeV: r.TypeV, Simulated: r.Simulated != nil && *r.Simulated}
	if r.Threads != nil {
		s.Threads = *r.Threads
	}
	return s
}

// hardware is a fingerprint's first half: empty where the tool gives none.
func (s Setup) hardware() string {
	h, _, _ := strings.Cut(s.Fingerprint, "-")
	return h
}

// parts lists the setup as people say it, the most telling first, in the same
// order for each setup; what is not known is empty.
func (s Setup) parts() []string {
	threads, batch, caches := "", "", ""
	if s.Threads > 0 {
		threads = fmt.Sprintf("%d threads", s.Threads)
	}
	if s.Batch > 0 {
		batch = fmt.Sprintf("batch %d", s.Batch)
	}
	if s.TypeK+s.TypeV != "" {
		caches = "cache " + s.TypeK + "/" + s.TypeV
	}
	if s.Simulated {
		caches += " simulated"
	}
	return []string{s.Tool, strings.TrimSpace(s.Backends + " " + s.ISA), s.asked(), s.GPU, s.CPU, threads, batch, strings.TrimSpace(caches), prefixed("driver ", s.Driver),
		prefixed("build ", s.Build), prefixed("machine ", s.hardware())}
}

// asked is the device set where it says more than what was used.
func (s Setup) asked() string {
	if s.DeviceSet == s.Backends {
		return ""
	}
	return prefixed("device ", s.DeviceSet)
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// Describe is the setup in words.
func (s Setup) Describe() string {
	return strings.Join(slices.DeleteFunc(s.parts(), func(p string) bool { return p == "" }), ", ")
}

// Differences says what makes two setups incomparable unsaid: of each difference
// both sides. What one of them does not know is none.
func (s Setup) Differences(t Setup) []string {
	var all []string
	say := func(what, a, b string) {
		if a != b && a != "" && b != "" {
			all = append(all, fmt.Sprintf("%s %s / %s", what, a, b))
		}
	}
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprint(n)
	}
	say("tool", s.Tool, t.Tool)
	say("device", strings.TrimSpace(s.Backends+" "+s.GPU), strings.TrimSpace(t.Backends+" "+t.GPU))
	say("device set", s.DeviceSet, t.DeviceSet)
	say("CPU", s.CPU, t.CPU)
	say("kernels", s.ISA, t.ISA)
	say("driver", s.Driver, t.Driver)
	say("threads", number(s.Threads), number(t.Threads))
	say("batch", number(s.Batch), number(t.Batch))
	say("cache", s.TypeK+"/"+s.TypeV, t.TypeK+"/"+t.TypeV)
	say("machine", s.hardware(), t.hardware())
	if s.Tool == t.Tool {
		say("build", s.Build, t.Build)
	}
	return all
}

// Column is one setup and its name.
type Column struct {
	Name string `json:"name"` // short, unlike that of any other column
	Setup
}

// Row is one piece of work and what each column found.
type Row struct {
	Model Model   `json:"model"`
	Type  string  `json:"model_type"` // as a record has it, drover's before another's
	Test  Test    `json:"test"`
	Name  string  `json:"name"` // of the test
	Cells []*Cell `json:"cells"`
}

// Table is results lined up: a column a setup, a row a piece of work. The first
// column is what the others are compared with.
type Table struct {
	Columns []Column  `json:"columns"`
	Rows    []Row     `json:"rows"`
	Means   []Geomean `json:"geomeans"` // of each column
}

// Align lines results up in the order in which setups first appear.
func Align(results []Result) *Table {
	t := &Table{}
	columns := map[Setup]int{}
	type work struct {
		Model
		Test
	}
	rows := map[work]*Row{}
	types := map[Model]string{}
	pools := map[work]map[int][]Result{}
	for _, r := range results {
		s := setupOf(r)
		if _, ok := columns[s]; !ok {
			columns[s] = len(columns)
			t.Columns = append(t.Columns, Column{Setup: s})
		}
		w := work{modelOf(r.Record), testOf(r.Record)}
		row := rows[w]
		if row == nil {
			row = &Row{Model: w.Model, Test: w.Test, Name: w.Test.Name()}
			rows[w], pools[w] = row, map[int][]Result{}
		}
		if r.Tool == Drover || types[w.Model] == "" {
			types[w.Model] = r.ModelType
		}
		pools[w][columns[s]] = append(pools[w][columns[s]], r)
	}
	for w, row := range rows {
		row.Type, row.Cells = types[w.Model], make([]*Cell, len(t.Columns))
		for i, pool := range pools[w] {
			row.Cells[i] = newCell(pool)
		}
		t.Rows = append(t.Rows, *row)
	}
	slices.SortFunc(t.Rows, func(a, b Row) int { return cmp.Or(a.Model.less(b.Model), a.Test.less(b.Test)) })
	t.name()
	t.judge()
	return t
}

// name calls each column by its file, and by what sets it apart from the other
// columns of that file.
func (t *Table) name() {
	short := map[string]map[string]bool{} // by base name the files that have it
	for _, c := range t.Columns {
		base := baseName(c.File)
		if short[base] == nil {
			short[base] = map[string]bool{}
		}
		short[base][c.File] = true
	}
	varied := variedParts(t.Columns)
	for i := range t.Columns {
		c := &t.Columns[i]
		c.Name = baseName(c.File)
		if len(short[c.Name]) > 1 {
			c.Name = c.File
		}
		if apart := c.apart(varied[c.File]); apart != "" {
			c.Name += ": " + apart
		}
	}
	number(t.Columns)
}

// variedParts says of each file in which parts its columns differ.
func variedParts(all []Column) map[string][]bool {
	first, varied := map[string][]string{}, map[string][]bool{}
	for _, c := range all {
		parts := c.parts()
		if first[c.File] == nil {
			first[c.File], varied[c.File] = parts, make([]bool, len(parts))
		}
		for i, p := range parts {
			varied[c.File][i] = varied[c.File][i] || p != first[c.File][i]
		}
	}
	return varied
}

// apart is what sets a column apart from the others of its file; empty where it
// is alone.
func (c *Column) apart(varied []bool) string {
	var apart []string
	for i, p := range c.parts() {
		if varied[i] && p != "" {
			apart = append(apart, p)
		}
	}
	return strings.Join(apart, ", ")
}

// number tells columns of one name apart.
func number(columns []Column) {
	seen := map[string]int{}
	for i := range columns {
		c := &columns[i]
		if seen[c.Name]++; seen[c.Name] > 1 {
			c.Name += fmt.Sprintf(" (%d)", seen[c.Name])
		}
	}
}

func baseName(file string) string {
	base := filepath.Base(file)
	return strings.TrimSuffix(base, filepath.Ext(base))
}
