// gotest runs "go test -json" with its arguments and prints what a person wants
// to know: a line a package, the output of what failed, the names of what was
// skipped, and the totals.
//
//	go run .ci/gotest.go [-noskip] [-totals FILE] GO-TEST-ARGUMENTS
//
// It fails if a test failed, if none ran, or, with -noskip, if one was skipped.
// -totals appends "PASSED FAILED" to a file; with -noskip a skip counts as failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is a line of go test -json (go doc test2json); build output names its
// package in ImportPath.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// counts of tests, subtests included.
type counts struct{ passed, failed, skipped int }

type summary struct {
	out      io.Writer
	noskip   bool
	packages map[string]*counts
	output   map[string][]string // of a test that still runs, and of its package
	skips    []string
	total    counts
}

func main() {
	args := os.Args[1:]
	s := &summary{out: os.Stdout, packages: map[string]*counts{}, output: map[string][]string{}}
	totals := ""
	for len(args) > 0 {
		if args[0] == "-noskip" {
			s.noskip, args = true, args[1:]
		} else if args[0] == "-totals" && len(args) > 1 {
			totals, args = args[1], args[2:]
		} else {
			break
		}
	}
	ok, err := s.run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		ok = false
	}
	if totals != "" {
		if err := s.appendTotals(totals, ok); err != nil {
			fmt.Fprintln(os.Stderr, "gotest:", err)
			ok = false
		}
	}
	if !ok {
		os.Exit(1)
	}
}

// run starts go test and reports whether all is well.
func (s *summary) run(args []string) (bool, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if err := s.read(pipe); err != nil {
		return false, err
	}
	if err := cmd.Wait(); err != nil {
		s.total.failed = max(1, s.total.failed)
	}
	return s.finish(), nil
}

// read takes the events as they come.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprint(s.out, string(line)) // not an event: go's own words
			} else {
				s.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) take(e event) {
	p := s.packages[e.Package]
	if p == nil && e.Package != "" {
		p = new(counts)
		s.packages[e.Package] = p
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.output[key] = append(s.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(e, *p)
		} else {
			s.endTest(e, p)
		}
		delete(s.output, key)
	}
}

func (s *summary) endTest(e event, p *counts) {
	switch e.Action {
	case "pass":
		p.passed++
	case "skip":
		p.skipped++
		reason := ""
		for _, line := range s.output[e.Package+" "+e.Test] {
			if !strings.HasPrefix(strings.TrimSpace(line), "---") && !strings.HasPrefix(line, "===") {
				reason = strings.TrimSpace(line)
			}
		}
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason))
	case "fail":
		p.failed++
		fmt.Fprintf(s.out, "FAIL %s %s\n", e.Package, e.Test)
		s.dump(e.Package + " " + e.Test)
	}
}

func (s *summary) endPackage(e event, p counts) {
	s.total.passed += p.passed
	s.total.failed += p.failed
	s.total.skipped += p.skipped
	if e.Action == "fail" {
		if p.failed == 0 { // it did not build, or died
			s.total.failed++
			s.dump(e.Package + " ")
			// a test that still ran when the program died has said why
			for key := range s.output {
				if strings.HasPrefix(key, e.Package+" Test") || strings.HasPrefix(key, e.Package+" Fuzz") {
					s.dump(key)
				}
			}
		}
		fmt.Fprintf(s.out, "FAIL %-32s %5d passed, %d failed, %d skipped (%.1f s)\n", e.Package, p.passed, p.failed, p.skipped, e.Elapsed)
	} else if p != (counts{}) {
		fmt.Fprintf(s.out, "ok   %-32s %5d passed", e.Package, p.passed)
		if p.skipped > 0 {
			fmt.Fprintf(s.out, ", %d skipped", p.skipped)
		}
		fmt.Fprintf(s.out, " (%.1f s)\n", e.Elapsed)
	}
}

func (s *summary) dump(key string) {
	for _, line := range s.output[key] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(s.out, "    ", line)
		}
	}
	delete(s.output, key)
}

// finish prints the skips and reports whether all is well.
func (s *summary) finish() bool {
	slices.Sort(s.skips)
	for _, name := range s.skips {
		fmt.Fprintln(s.out, "skipped:", name)
	}
	fmt.Fprintf(s.out, "tests: %d passed, %d failed, %d skipped\n", s.total.passed, s.total.failed, s.total.skipped)
	if s.total.passed == 0 && s.total.failed == 0 {
		fmt.Fprintln(s.out, "no test ran: that is a failure")
	}
	return s.total.failed == 0 && s.total.passed > 0 && !(s.noskip && s.total.skipped > 0)
}

func (s *summary) appendTotals(path string, ok bool) error {
	failed := s.total.failed
	if s.noskip {
		failed += s.total.skipped
	}
	if !ok {
		failed = max(1, failed)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, s.total.passed, failed); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
