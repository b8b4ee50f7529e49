// kernels compiles cuda/kernels into PTX and holds it to its rules. In the
// repository's root:
//
//	kernels build [MODULE...]     compiles, writes cuda/kernels/ptx and the report; all modules or those named
//	kernels check                 compiles again and compares with what is committed
//	kernels assemble              assembles what is committed and compares with the report
//	kernels compile MODULE TIER   one module's PTX, on standard output
//	kernels faults [WORD...]      plants the mistakes of cuda's and metal's faults.txt; the tests must catch each
//
// cuda/kernels/modules.txt says what is compiled, rules.txt what must hold.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	folder       = "cuda/kernels"
	compilerFile = folder + "/ptx/compiler.txt"
	reportFile   = folder + "/report.txt"
)

// module is a line of modules.txt: a source, the definitions that it is compiled
// with, and the tiers, if not for all that run forward.
type module struct {
	name, source   string
	defines, tiers []string
}

// tier is a target with the PTX version that says all it has.
type tier struct{ arch, feature string }

func tiers() []tier {
	return []tier{{"sm_75", "+ptx74"}, {"sm_80", "+ptx74"}, {"sm_90", "+ptx78"}, {"sm_90a", "+ptx80"}}
}

// in is whether the module is compiled for a tier. Only what names it is for
// sm_90a, which nothing newer runs.
func (m *module) in(t tier) bool {
	if len(m.tiers) == 0 {
		return !strings.HasSuffix(t.arch, "a")
	}
	return slices.Contains(m.tiers, t.arch)
}

// unit is one file of PTX.
type unit struct {
	module
	tier
	text   []byte
	took   time.Duration
	err    error // it does not compile
	faults error // it breaks a rule
}

func (u *unit) path() string {
	return filepath.Join(folder, "ptx", u.name+"."+u.arch+".ptx.gz")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("build [MODULE...], check, assemble, compile MODULE TIER, or faults [WORD...]")
	}
	modules, err := readModules()
	if err != nil {
		return err
	}
	rules, err := readRules(folder + "/rules.txt")
	if err != nil {
		return err
	}
	switch verb := args[0]; {
	case verb == "build":
		return build(modules, rules, args[1:])
	case verb == "check" && len(args) == 1:
		return check(modules, rules)
	case verb == "assemble" && len(args) == 1:
		return assembleCommitted(modules, rules)
	case verb == "compile" && len(args) == 3:
		return compileOne(modules, args[1], args[2])
	case verb == "faults":
		return plantFaults(modules, args[1:])
	}
	return fmt.Errorf("%q is not a command", strings.Join(args, " "))
}

// --- the table

// lines are those of a table without comments and empty ones.
func lines(text string) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func readModules() ([]module, error) {
	text, err := os.ReadFile(folder + "/modules.txt")
	if err != nil {
		return nil, err
	}
	return parseModules(string(text))
}

func parseModules(text string) ([]module, error) {
	var modules []module
	for _, line := range lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("modules.txt: %q: want NAME SOURCE [DEFINITION...] [TIER...]", line)
		}
		m := module{name: f[0], source: f[1]}
		for _, word := range f[2:] {
			switch {
			case strings.HasPrefix(word, "-"):
				m.defines = append(m.defines, word)
			case slices.ContainsFunc(tiers(), func(t tier) bool { return t.arch == word }):
				m.tiers = append(m.tiers, word)
			default:
				return nil, fmt.Errorf("modules.txt: %q: %s is no tier", line, word)
			}
		}
		modules = append(modules, m)
	}
	return modules, nil
}

// units of the modules, or of those named; a name's end may be "*".
func units(modules []module, names []string) ([]*unit, error) {
	var out []*unit
	for _, m := range modules {
		if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return match(n, m.name) }) {
			continue
		}
		for _, t := range tiers() {
			if m.in(t) {
				out = append(out, &unit{module: m, tier: t})
			}
		}
	}
	if len(out) == 0 && len(modules) > 0 {
		return nil, fmt.Errorf("no module %s; there are: %s", strings.Join(names, " "), moduleNames(modules))
	}
	return out, nil
}

func moduleNames(modules []module) string {
	var names []string
	for _, m := range modules {
		names = append(names, m.name)
	}
	return strings.Join(names, " ")
}

// each calls f with every one of list, as many at once as there are cores.
func each[T any](list []T, f func(T)) {
	var wait sync.WaitGroup
	free := make(chan struct{}, runtime.NumCPU())
	for _, x := range list {
		free <- struct{}{}
		wait.Go(func() {
			f(x)
			<-free
		})
	}
	wait.Wait()
}

// --- the compiler

// findCompiler names the pinned clang++ and its package's version.
func findCompiler() (path, version string, err error) {
	for _, name := range []string{"clang++-19", "clang++", "/opt/homebrew/opt/llvm@19/bin/clang++"} {
		if path, err = exec.LookPath(name); err != nil {
			continue
		}
		out, err := exec.Command(path, "--version").Output()
		first, _, _ := strings.Cut(string(out), "\n")
		if err == nil && strings.Contains(first, "clang version 19.") {
			return path, strings.TrimSpace(first), nil
		}
	}
	return "", "", errors.New("clang 19 is missing: ./build.sh deps")
}

