package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// resultsFile writes a record of drover bench with these speeds and returns its
// path; change replaces text in it.
func resultsFile(t *testing.T, dir, name string, speeds []float64, change ...string) string {
	t.Helper()
	sum := 0.0
	for _, s := range speeds {
		sum += s
	}
	samples, err := json.Marshal(speeds)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"schema":1,"fingerprint":"01234567-89abcdef","backends":"cpu","cpu_info":"Some CPU","isa":"avx2","model_type":"llama 6.7B Q4_0","model_size":3791273984,
"model_n_params":6738415616,"n_batch":2048,"n_threads":2,"type_k":"f16","type_v":"f16","n_prompt":0,"n_gen":128,"n_depth":0,"sequences":1,"test_time":"2026-01-02T03:04:05Z",
"avg_ts":%v,"samples_ts":%s,"limit_ts":20,"bytes_per_token":3.7e9,"simulated":false}`, sum/float64(len(speeds)), samples)
	text = strings.NewReplacer(change...).Replace(strings.ReplaceAll(text, "\n", ""))
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	normal = []float64{10, 10.02, 9.98, 10.01, 9.99}
	slow   = []float64{9.5, 9.52, 9.48, 9.51, 9.49}
)

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	a, b := resultsFile(t, dir, "a.json", normal), resultsFile(t, dir, "b.jsonl", slow, "89abcdef", "00000000")
	page := filepath.Join(dir, "page.html")
	r := command(t, "", nil, "compare", a, b, "--html", page)
	for _, want := range []string{"| llama 6.7B Q4_0 | tg128 |", "-5.0 % slower (p ", "geometric mean", "unlike A: build 89abcdef / 00000000"} {
		if r.exit != 0 || !strings.Contains(r.out, want) {
			t.Errorf("exit %d: no %q in\n%s%s", r.exit, want, r.out, r.errout)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !strings.HasPrefix(string(text), "<!doctype html>") || !strings.Contains(string(text), "</html>") {
		t.Errorf("page: %v, %.100s", err, text)
	}
	if r := command(t, "", nil, "compare", b, a, "--html", page); r.exit != 0 {
		t.Errorf("over an older page: exit %d: %s", r.exit, r.errout)
	}
	doc := command(t, "", nil, "compare", "--json", a, b).object(t)
	if rows := doc["rows"].([]any); len(rows) != 1 || len(doc["columns"].([]any)) != 2 || len(doc["geomeans"].([]any)) != 2 {
		t.Errorf("%v", doc)
	}
}

func TestCompareRegression(t *testing.T) {
	dir := t.TempDir()
	a, b, same := resultsFile(t, dir, "a.json", normal), resultsFile(t, dir, "b.json", slow), resultsFile(t, dir, "c.json", []float64{9.99, 10, 10.01, 10.02, 9.97})
	other := resultsFile(t, dir, "d.json", normal, `"n_gen":128`, `"n_gen":64`)
	for _, c := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{a, b, "--regression", "3"}, 6, "tg128 in b: -5.0 %"},
		{[]string{a, b, "--regression", "6"}, 0, ""},
		{[]string{a, same, "--regression", "2"}, 0, ""},
		{[]string{b, a, "--regression", "3"}, 0, ""},
		{[]string{a, other, "--regression", "3"}, 2, "nothing to judge"},
		{[]string{a, b, "--regression", "0"}, 2, "not from 2 to 100"},
		{[]string{a, b, "--regression", "-5"}, 2, "not from 2 to 100"},
		{[]string{a, b, "--regression", "NaN"}, 2, "not from 2 to 100"},
		{[]string{a, b, "--regression", "x"}, 2, "regression"},
	} {
		r := command(t, "", nil, append([]string{"compare"}, c.args...)...)
		if r.exit != c.exit || !strings.Contains(r.errout, c.want) {
			t.Errorf("%q: exit %d, %s; want %d, %s", c.args[2:], r.exit, r.errout, c.exit, c.want)
		}
	}
	r := command(t, "", nil, "compare", a, b, "--regression", "3", "--json")
	doc := r.object(t)
	if e, _ := doc["error"].(map[string]any); r.exit != 6 || e["code"] != "regression" || len(doc["regressions"].([]any)) != 1 || len(doc["rows"].([]any)) != 1 {
		t.Errorf("exit %d: %v", r.exit, doc)
	}
}

func TestCompareRefuses(t *testing.T) {
	dir := t.TempDir()
	a := resultsFile(t, dir, "a.json", normal)
	simulated := resultsFile(t, dir, "simulated.json", normal, `"simulated":false`, `"simulated":true`)
	damaged := resultsFile(t, dir, "damaged.json", normal, `"sequences"`, `{`)
	foreign := filepath.Join(dir, "package.json")
	if err := os.WriteFile(foreign, []byte(`{"name":"x"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no files"},
		{[]string{a, filepath.Join(dir, "none.json")}, "none.json"},
		{[]string{a, dir}, "folder"},
		{[]string{a, damaged}, "damaged.json: no results of a benchmark"},
		{[]string{foreign}, "neither drover's schema"},
		{[]string{a, simulated}, "simulated and real"},
		{[]string{simulated, a, "--json"}, "simulated and real"},
		{[]string{a, "--html", a}, "is no page"},
		{[]string{a, "--html", filepath.Join(dir, "none", "page.html")}, "--html"},
		{[]string{"--history", "--regression", "3"}, "--regression"},
	} {
		r := command(t, "", nil, append([]string{"compare"}, c.args...)...)
		if r.exit != exitUsage || !strings.Contains(r.out+r.errout, c.want) {
			t.Errorf("%q: exit %d, %s; want 2, %s", c.args, r.exit, r.out+r.errout, c.want)
		}
	}
	if text, err := os.ReadFile(a); err != nil || !strings.HasPrefix(string(text), `{"schema"`) {
		t.Errorf("a file of results became %.20q, %v", text, err)
	}
	if r := command(t, "", nil, "compare", simulated, simulated); r.exit != 0 {
		t.Errorf("simulated results alone: exit %d: %s", r.exit, r.errout)
	}
}

