package report

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"drover/internal/bench"
	"drover/internal/compare"
)

func samples(t *testing.T, names ...string) *compare.Table {
	t.Helper()
	var all []compare.Result
	for _, n := range names {
		some, err := compare.ReadFile("testdata/" + n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return compare.Align(all)
}

// tableOf is of drover's records, a file a list.
func tableOf(lists ...[]bench.Record) *compare.Table {
	var all []compare.Result
	for i, l := range lists {
		for _, r := range l {
			all = append(all, compare.Result{Record: r, File: fmt.Sprintf("f%d.json", i), Tool: compare.Drover})
		}
	}
	return compare.Align(all)
}

// pageOf makes a page of a table, which is as every page must be.
func pageOf(t *testing.T, table *compare.Table) string {
	t.Helper()
	var out strings.Builder
	if err := Page(&out, table); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	hold(t, page)
	return page
}

// hold holds a page to what every page must be.
func hold(t *testing.T, page string) {
	t.Helper()
	if len(page) >= 500<<10 {
		t.Errorf("%d bytes, want less than 500 KB", len(page))
	}
	for what, bad := range map[string]string{
		"a reference to elsewhere": `(?i)https?://|//[a-z]+\.[a-z]|\b(src|srcset|poster|action)=|@import|url\(|<(link|img|iframe|object|embed|base|form)\b`,
		"a number that is none":    `\bNaN|[-+]?Inf\b|ZgotmplZ|%!`,
	} {
		if found := regexp.MustCompile(bad).FindString(page); found != "" {
			t.Errorf("the page has %s: %q", what, found)
		}
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts, want 1", n)
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(`\bid="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("id %q stands twice", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?:aria-labelledby="|href="#)([^"]+)"`).FindAllStringSubmatch(page, -1) {
		for _, id := range strings.Fields(m[1]) {
			if !ids[id] {
				t.Errorf("nothing has the id %q", id)
			}
		}
	}
	for _, tag := range []string{"section", "figure", "svg", "g", "table", "tr", "ul", "li", "span", "h2", "h3", "dl", "dd"} {
		opened, closed := len(regexp.MustCompile("<"+tag+`[\s>]`).FindAllString(page, -1)), strings.Count(page, "</"+tag+">")
		if opened != closed {
			t.Errorf("%s: %d opened, %d closed", tag, opened, closed)
		}
	}
	for _, head := range regexp.MustCompile(`<th\b[^>]*>`).FindAllString(page, -1) {
		if !strings.Contains(head, "scope=") {
			t.Errorf("%s has no scope", head)
		}
	}
	if tables, captions := strings.Count(page, "<table"), strings.Count(page, "<caption>"); tables != captions {
		t.Errorf("%d tables, %d captions", tables, captions)
	}
	charts := regexp.MustCompile(`<svg class="chart"[^>]*role="img"[^>]*>\s*<title[^>]*>[^<]+</title>\s*<desc[^>]*>[^<]+</desc>`).FindAllString(page, -1)
	if n := strings.Count(page, `<svg class="chart"`); n != len(charts) {
		t.Errorf("%d charts, %d of them with a title and a description", n, len(charts))
	}
}

func TestPage(t *testing.T) {
	table := samples(t, "before.jsonl", "after.jsonl", "llama-bench.json")
	page := pageOf(t, table)
	cells := 0
	for _, r := range table.Rows {
		for _, c := range r.Cells {
			if c != nil {
				cells++
				if !strings.Contains(page, number(c.Mean)) {
					t.Errorf("no %s in the page", number(c.Mean))
				}
			}
		}
	}
	if got := strings.Count(page, `<span class="track"`); got != cells {
		t.Errorf("%d bars for %d results", got, cells)
	}
	if got := strings.Count(page, `<tr><th scope="row">llama`); got != cells {
		t.Errorf("%d rows for %d results", got, cells)
	}
	for _, want := range []string{"Roofline", "by sequences at once", "by tokens in the cache", "Unlike A: build 00112233 / 44556677", "slower", "lang=\"en\"", "width=device-width", "prefers-color-scheme"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if got := strings.Count(page, `<svg class="chart"`); got != 1+3 {
		t.Errorf("%d charts, want a roofline, two by depth and one by sequences", got)
	}
}

// evil is a name that a stranger gave.
const evil = `</script><script>alert(1)</script>"'><img src=x onerror=alert(2)>{{.}}`

// asText holds a page to showing evil as text.
func asText(t *testing.T, page string) {
	t.Helper()
	for _, bad := range []string{"<script>alert", "<img", "</script><script>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if !strings.Contains(page, html.EscapeString("<script>alert(1)</script>")) {
		t.Error("the name does not stand in the page as text")
	}
}

// Names in files come from strangers.
func TestPageEscapes(t *testing.T) {
	r := record()
	name := evil
	r.ModelType, r.ISA, r.GPUInfo, r.Driver, r.TypeK, r.Backends = "llama "+evil, evil, &name, &name, evil, evil
	other := record()
	other.Threads = nil
	all := []compare.Result{{Record: r, File: evil + ".json", Tool: compare.Drover, Build: evil}, {Record: other, File: "b.json", Tool: compare.Drover}}
	var out strings.Builder
	if err := Page(&out, compare.Align(all)); err != nil {
		t.Fatal(err)
	}
	asText(t, out.String())
}

// What files may say at their bounds makes a page too, and a long list leaves
// out drawings before it grows past 500 KB.
func TestPageBounds(t *testing.T) {
	least, most := 1e-9, 1e18
	one := func(change func(*bench.Record)) []bench.Record {
		r := record()
		change(&r)
		return []bench.Record{r}
	}
	for name, table := range map[string]*compare.Table{
		"alone":       tableOf(one(func(*bench.Record) {})),
		"no limit":    tableOf(one(func(r *bench.Record) { r.LimitTS, r.ModelSize, r.ModelParams = nil, 0, 0 })),
		"slow":        tableOf(one(func(r *bench.Record) { r.AvgTS, r.SamplesTS, r.LimitTS = least, []float64{least, least}, &most })),
		"fast":        tableOf(one(func(r *bench.Record) { r.AvgTS, r.SamplesTS, r.LimitTS = most, []float64{most}, &least })),
		"one param":   tableOf(one(func(r *bench.Record) { r.ModelParams, r.BytesPerToken = 1, &least })),
		"many bytes":  tableOf(one(func(r *bench.Record) { r.ModelSize, r.BytesPerToken = math.MaxUint64, &most })),
		"far apart":   tableOf(one(func(r *bench.Record) { r.SamplesTS = []float64{least, most} }), one(func(r *bench.Record) { r.SamplesTS = []float64{most} })),
		"no match":    tableOf(one(func(r *bench.Record) { r.Gen = 1 }), one(func(r *bench.Record) { r.Gen = 2 })),
		"both depths": tableOf(append(one(func(r *bench.Record) { r.Depth = 1 << 22 }), one(func(*bench.Record) {})...)),
	} {
		t.Run(name, func(t *testing.T) { pageOf(t, table) })
	}
	var many, wide []bench.Record
	for d := range 5000 {
		many = append(many, one(func(r *bench.Record) { r.Depth = d })...)
	}
	page := pageOf(t, tableOf(many))
	if !strings.Contains(page, "4800 more are in the table alone") || !regexp.MustCompile(`\d{4} more are left out`).MatchString(page) {
		t.Error("the page does not say how much it left out")
	}
	for n := range 64 {
		wide = append(wide, one(func(r *bench.Record) {
			long := strings.Repeat("&", 4000)
			r.Threads, r.ModelType, r.GPUInfo, r.CPUInfo, r.Driver, r.ISA, r.TypeK = &n, "a b "+long, &long, &long, &long, long, long
		})...)
	}
	pageOf(t, tableOf(wide))
}

// Where a point and a roof stand, by hand: a model of 1e9 weights in 0.5 bytes,
// of which decoding reads all, at 100 tokens/s of 125; prompts of 512 at 1000 of
// 2000.
func TestRoofline(t *testing.T) {
	decode, prompt := record(), record()
	bytes, limit, promptLimit := 0.5e9, 125.0, 2000.0
	for _, r := range []*bench.Record{&decode, &prompt} {
		r.ModelParams, r.ModelSize, r.SamplesTS = 1e9, 0.5e9, []float64{100, 100}
	}
	decode.BytesPerToken, decode.LimitTS = &bytes, &limit
	prompt.Prompt, prompt.Gen, prompt.LimitTS, prompt.SamplesTS = 512, 0, &promptLimit, []float64{1000, 1000}
	table := tableOf([]bench.Record{decode, prompt})
	at := loads(table)
	near := func(got, want float64) bool { return math.Abs(got-want) <= 1e-9*want }
	for _, r := range table.Rows {
		want := load{perOp: 0.25, rate: 2e11} // 0.5e9 bytes over 2e9 operations
		if r.Test.Gen == 0 {
			want = load{perOp: 0.25 / 512, rate: 2e12, estimated: true}
		}
		if got := at[r.Cells[0]]; !near(got.perOp, want.perOp) || !near(got.rate, want.rate) || got.estimated != want.estimated {
			t.Errorf("%s: %+v, want %+v", r.Name, got, want)
		}
	}
	if got := roofs(table, at)[0]; !near(got.bytes, 62.5e9) || !near(got.ops, 4e12) {
		t.Errorf("%+v, want 62.5 GB/s and 4e12 operations a second", got)
	}
	// the corner is where both bind, 62.5e9/4e12 bytes per operation
	x, y := axis{lo: 1e-4, hi: 1, from: 0, to: 400, logarithms: true}, axis{lo: 1e9, hi: 1e13, from: 400, to: 0, logarithms: true}
	if got := (roof{bytes: 1e11, ops: 1e12}).path(x, y); got != "0.0,100.0 300.0,100.0 400.0,200.0" {
		t.Errorf("path %s", got)
	}
	c := roofline(table)
	if len(c.Marks) != 2 || len(c.Lines) != 1 || !c.Marks[1].Hollow && !c.Marks[0].Hollow {
		t.Errorf("%+v", c)
	}
	// 8 sequences share one reading, and need 8 times the operations
	eight := decode
	each := bytes / 8
	eight.Sequences, eight.BytesPerToken = 8, &each
	table = tableOf([]bench.Record{eight})
	if got := loads(table)[table.Rows[0].Cells[0]]; !near(got.perOp, 0.25/8) || !near(got.rate, 2e11) {
		t.Errorf("8 sequences: %+v", got)
	}
}

// Points of known places: 100 and 50 tokens/s at depths 0 and 4096, on an axis
// to 110; a logarithmic one where speeds are far apart.
func TestScaling(t *testing.T) {
	at := func(depth int, speed float64) bench.Record {
		r := record()
		r.Depth, r.SamplesTS = depth, []float64{speed, speed}
		return r
	}
	charts := scaling(tableOf([]bench.Record{at(0, 100), at(4096, 50)}, []bench.Record{at(0, 90)}), byDepth)
	if len(charts) != 1 || len(charts[0].Lines) != 1 || len(charts[0].Key) != 1 {
		t.Fatalf("%+v, want one chart of one line: a single depth makes none", charts)
	}
	if got, want := charts[0].Lines[0].Points, "74.0,44.0 626.0,194.0"; got != want {
		t.Errorf("points %s, want %s", got, want)
	}
	if !strings.Contains(charts[0].Text, "A goes from 100.0 tokens a second at 0 to 50.00 at 4096") {
		t.Errorf("text %q", charts[0].Text)
	}
	charts = scaling(tableOf([]bench.Record{at(0, 100), at(4096, 50)}, []bench.Record{at(0, 1), at(4096, 0.5)}), byDepth)
	if len(charts) != 1 || len(charts[0].Lines) != 2 || !strings.Contains(charts[0].YName, "logarithmic") {
		t.Errorf("%+v", charts)
	}
	if none := scaling(tableOf([]bench.Record{at(0, 100)}), bySequences); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestTicks(t *testing.T) {
	for name, c := range map[string]struct {
		a    axis
		want string
	}{
		"linear":  {axis{lo: 0, hi: 35, to: 350}, "0 10 20 30"},
		"depths":  {axis{lo: 0, hi: 16384, to: 100}, "0 4 k 8 k 12 k 16 k"},
		"decades": {axis{lo: 0.5, hi: 2e5, to: 100, logarithms: true}, "1 10 100 1 k 10 k 100 k"},
		"few":     {axis{lo: 0.9, hi: 60, to: 100, logarithms: true}, "1 2 5 10 20 50"},
	} {
		var got []string
		for _, k := range c.a.ticks() {
			got = append(got, k.Label)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
}

func TestCompareText(t *testing.T) {
	var out strings.Builder
	if err := Compare(&out, samples(t, "before.jsonl", "after.jsonl")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "| model") })
	if at < 0 || !slices.Equal(cells(lines[at]), []string{"model", "test", "A t/s", "B t/s", "B against A", "C t/s", "C against A"}) {
		t.Fatalf("%q", lines)
	}
	for _, l := range lines[at:] {
		if len([]rune(l)) != len([]rune(lines[at])) {
			t.Errorf("%q is not as wide as the head", l)
		}
	}
	last := cells(lines[len(lines)-1])
	if last[0] != "geometric mean" || !regexp.MustCompile(`^-4\.\d % \(-5\.\d % to -4\.\d %\)$`).MatchString(last[6]) {
		t.Errorf("%q", last)
	}
	if !strings.Contains(out.String(), "faster (p ") || !strings.Contains(out.String(), "unlike A: build 00112233 / 44556677") {
		t.Errorf("%s", out.String())
	}
}

func TestAgainst(t *testing.T) {
	p := 0.25
	for want, a := range map[string]*compare.Against{
		"": nil, "+1.5 % ~ (p 0.25)": {Ratio: 1.015, P: &p, Verdict: compare.Same}, "-5.0 % slower (p 0.25)": {Ratio: 0.95, P: &p, Verdict: compare.Slower},
		"34.2 times faster (p 0.25)": {Ratio: 34.2, P: &p, Verdict: compare.Faster}, "-5.0 % ?": {Ratio: 0.95, Verdict: compare.Unknown},
	} {
		if got := Against(a); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What a file says cannot steer a terminal or break a table.
func TestPlain(t *testing.T) {
	r := record()
	r.ModelType, r.ISA = "llama 1B \x1b[31mQ4_0|x\n", "\x1b]0;title\a"
	for name, write := range map[string]func(*strings.Builder) error{
		"compare": func(w *strings.Builder) error { return Compare(w, tableOf([]bench.Record{r})) },
		"history": func(w *strings.Builder) error { return History(w, compare.History([]bench.Record{r, r}, nil)) },
	} {
		var out strings.Builder
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\a") || !strings.Contains(out.String(), "Q4_0?x") {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

func TestLetter(t *testing.T) {
	for n, want := range map[int]string{0: "A", 25: "Z", 26: "AA", 51: "AZ", 52: "BA", 702: "AAA"} {
		if got := letter(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
