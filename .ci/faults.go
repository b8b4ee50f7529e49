package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// fault is a mistake planted in a copy of the kernels, which the tests of their
// package must catch.
type fault struct {
	pkg               string // cuda or metal
	name, file, tests string
	modules           []string // of cuda; metal's kernels are compiled by its tests
	was, is           string   // the text it edits, which must be there once
}

// parseFaults reads a package's faults.txt: a name at the start of a line, then indented
// "file", for cuda "modules", and "tests" (a regular expression of names), and the lines
// to take away ("-") and to put there ("+"), as they stand after the sign.
func parseFaults(pkg, text string) ([]fault, error) {
	var faults []fault
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		if line[0] != '\t' {
			faults = append(faults, fault{pkg: pkg, name: line})
			continue
		}
		if len(faults) == 0 {
			return nil, fmt.Errorf("faults.txt: %q before the first name", line)
		}
		f := &faults[len(faults)-1]
		line = line[1:]
		key, rest, _ := strings.Cut(line, " ")
		switch {
		case line[0] == '-':
			f.was += line[1:] + "\n"
		case line[0] == '+':
			f.is += line[1:] + "\n"
		case key == "file":
			f.file = rest
		case key == "modules":
			f.modules = strings.Fields(rest)
		case key == "tests":
			f.tests = rest
		default:
			return nil, fmt.Errorf("faults.txt: %s: %q", f.name, line)
		}
	}
	for _, f := range faults {
		if f.file == "" || f.tests == "" || f.was == "" || (len(f.modules) == 0) != (pkg == "metal") {
			return nil, fmt.Errorf("faults.txt: %s: file, tests, a line with \"-\" and for cuda modules are needed", f.name)
		}
	}
	return faults, nil
}

// apply edits the copy of the kernels in dir. White space at the start of lines
// does not count.
func (f *fault) apply(dir string) error {
	path := filepath.Join(dir, f.file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	all := strings.Split(string(text), "\n")
	was := strings.Split(strings.TrimSuffix(f.was, "\n"), "\n")
	found := -1
	for i := range len(all) - len(was) + 1 {
		if slices.EqualFunc(all[i:i+len(was)], was, func(a, b string) bool { return strings.TrimSpace(a) == strings.TrimSpace(b) }) {
			if found >= 0 {
				return fmt.Errorf("%s: %s has the text twice: %q", f.name, f.file, f.was)
			}
			found = i
		}
	}
	if found < 0 {
		return fmt.Errorf("%s: %s has no such text any more: %q", f.name, f.file, f.was)
	}
	var is []string
	if f.is != "" {
		is = strings.Split(strings.TrimSuffix(f.is, "\n"), "\n")
	}
	return os.WriteFile(path, []byte(strings.Join(slices.Replace(all, found, found+len(was), is...), "\n")), 0o666)
}

// faultTiers are those whose kernels each test runs that the faults name.
var faultTiers = []string{"sm_80", "sm_90a"}

// tester builds and runs a package's tests with other kernels.
type tester struct {
	root, scratch, compiler string
	modules                 []module

	baseline map[string]error // of the tests without a fault
	lock     sync.Mutex
}

// plant builds the tests with the fault in them and wants them to fail.
func (t *tester) plant(number int, f fault) (caught string, err error) {
	if err := t.clean(f.pkg, f.tests); err != nil {
		return "", fmt.Errorf("%s: without the fault: %w", f.name, err)
	}
	dir := filepath.Join(t.scratch, fmt.Sprint(number))
	from := filepath.Join(f.pkg, "kernels")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return "", err
	}
	if err := f.apply(dir); err != nil {
		return "", err
	}
	replace := map[string]string{filepath.Join(t.root, from, f.file): filepath.Join(dir, f.file)}
	if f.pkg == "cuda" {
		if replace, err = t.compile(f, dir); err != nil {
			return "", err
		}
	}
	out, err := t.test(dir, f.pkg, f.tests, replace)
	if err == nil {
		return "", fmt.Errorf("%s: not caught by %s", f.name, f.tests)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w", f.name, err)
	}
	return reason(out), nil
}