func TestCompareHistory(t *testing.T) {
	data := t.TempDir()
	env := []string{"XDG_DATA_HOME=" + data}
	if r := command(t, "", env, "compare", "--history"); r.exit != exitRuntime || !strings.Contains(r.errout, "bench --save") {
		t.Errorf("nothing kept: exit %d: %s", r.exit, r.errout)
	}
	kept := filepath.Join(data, "drover", "bench")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, path := range []string{resultsFile(t, data, "1", normal), resultsFile(t, data, "2", slow, "89abcdef", "00000000", "2026-01-02", "2026-02-02"), resultsFile(t, data, "3", normal, "Some CPU", "Another")} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	if err := os.WriteFile(filepath.Join(kept, "records.jsonl"), append(all, "damaged\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	r := command(t, "", env, "compare", "--history", "some", "tg128")
	if r.exit != 0 || !strings.Contains(r.out, "2026-02-02 03:04:05 | 00000000 |") || !strings.Contains(r.out, "-5.0 % slower") || strings.Contains(r.out, "Another") || !strings.Contains(r.errout, "1 damaged line") {
		t.Errorf("exit %d:\n%s%s", r.exit, r.out, r.errout)
	}
	if r := command(t, "", env, "compare", "--history", "metal"); r.exit != 0 || r.out != "" || !strings.Contains(r.errout, "none has all of: metal") {
		t.Errorf("exit %d:\n%s%s", r.exit, r.out, r.errout)
	}
	page := filepath.Join(data, "page.html")
	for args, rows := range map[string]int{"": 3, "some tg128": 2} {
		doc := command(t, "", env, append([]string{"compare", "--history", "--json", "--html", page}, strings.Fields(args)...)...).object(t)
		text, err := os.ReadFile(page)
		if err != nil || !strings.HasPrefix(string(text), "<!doctype html>") || strings.Count(string(text), `<tr><th scope="row"`) != rows || doc["history"] == nil {
			t.Errorf("%q: %v, %v, %.100s", args, err, doc, text)
		}
	}
	before, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if r := command(t, "", env, "compare", "--history", "--html", page, "metal"); r.exit != exitUsage || !strings.Contains(r.errout, "none has all of: metal") {
		t.Errorf("nothing to draw: exit %d: %s", r.exit, r.errout)
	}
	if after, err := os.ReadFile(page); err != nil || string(after) != string(before) {
		t.Errorf("a page without records was written: %v", err)
	}
	records := filepath.Join(kept, "records.jsonl")
	if r := command(t, "", env, "compare", "--history", "--html", records); r.exit != exitUsage || !strings.Contains(r.errout, "is no page") {
		t.Errorf("over the records: exit %d: %s", r.exit, r.errout)
	}
	doc := command(t, "", env, "compare", "--history", "--json").object(t)
	if pasts := doc["history"].([]any); len(pasts) != 2 || doc["skipped"] != 1.0 {
		t.Errorf("%v", doc)
	}
}
