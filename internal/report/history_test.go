package report

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"drover/internal/bench"
	"drover/internal/compare"
)

func historyOf(t *testing.T, records []bench.Record, words ...string) string {
	t.Helper()
	var out strings.Builder
	if err := HistoryPage(&out, compare.History(records, words), words); err != nil {
		t.Fatal(err)
	}
	hold(t, out.String())
	return out.String()
}

// sampleHistory is 28 records: of the CPU two tests, one of them with two numbers
// of threads, of a card one test, of a software card one, and one that is alone.
func sampleHistory(t *testing.T) (all []bench.Record) {
	t.Helper()
	results, err := compare.ReadFile("testdata/history.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		all = append(all, r.Record)
	}
	return all
}

var (
	aChart = regexp.MustCompile(`(?s)<svg class="chart".*?</figure>`)
	aRow   = regexp.MustCompile(`<tr><th scope="row"`)
)

func TestHistoryPage(t *testing.T) {
	records := sampleHistory(t)
	page := historyOf(t, records)
	if n := len(aRow.FindAllString(page, -1)); n != len(records) {
		t.Errorf("%d rows for %d records", n, len(records))
	}
	charts := aChart.FindAllString(page, -1)
	if len(charts) != 4 {
		t.Fatalf("%d charts, want 4", len(charts))
	}
	drawn := 0
	for i, want := range []struct {
		title        string
		marks, lines int
	}{{"pp512 on cpu over", 8, 1}, {"tg128 on cpu over", 12, 2}, {"tg128 on cuda:0 (simulated) over", 3, 1}, {"tg128 on cuda:0 over", 4, 1}} {
		marks, lines := strings.Count(charts[i], `class="mark `), strings.Count(charts[i], "<polyline")
		if !strings.Contains(charts[i], want.title) || marks != want.marks || lines != want.lines || strings.Count(charts[i], "<li>") != lines {
			t.Errorf("chart %d has %d marks, %d lines, want %+v: %.300s", i, marks, lines, want, charts[i])
		}
		drawn += marks
	}
	if drawn+1 != len(records) || !strings.Contains(page, "no other of their kind: 1.") {
		t.Errorf("%d records drawn of %d, want all but one, and that said", drawn, len(records))
	}
	// the sample is throttled once, and one record has no repeats
	if hollow, whiskers := strings.Count(page, " hollow\""), strings.Count(page, `class="whisker"`); hollow != 1 || whiskers != drawn-1 {
		t.Errorf("%d hollow points and %d intervals, want 1 and %d", hollow, whiskers, drawn-1)
	}
	for _, want := range []string{"Times are UTC", "2026-06-11 21:45:00", "v0.4.0 33445566", "slower (p ", "(simulated)</td>", "drover compare --history --html"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	page = historyOf(t, records, "tg128", "8 threads")
	if n := len(aRow.FindAllString(page, -1)); n != 4 || !strings.Contains(page, "<h1>Benchmark history: tg128 8 threads</h1>") {
		t.Errorf("%d rows of 8 threads, want 4", n)
	}
}

// A record of a software device is in no chart of a real one's, whatever else
// they share.
func TestHistoryPageSimulated(t *testing.T) {
	yes, real, simulated := true, record(), record()
	simulated.Simulated = &yes
	page := historyOf(t, []bench.Record{real, simulated, real, simulated})
	charts := aChart.FindAllString(page, -1)
	if len(charts) != 2 || strings.Contains(charts[0], "(simulated)") == strings.Contains(charts[1], "(simulated)") {
		t.Fatalf("%d charts: %q", len(charts), charts)
	}
	for _, c := range charts {
		if strings.Count(c, "<polyline") != 1 || strings.Count(c, `class="mark `) != 2 {
			t.Errorf("%s", c)
		}
	}
}

// Points of known places: 100 and 90 tokens/s, 100 minutes apart, on axes with
// room about them.
func TestHistoryChart(t *testing.T) {
	at := func(minutes int, speed float64) bench.Record {
		r := record()
		r.TestTime, r.SamplesTS = r.TestTime.Add(time.Duration(minutes)*time.Minute), []float64{speed, speed}
		return r
	}
	p := newHistoryPage(compare.History([]bench.Record{at(100, 90), at(0, 100)}, nil), nil, maxRecords)
	if len(p.Charts) != 1 || len(p.Charts[0].Lines) != 1 {
		t.Fatalf("%+v", p.Charts)
	}
	// 552 units are 104 minutes, 330 units are 81 to 110 tokens/s
	if got, want := p.Charts[0].Lines[0].Points, "84.6,127.8 615.4,241.6"; got != want {
		t.Errorf("points %s, want %s", got, want)
	}
	if want := "A has 2 records from 2026-01-02 to 2026-01-02, the first of 100.0 tokens a second, the last of 90.00."; p.Charts[0].Text != want {
		t.Errorf("text %q, want %q", p.Charts[0].Text, want)
	}
	if y := newHistoryPage(compare.History([]bench.Record{at(0, 100), at(1, 1)}, nil), nil, maxRecords).Charts[0].YName; !strings.Contains(y, "logarithmic") {
		t.Errorf("axis %q of speeds far apart", y)
	}
}

// Names in records come from strangers.
func TestHistoryPageEscapes(t *testing.T) {
	r := record()
	name := evil
	r.ModelType, r.ISA, r.GPUInfo, r.DeviceSet, r.TypeK, r.Machine.Version = "llama "+evil, evil, &name, evil, evil, evil
	var out strings.Builder
	if err := HistoryPage(&out, compare.History([]bench.Record{r, r}, []string{"alert"}), []string{"alert"}); err != nil {
		t.Fatal(err)
	}
	asText(t, out.String())
}

// What records may say at their bounds makes a page too, and a long past leaves
// out its beginning before the page grows past 500 KB.
func TestHistoryPageBounds(t *testing.T) {
	change := func(times int, change func(int, *bench.Record)) (all []bench.Record) {
		for i := range times {
			r := record()
			r.TestTime = r.TestTime.Add(time.Duration(i) * time.Hour)
			change(i, &r)
			all = append(all, r)
		}
		return all
	}
	for name, records := range map[string][]bench.Record{
		"alone":      change(1, func(int, *bench.Record) {}),
		"one moment": change(3, func(_ int, r *bench.Record) { r.TestTime = record().TestTime }),
		"no time":    change(2, func(_ int, r *bench.Record) { r.TestTime = time.Time{} }),
		"all times":  change(2, func(i int, r *bench.Record) { r.TestTime = time.Date(9999*i, 12, 31, 23, 59, 59, 0, time.UTC) }),
		"far apart":  change(2, func(i int, r *bench.Record) { r.SamplesTS = []float64{[]float64{1e-9, 1e18}[i]} }),
		"wide":       change(2, func(_ int, r *bench.Record) { r.SamplesTS = []float64{1e-9, 1e18} }),
		"no limit":   change(2, func(_ int, r *bench.Record) { r.LimitTS, r.ModelSize = nil, 0 }),
	} {
		t.Run(name, func(t *testing.T) { historyOf(t, records) })
	}
	long := strings.Repeat("&", 4000)
	for name, c := range map[string]func(int, *bench.Record){
		"one past":    func(int, *bench.Record) {},
		"many pasts":  func(i int, r *bench.Record) { r.Depth = i / 2 },
		"many setups": func(i int, r *bench.Record) { r.Batch = i + 1 },
		"long names": func(i int, r *bench.Record) {
			r.Batch, r.ModelType, r.ISA, r.DeviceSet, r.Machine.Version = i/2+1, "a b "+long, long, long, long
		},
	} {
		page := historyOf(t, change(2500, c))
		rows := len(aRow.FindAllString(page, -1))
		if !strings.Contains(page, fmt.Sprintf("<p>%d older records are left out", 2500-rows)) || rows < 30 {
			t.Errorf("%s: %d rows, and the page does not say how much it left out", name, rows)
		}
		if last := record().TestTime.Add(2499 * time.Hour).Format(time.DateTime); !strings.Contains(page, last) {
			t.Errorf("%s: the newest record, of %s, is left out", name, last)
		}
	}
}

func TestTimeTicks(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"2026-01-02T03:04:05Z", "2026-01-02T03:06:05Z", "2 Jan 03:05|2 Jan 03:06"},
		{"2026-01-02T03:04:05Z", "2026-01-02T23:00:00Z", "2 Jan 06:00|2 Jan 12:00|2 Jan 18:00"},
		{"2026-02-27T12:00:00Z", "2026-03-02T12:00:00Z", "2026-02-28|2026-03-01|2026-03-02"},
		{"2025-11-15T00:00:00Z", "2026-06-20T00:00:00Z", "2026-01|2026-03|2026-05"},
		{"2023-06-01T00:00:00Z", "2026-06-20T00:00:00Z", "2024|2025|2026"},
		{"0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2500|5000|7500"},
	} {
		a := axis{from: frameLeft, to: 500}
		for at, text := range map[*float64]string{&a.lo: c.from, &a.hi: c.to} {
			moment, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			*at = seconds(moment)
		}
		var got []string
		for _, k := range timeTicks(a) {
			got = append(got, k.Label)
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s to %s: %s, want %s", c.from, c.to, s, c.want)
		}
	}
	// the last one's name would leave the drawing
	a := axis{lo: 0, hi: 180, from: frameLeft, to: frameRight}
	if k := timeTicks(a); len(k) != 4 || k[0].Label != "1 Jan 00:00" || k[2].Label == "" || k[3].Label != "" {
		t.Errorf("%+v", k)
	}
}
