package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/internal/compare"
	"drover/internal/report"
	"drover/internal/store"
)

func compareCommand() *cli.Command {
	const prefix = "COMPARE_"
	html := stringFlag(catGeneral, prefix, "html", "", "write a page with charts to `FILE`, which needs no network; of what is compared, or of --history")
	html.TakesFile = true
	return &cli.Command{
		Name:      "compare",
		Usage:     "put benchmark results side by side, with significance",
		ArgsUsage: "A.json B.json...",
		Description: "Files are what bench or llama-bench write with -o json or -o jsonl. All are compared with the first.\n" +
			"drover compare before.json after.json --regression 3\n" +
			"--history shows what bench --save kept; words after it choose: drover compare --history q4_0 tg128 cuda\n" +
			"drover compare --history --html page.html draws it",
		Flags: []cli.Flag{
			html,
			floatFlag(catGeneral, prefix, "regression", 0, fmt.Sprintf("exit 6 where a test is slower than the first file's by more than `PERCENT` (from %.0f on) with significance", 100*compare.Floor)),
			boolFlag(catGeneral, prefix, "history", false, "show what bench --save kept, instead of files"),
		},
		Action: runCompare,
	}
}

func runCompare(c *cli.Context) error {
	if c.IsSet("regression") {
		if p := c.Float64("regression"); !(p >= 100*compare.Floor && p < 100) {
			return usageError("smaller changes are not told from chance", "flag --regression: %v is not from %.0f to 100 percent", p, 100*compare.Floor)
		}
	}
	if c.Bool("history") {
		return runHistory(c)
	}
	if c.NArg() == 0 {
		return usageError("drover bench -o json -O A.json makes one; --history shows what bench --save kept", "no files to compare")
	}
	var results []compare.Result
	for _, path := range c.Args().Slice() {
		some, err := compare.ReadFile(path)
		if err != nil {
			return resultsError(err)
		}
		results = append(results, some...)
	}
	if err := compare.Comparable(results); err != nil {
		return resultsError(err)
	}
	t := compare.Align(results)
	var regressions []compare.Regression
	if c.IsSet("regression") {
		if t.Judged() == 0 {
			return usageError("both need the same model and tests, and more than one repeat (bench -r)", "no test is in the first file and in another: nothing to judge")
		}
		regressions = t.Regressions(c.Float64("regression"))
	}
	if path := c.String("html"); path != "" {
		if err := writePage(path, "drover compare A.json B.json --html page.html", func(w io.Writer) error { return report.Page(w, t) }); err != nil {
			return err
		}
	}
	if err := printComparison(c, t, regressions); err != nil {
		return err
	}
	return regressed(c, t, regressions)
}

func printComparison(c *cli.Context, t *compare.Table, regressions []compare.Regression) error {
	if !wantJSON(c) {
		return report.Compare(c.App.Writer, t)
	}
	if len(regressions) > 0 {
		return nil // the error's object holds the table
	}
	return writeJSON(c.App.Writer, comparison(t, regressions))
}

func comparison(t *compare.Table, regressions []compare.Regression) map[string]any {
	doc := map[string]any{"schema": 1, "confidence": compare.Confidence, "alpha": compare.Alpha, "floor": compare.Floor,
		"columns": t.Columns, "rows": t.Rows, "geomeans": t.Means}
	if regressions != nil {
		doc["regressions"] = regressions
	}
	return doc
}

// regressed is the error of tests that became slower.
func regressed(c *cli.Context, t *compare.Table, regressions []compare.Regression) error {
	if len(regressions) == 0 {
		return nil
	}
	var all []string
	for _, r := range regressions {
		all = append(all, fmt.Sprintf("%s %s in %s: %+.1f %%", report.Plain(t.Rows[r.Row].Type), t.Rows[r.Row].Name, report.Plain(t.Columns[r.Column].Name), 100*(r.Ratio-1)))
	}
	return &failure{exit: exitVerify, code: "regression", partly: comparison(t, regressions),
		err: fmt.Errorf("slower than %s: %s", report.Plain(t.Columns[0].Name), strings.Join(all, "; "))}
}

func runHistory(c *cli.Context) error {
	if c.IsSet("regression") {
		return usageError("", "--history is a list: it has no --regression")
	}
	s := store.Open(store.Dir())
	records, skipped, err := s.Read()
	if err != nil {
		return err
	}
	if skipped > 0 {
		fmt.Fprintf(c.App.ErrWriter, "%s: %d damaged line(s) left out\n", s.Path(), skipped)
	}
	if len(records) == 0 {
		return &failure{exit: exitRuntime, code: "history", hint: "drover bench --save keeps results", err: errors.New("no results are kept yet")}
	}
	words := c.Args().Slice()
	pasts := compare.History(records, words)
	if path := c.String("html"); path != "" {
		if len(pasts) == 0 {
			return usageError("drover compare --history lists what is kept", "flag --html: %d results are kept, none has all of: %s", len(records), strings.Join(words, " "))
		}
		if err := writePage(path, "drover compare --history --html page.html", func(w io.Writer) error { return report.HistoryPage(w, pasts, words) }); err != nil {
			return err
		}
	}
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "confidence": compare.Confidence, "history": pasts, "skipped": skipped})
	}
	if len(pasts) == 0 {
		fmt.Fprintf(c.App.ErrWriter, "%d results are kept, none has all of: %s\n", len(records), strings.Join(words, " "))
	}
	return report.History(c.App.Writer, pasts)
}

// resultsError is exit status 2 for files that cannot be compared: the command
// line names them.
func resultsError(err error) error {
	switch {
	case errors.Is(err, compare.ErrMixed):
		return usageError("compare results of software devices with each other, real ones with real ones", "%w", err)
	case errors.Is(err, compare.ErrFormat):
		return usageError("drover bench -o json -O FILE, or llama-bench -o json > FILE", "%w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return usageError("drover bench -o json -O FILE makes one", "%w", err)
	}
	return err
}

// writePage writes nothing unless the whole page could be made, and only over
// another page: in "compare --html A.json B.json" A.json would be the page.
func writePage(path, usage string, write func(io.Writer) error) error {
	if f, err := os.Open(path); err == nil {
		head := make([]byte, 15)
		n, _ := io.ReadFull(f, head)
		f.Close()
		if n > 0 && !strings.EqualFold(string(head[:n]), "<!doctype html>") {
			return usageError(usage, "flag --html: %s is there and is no page: it is left as it is", path)
		}
	}
	var page bytes.Buffer
	if err := write(&page); err != nil {
		return fmt.Errorf("make the page: %w", err)
	}
	if err := os.WriteFile(path, page.Bytes(), 0o644); err != nil {
		return usageError("", "flag --html: %w", err)
	}
	return nil
}