// compile makes PTX of the kernels in dir, and says which files it takes the place of.
func (t *tester) compile(f fault, dir string) (replace map[string]string, err error) {
	list, err := units(t.modules, f.modules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	replace, same := map[string]string{}, true
	for _, u := range list {
		if !slices.Contains(faultTiers, u.arch) {
			continue
		}
		if u.compile(t.compiler, dir); u.err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, u.err)
		}
		same = same && !u.changed()
		packed, err := u.pack()
		if err != nil {
			return nil, err
		}
		file := filepath.Join(dir, filepath.Base(u.path()))
		if err := os.WriteFile(file, packed, 0o666); err != nil {
			return nil, err
		}
		replace[filepath.Join(t.root, u.path())] = file
	}
	if same {
		return nil, fmt.Errorf("%s: the compiler makes the same of it", f.name)
	}
	return replace, nil
}

// clean runs the tests without a fault, once for each set of them.
func (t *tester) clean(pkg, tests string) error {
	t.lock.Lock()
	defer t.lock.Unlock()
	if err, ok := t.baseline[pkg+tests]; ok {
		return err
	}
	dir := filepath.Join(t.scratch, "clean")
	err := os.MkdirAll(dir, 0o777)
	if err == nil {
		var out []byte
		if out, err = t.test(dir, pkg, tests, nil); err != nil {
			err = fmt.Errorf("%s: %w\n%s", tests, err, out)
		} else if bytes.Contains(out, []byte("no tests to run")) {
			err = fmt.Errorf("there are no tests %s", tests)
		}
	}
	t.baseline[pkg+tests] = err
	return err
}

// test builds and runs; an *exec.ExitError is the tests' own failure.
func (t *tester) test(dir, pkg, tests string, replace map[string]string) ([]byte, error) {
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o666); err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, pkg+".test")
	build := exec.Command("go", "test", "-c", "-overlay", file, "-o", binary, "./"+pkg)
	if pkg == "metal" {
		build.Args, build.Env = slices.Insert(build.Args, 3, "-tags", "metalsim"), append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go test -c: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "-test.run", tests, "-test.timeout", "10m", "-test.failfast")
	cmd.Dir = filepath.Join(t.root, pkg)
	return cmd.CombinedOutput()
}

// reason is the line of a failed test's output that says most.
func reason(out []byte) string {
	best := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "instruction") || strings.HasPrefix(line, "panic:"):
			return line
		case strings.Contains(line, "_test.go:") && best == "":
			best = line
		}
	}
	return best
}

// plantFaults plants each of the faults.txt of both packages, or those whose package and name
// contain one of the words.
func plantFaults(modules []module, words []string) error {
	var faults []fault
	for _, pkg := range []string{"cuda", "metal"} {
		text, err := os.ReadFile(filepath.Join(pkg, "kernels", "faults.txt"))
		if err != nil {
			return err
		}
		some, err := parseFaults(pkg, string(text))
		if err != nil {
			return err
		}
		faults = append(faults, some...)
	}
	if len(words) > 0 {
		faults = slices.DeleteFunc(faults, func(f fault) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(f.pkg+" "+f.name, w) })
		})
	}
	if len(faults) == 0 {
		return errors.New("no fault to plant")
	}
	compiler, _, err := findCompiler()
	if err != nil {
		return err
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "faults")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	t := &tester{root: root, scratch: scratch, compiler: compiler, modules: modules, baseline: map[string]error{}}
	numbers, errs := make([]int, len(faults)), make([]error, len(faults))
	for i := range numbers {
		numbers[i] = i
	}
	each(numbers, func(i int) {
		began := time.Now()
		caught, err := t.plant(i, faults[i])
		if errs[i] = err; err == nil {
			fmt.Printf("caught: %-52s %5.1f s  %.160s\n", faults[i].name, time.Since(began).Seconds(), caught)
		} else {
			fmt.Printf("NOT CAUGHT: %v\n", err)
		}
		os.RemoveAll(filepath.Join(scratch, fmt.Sprint(i)))
	})
	missed := len(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
	fmt.Printf("planted faults: %d caught, %d not\n", len(faults)-missed, missed)
	if missed > 0 {
		return errors.New("a planted fault went unnoticed")
	}
	return nil
}
