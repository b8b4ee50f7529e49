package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// target is a card that a tier's PTX is assembled for.
type target struct{ arch, tier string }

// targets: each tier's own, and the newest cards, which run the last tier that runs forward.
func targets() []target {
	return []target{{"sm_75", "sm_75"}, {"sm_80", "sm_80"}, {"sm_90", "sm_90"}, {"sm_90a", "sm_90a"}, {"sm_120", "sm_90"}}
}

// usage is what a kernel takes of a multiprocessor.
type usage struct{ registers, shared, spills int }

// row is a line of the report: a kernel on every target.
type row struct {
	module, kernel string
	usage          map[string]usage // by target
}

func cacheFolder() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, _ := os.UserHomeDir()
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "drover")
}

// findAssembler names ptxas, as ./build.sh deps left it or the system has it.
func findAssembler() (path, version string, err error) {
	path = filepath.Join(cacheFolder(), "ptxas")
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath("ptxas"); err != nil {
			return "", "", errors.New("ptxas is missing: ./build.sh deps")
		}
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", path, err)
	}
	v := regexp.MustCompile(`, (V[0-9.]+)`).FindSubmatch(out)
	if v == nil {
		return "", "", fmt.Errorf("%s --version says nothing known: %s", path, out)
	}
	return path, "ptxas " + string(v[1]), nil
}

// assemble asks ptxas about a unit on every target of its tier.
func assemble(ptxas string, u *unit, scratch string) (map[string]map[string]usage, error) {
	file := filepath.Join(scratch, u.name+"."+u.arch+".ptx")
	if err := os.WriteFile(file, u.text, 0o666); err != nil {
		return nil, err
	}
	all := map[string]map[string]usage{}
	for _, t := range targets() {
		if t.tier != u.arch {
			continue
		}
		out, err := exec.Command(ptxas, "-v", "-arch="+t.arch, "-o", os.DevNull, file).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s %s: ptxas: %w\n%s", u.name, t.arch, err, bytes.ReplaceAll(out, []byte(scratch+"/"), nil))
		}
		if why := serialized(out); why != "" {
			return nil, fmt.Errorf("%s %s: ptxas: %s", u.name, t.arch, why)
		}
		if u.arch == "sm_90a" {
			for _, with := range []string{ptxas, filepath.Join(cacheFolder(), "ptxas-13.0")} {
				if err := checkHazards(with, file); err != nil {
					return nil, fmt.Errorf("%s %s: %s: %w", u.name, t.arch, filepath.Base(with), err)
				}
			}
		}
		all[t.arch] = parseUsage(out)
	}
	return all, nil
}

// serialized is the line of ptxas where products of warpgroups have to wait for
// each other.
func serialized(out []byte) string {
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.Contains(line, "wgmma.mma_async instructions are serialized") {
			return line
		}
	}
	return ""
}

// parseUsage reads what ptxas -v says of each kernel.
func parseUsage(out []byte) map[string]usage {
	found := map[string]usage{}
	kernel := ""
	number := func(expression, line string) int {
		m := regexp.MustCompile(expression).FindStringSubmatch(line)
		if m == nil {
			return 0
		}
		n, _ := strconv.Atoi(m[1])
		return n
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if m := regexp.MustCompile(`Compiling entry function '([^']+)'`).FindStringSubmatch(line); m != nil {
			kernel = m[1]
		}
		u := found[kernel]
		if strings.Contains(line, "bytes stack frame") {
			u.spills += number(`(\d+) bytes spill stores`, line) + number(`(\d+) bytes spill loads`, line)
			found[kernel] = u
		}
		if strings.Contains(line, "Used ") {
			u.registers, u.shared = number(`Used (\d+) registers`, line), number(`(\d+) bytes smem`, line)
			found[kernel] = u
		}
	}
	return found
}

// assembleAll makes the units' rows; spilled names what spills and may not.
func assembleAll(ptxas string, list []*unit, rules rules) (rows []row, spilled, err error) {
	scratch, err := os.MkdirTemp("", "ptxas")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(scratch)
	began := time.Now()
	found := make([]map[string]map[string]usage, len(list))
	errs := make([]error, len(list))
	index := make([]int, len(list))
	for i := range index {
		index[i] = i
	}
	each(index, func(i int) { found[i], errs[i] = assemble(ptxas, list[i], scratch) })
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	fmt.Printf("assembled %d files for %d targets in %.1f s\n", len(list), len(targets()), time.Since(began).Seconds())

	for i, u := range list {
		for _, t := range targets() {
			arch := t.arch
			for _, name := range slices.Sorted(maps.Keys(found[i][arch])) {
				use := found[i][arch][name]
				at := slices.IndexFunc(rows, func(r row) bool { return r.module == u.name && r.kernel == name })
				if at < 0 {
					at = len(rows)
					rows = append(rows, row{u.name, name, map[string]usage{}})
				}
				rows[at].usage[arch] = use
				if use.spills > 0 && !slices.ContainsFunc(rules.spill, func(s [2]string) bool { return match(s[0], name) && s[1] == arch }) {
					errs = append(errs, fmt.Errorf("%s %s: %s spills %d bytes; if that is right, say why in rules.txt", u.name, arch, name, use.spills))
				}
			}
		}
	}
	return rows, errors.Join(errs...), nil
}

