package compare

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	one := line(t, record(10, 11))
	for name, c := range map[string]struct {
		text  string
		tools string
	}{
		"document":         {`{"schema":1,"records":[` + one + "," + one + "]}\n", "drover drover"},
		"interrupted":      {`{"schema":1,"error":{"code":"interrupted","message":"interrupted"},"records":[` + one + `]}`, "drover"},
		"lines":            {one + "\n\n" + one + "\r\n", "drover drover"},
		"byte order mark":  {"\xef\xbb\xbf" + one, "drover"},
		"llama-bench":      {"[\n" + llama + ",\n" + llama + "]", "llama-bench llama-bench"},
		"lines of a peer":  {strings.ReplaceAll(llama, "\n", "") + "\n" + strings.ReplaceAll(llama, "\n", ""), "llama-bench llama-bench"},
		"both in one file": {one + "\n" + llama, "drover llama-bench"},
	} {
		got, err := Read("f.json", strings.NewReader(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var tools []string
		for _, r := range got {
			tools = append(tools, r.Tool)
			if r.File != "f.json" {
				t.Errorf("%s: file %q", name, r.File)
			}
		}
		if s := strings.Join(tools, " "); s != c.tools {
			t.Errorf("%s: results of %s, want %s", name, s, c.tools)
		}
	}
}

func TestReadLlama(t *testing.T) {
	got, err := Read("f", strings.NewReader("["+llama+"]"))
	if err != nil {
		t.Fatal(err)
	}
	r := got[0]
	if r.Build != "de3ff81" || r.Sequences != 1 || r.GPUInfo != nil || r.Backends != "cpu" || r.AvgTS != 10 || len(r.SamplesTS) != 2 || *r.Threads != 2 || r.Simulated != nil {
		t.Errorf("%+v", r)
	}
	if m, want := modelOf(r.Record), modelOf(record(1)); m != want {
		t.Errorf("llama-bench's model is %+v, drover's %+v", m, want)
	}
}

// What is no file of results is refused, with the cause and what was expected.
func TestRefuse(t *testing.T) {
	one := line(t, record(10, 11))
	with := func(old, now string) string {
		if !strings.Contains(one, old) {
			t.Fatalf("no %s in %s", old, one)
		}
		return strings.Replace(one, old, now, 1)
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "holds no record"},
		"no records":      {`{"schema":1,"records":[]}`, "holds no record"},
		"markdown":        {"| model | t/s |", "at byte"},
		"cut off":         {one + "\n" + one[:100], "unexpected EOF"},
		"another's JSON":  {`{"name":"x","version":"1.0"}`, "record 1: it has neither"},
		"a number":        {"7", "neither a list nor an object"},
		"null":            {"null", "neither a list nor an object"},
		"records of text": {`{"records":"none"}`, "cannot unmarshal"},
		"an error":        {`{"schema":1,"error":{"code":"usage","message":"unknown flag"}}`, "unknown flag"},
		"newer":           {with(`"schema":1`, `"schema":2`), "schema 2, this drover reads 1"},
		"no speed":        {with(`"avg_ts":10.5`, `"avg_ts":0`), "avg_ts is 0"},
		"a bad sample":    {with(`"samples_ts":[10,11]`, `"samples_ts":[10,-11]`), "samples_ts has -11"},
		"no test":         {with(`"n_gen":128`, `"n_gen":0`), "both 0"},
		"huge":            {with(`"n_gen":128`, `"n_gen":1e9`), "cannot unmarshal"},
		"too long":        {with(`"n_gen":128`, `"n_gen":1000000000`), "n_gen is 1000000000"},
		"sequences":       {with(`"sequences":1`, `"sequences":0`), "sequences is 0"},
		"blank model":     {with(`"model_type":"llama 6.7B Q4_K_M"`, `"model_type":"  "`), "model_type is missing"},
		"a long name":     {with(`"isa":"avx2"`, `"isa":"`+strings.Repeat("x", 5000)+`"`), "isa of 5000 bytes"},
		"the second":      {one + "\n" + with(`"schema":1`, `"schema":9`), "record 2: "},
		"peer's":          {strings.Replace(llama, `"avg_ts": 10`, `"avg_ts": -1`, 1), "avg_ts is -1"},
	} {
		_, err := Read("f.json", strings.NewReader(c.text))
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
			continue
		}
		for _, want := range []string{"f.json", c.want, "-o json"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
	}
	if _, err := ReadFile(t.TempDir()); !errors.Is(err, ErrFormat) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := ReadFile(filepath.Join(t.TempDir(), "no")); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("no file: %v", err)
	}
}

func TestBounds(t *testing.T) {
	one := line(t, record(10))
	if _, err := Read("f", strings.NewReader(strings.Repeat(one+"\n", maxRecords+1))); err == nil || !strings.Contains(err.Error(), "more than 50000 records") {
		t.Errorf("too many records: %v", err)
	}
	if _, err := Read("f", spaces{}); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("too long a file: %v", err)
	}
}

// spaces has no end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestUnmixed(t *testing.T) {
	yes := true
	simulated, real := record(1), record(1)
	simulated.Simulated = &yes
	unknown := real
	unknown.Simulated = nil
	for name, c := range map[string]struct {
		all []Result
		ok  bool
	}{
		"none":       {nil, true},
		"real":       {results(t, "a", real, unknown), true},
		"simulated":  {results(t, "a", simulated, simulated), true},
		"mixed":      {append(results(t, "a", simulated), results(t, "b", real)...), false},
		"in a file":  {results(t, "a", real, simulated), false},
		"not marked": {append(results(t, "a", simulated), results(t, "b", unknown)...), false},
	} {
		err := Unmixed(c.all)
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, ErrMixed) || !strings.Contains(err.Error(), "software device")) {
			t.Errorf("%s: %v, want ok %v", name, err, c.ok)
		}
	}
}

// A table of every setup of a large file would not fit into memory.
func TestComparable(t *testing.T) {
	var all []Result
	for i := range maxSetups + 1 {
		r := record(1)
		r.Threads = &i
		all = append(all, results(t, "a.json", r)...)
	}
	if err := Comparable(all[:maxSetups]); err != nil {
		t.Error(err)
	}
	if err := Comparable(all); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "a.json") {
		t.Errorf("%v, want ErrFormat", err)
	}
	yes := true
	all[1].Simulated = &yes
	if err := Comparable(all[:2]); !errors.Is(err, ErrMixed) {
		t.Errorf("%v, want ErrMixed", err)
	}
}

func FuzzRead(f *testing.F) {
	one := line(f, record(10, 11))
	for _, seed := range []string{one, `{"schema":1,"records":[` + one + `]}`, "[" + llama + "]", one + "\n" + llama, `{"records":null}`, "[[]]", "{}", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		results, err := Read("f", strings.NewReader(string(text)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%v is not ErrFormat", err)
			}
			return
		}
		table := Align(results)
		if len(table.Columns) == 0 || len(table.Rows) == 0 {
			t.Errorf("%d results make %d columns, %d rows", len(results), len(table.Columns), len(table.Rows))
		}
		table.Regressions(5)
		if Unmixed(results) == nil {
			line(t, results[0].Record)
		}
	})
}