// compile makes a unit's text from the sources in dir; their paths and comments
// are not in it.
func (u *unit) compile(compiler, dir string) {
	args := []string{"-x", "cuda", "--cuda-device-only", "--cuda-gpu-arch=" + u.arch, "--cuda-feature=" + u.feature,
		"-nocudainc", "-nocudalib", "-nostdinc++", "-std=c++17", "-O3", "-Wall", "-Werror", "-cuid=0", "-S", "-o", "-", "-I."}
	args = append(args, u.defines...)
	cmd := exec.Command(compiler, append(args, u.source)...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	began := time.Now()
	out, err := cmd.Output()
	u.took = time.Since(began)
	if err != nil {
		u.err = fmt.Errorf("%s %s: %w\n%s", u.name, u.arch, err, errs.Bytes())
		return
	}
	u.text = strip(out)
}

// strip removes comments, which differ between compilers of equal code, and
// empty lines.
func strip(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		if i := bytes.Index(line, []byte("//")); i >= 0 {
			line = line[:i]
		}
		if line = bytes.TrimRight(line, " \t\r\n"); len(line) > 0 {
			out = append(append(out, line...), '\n')
		}
	}
	return out
}

func compileOne(modules []module, name, arch string) error {
	list, err := units(modules, []string{name})
	if err != nil {
		return err
	}
	compiler, _, err := findCompiler()
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.arch == arch {
			u.compile(compiler, folder)
			if u.err == nil {
				_, u.err = os.Stdout.Write(u.text)
			}
			return u.err
		}
	}
	return fmt.Errorf("no tier %q", arch)
}

// --- the files

func (u *unit) read() ([]byte, error) {
	packed, err := os.Open(u.path())
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// changed is whether the unit's file holds another text, however packed.
func (u *unit) changed() bool {
	old, err := u.read()
	return err != nil || !bytes.Equal(old, u.text)
}

func (u *unit) pack() ([]byte, error) {
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(u.text); err != nil {
		return nil, err
	}
	err = z.Close()
	return packed.Bytes(), err
}

func (u *unit) write() error {
	packed, err := u.pack()
	if err != nil {
		return err
	}
	return os.WriteFile(u.path(), packed, 0o666)
}

// strays are files of PTX that no module makes.
func strays(modules []module) ([]string, error) {
	list, err := units(modules, nil)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(folder + "/ptx/*.ptx.gz")
	var out []string
	for _, file := range files {
		if !slices.ContainsFunc(list, func(u *unit) bool { return u.path() == filepath.Clean(file) }) {
			out = append(out, file)
		}
	}
	return out, err
}

// compileAll compiles and applies the rules; it prints what took how long.
// faults are what is against the rules.
func compileAll(compiler string, list []*unit, rules rules) (faults, err error) {
	began := time.Now()
	each(list, func(u *unit) {
		if u.compile(compiler, folder); u.err == nil {
			u.faults = rules.check(u)
		}
	})
	var errs, broken []error
	seconds := map[string]time.Duration{}
	for _, u := range list {
		errs, broken = append(errs, u.err), append(broken, u.faults)
		seconds[u.name] += u.took
	}
	slowest := slices.SortedFunc(maps.Keys(seconds), func(a, b string) int { return int(seconds[b] - seconds[a]) })
	fmt.Printf("compiled %d files in %.1f s", len(list), time.Since(began).Seconds())
	for i, name := range slowest[:min(3, len(slowest))] {
		fmt.Printf("%s %s %.1f s", []string{"; slowest:", ",", ","}[i], name, seconds[name].Seconds())
	}
	fmt.Println()
	return errors.Join(broken...), errors.Join(errs...)
}

// build writes what compiles and assembles, also where it breaks a rule, which
// is an error all the same.
func build(modules []module, rules rules, names []string) error {
	list, err := units(modules, names)
	if err != nil {
		return err
	}
	compiler, version, err := findCompiler()
	if err != nil {
		return err
	}
	faults, err := compileAll(compiler, list, rules)
	if err != nil {
		return err
	}
	var changed []*unit
	for _, u := range list {
		if u.changed() {
			changed = append(changed, u)
		}
	}
	spills, err := writeReport(modules, list, changed, version, rules)
	if err != nil {
		return err
	}
	if err := os.WriteFile(compilerFile, []byte(version+"\n"), 0o666); err != nil {
		return err
	}
	for _, u := range changed {
		if err := u.write(); err != nil {
			return err
		}
	}
	stray, err := strays(modules)
	for _, file := range stray {
		err = errors.Join(err, os.Remove(file))
	}
	return errors.Join(faults, spills, err)
}

func check(modules []module, rules rules) error {
	list, err := units(modules, nil)
	if err != nil {
		return err
	}
	compiler, version, err := findCompiler()
	if err != nil {
		return err
	}
	faults, err := compileAll(compiler, list, rules)
	if err != nil {
		return err
	}
	committed, err := os.ReadFile(compilerFile)
	if err != nil {
		return err
	}
	if was := strings.TrimSpace(string(committed)); was != version {
		fmt.Printf("not compared: the committed PTX is by %q, here is %q\n", was, version)
		return faults
	}
	errs := []error{faults}
	for _, u := range list {
		if u.changed() {
			errs = append(errs, fmt.Errorf("%s is not what its source makes: ./build.sh kernels", u.path()))
		}
	}
	stray, err := strays(modules)
	errs = append(errs, err)
	for _, file := range stray {
		errs = append(errs, fmt.Errorf("%s belongs to no module", file))
	}
	return errors.Join(errs...)
}

// match is whether a pattern with at most one "*" is for a name.
func match(pattern, name string) bool {
	expression := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
	return regexp.MustCompile(expression).MatchString(name)
}