// --- the report

// format is the report: head, then a line a kernel, in the order of the table.
func format(modules []module, rows []row, compiler, assembler string) string {
	order := map[string]int{}
	for i, m := range modules {
		order[m.name] = i
	}
	slices.SortFunc(rows, func(a, b row) int {
		if c := order[a.module] - order[b.module]; c != 0 {
			return c
		}
		return strings.Compare(a.kernel, b.kernel)
	})
	var out strings.Builder
	fmt.Fprintf(&out, "compiler: %s\nassembler: %s\n", compiler, assembler)
	out.WriteString("Registers a thread, bytes of static shared memory a block, bytes spilled (stores and loads), on each target.\n\n")
	fmt.Fprintf(&out, "%-28s%-40s", "", "")
	for _, group := range []string{"registers", "shared", "spilled"} {
		fmt.Fprintf(&out, " |%*s", 6*len(targets())-1, group)
	}
	fmt.Fprintf(&out, "\n%-28s%-40s", "module", "kernel")
	for range 3 {
		out.WriteString(" |")
		for i, t := range targets() {
			fmt.Fprintf(&out, "%*s", 6-b(i == 0), strings.TrimPrefix(t.arch, "sm_"))
		}
	}
	out.WriteString("\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "%-28s%-40s", r.module, r.kernel)
		for _, value := range []func(usage) int{func(u usage) int { return u.registers }, func(u usage) int { return u.shared }, func(u usage) int { return u.spills }} {
			out.WriteString(" |")
			for i, t := range targets() {
				cell := "-"
				if u, ok := r.usage[t.arch]; ok {
					cell = strconv.Itoa(value(u))
				}
				fmt.Fprintf(&out, "%*s", 6-b(i == 0), cell)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func b(x bool) int {
	if x {
		return 1
	}
	return 0
}

// parseReport is the inverse of format.
func parseReport(text string) (compiler, assembler string, rows []row) {
	for line := range strings.SplitSeq(text, "\n") {
		if v, ok := strings.CutPrefix(line, "compiler: "); ok {
			compiler = v
		}
		if v, ok := strings.CutPrefix(line, "assembler: "); ok {
			assembler = v
		}
		f := strings.Fields(strings.ReplaceAll(line, "|", " "))
		n := len(targets())
		if len(f) != 2+3*n || f[0] == "module" {
			continue
		}
		r := row{f[0], f[1], map[string]usage{}}
		for i, t := range targets() {
			registers, err := strconv.Atoi(f[2+i])
			if err != nil {
				continue
			}
			shared, _ := strconv.Atoi(f[2+n+i])
			spills, _ := strconv.Atoi(f[2+2*n+i])
			r.usage[t.arch] = usage{registers, shared, spills}
		}
		rows = append(rows, r)
	}
	return compiler, assembler, rows
}

// writeReport assembles the modules that changed or are not in the report, and
// puts their rows in the place of the old.
func writeReport(modules []module, list, changed []*unit, compiler string, rules rules) (spilled, err error) {
	ptxas, version, err := findAssembler()
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(reportFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	_, assembler, kept := parseReport(string(old))
	reported := func(name string) bool {
		return assembler == version && slices.ContainsFunc(kept, func(r row) bool { return r.module == name })
	}
	wanted := func(name string) bool {
		return !reported(name) || slices.ContainsFunc(changed, func(u *unit) bool { return u.name == name })
	}
	list = slices.DeleteFunc(slices.Clone(list), func(u *unit) bool { return !wanted(u.name) })
	rows, spilled, err := assembleAll(ptxas, list, rules)
	if err != nil {
		return nil, err
	}
	for _, r := range kept {
		made := slices.ContainsFunc(list, func(u *unit) bool { return u.name == r.module })
		known := slices.ContainsFunc(modules, func(m module) bool { return m.name == r.module })
		if known && !made {
			rows = append(rows, r)
		}
	}
	return spilled, os.WriteFile(reportFile, []byte(format(modules, rows, compiler, version)), 0o666)
}

func assembleCommitted(modules []module, rules rules) error {
	list, err := units(modules, nil)
	if err != nil {
		return err
	}
	for _, u := range list {
		if u.text, err = u.read(); err != nil {
			return err
		}
	}
	ptxas, version, err := findAssembler()
	if err != nil {
		return err
	}
	rows, spilled, err := assembleAll(ptxas, list, rules)
	if err = errors.Join(err, spilled); err != nil {
		return err
	}
	committed, err := os.ReadFile(reportFile)
	if err != nil {
		return err
	}
	compiler, assembler, _ := parseReport(string(committed))
	if assembler != version {
		fmt.Printf("not compared: the report is by %q, here is %q\n", assembler, version)
		return nil
	}
	if now := format(modules, rows, compiler, version); now != string(committed) {
		return errors.Join(fmt.Errorf("%s is not what ptxas says: ./build.sh kernels", reportFile), differ(string(committed), now))
	}
	return nil
}

// differ names the first line that is not the same.
func differ(want, got string) error {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Errorf("line %d:\n- %s\n+ %s", i+1, a[i], b[i])
		}
	}
	return fmt.Errorf("%d lines, now %d", len(a), len(b))
}
