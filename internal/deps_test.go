// Package internal holds the rules of the whole tree: who may import whom.
package internal

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	sys    = "golang.org/x/sys"
	term   = "golang.org/x/term"
	perf   = "golang.org/x/perf"
	cli    = "github.com/urfave/cli/v2"
	nvml   = "github.com/NVIDIA/go-nvml"
	purego = "github.com/ebitengine/purego"
	avo    = "github.com/mmcloughlin/avo"
)

// thirdParty is every module of others that drover may use. A new one wants a
// reason in the commit that adds it here.
func thirdParty() []string { return []string{sys, term, perf, cli, nvml, purego, avo} }

// rule says what a folder's files may import beside the standard library:
// folders of this module, and modules of others. tests: also by _test.go files.
type rule struct {
	dir                string // "x/..." stands for x and all below
	imports, thirdOnes []string
	tests              []string
}

// rules is the import table. Changing it is a design decision, never a fix.
// Dependencies point one way: commands, engine, contract, formats. Only
// internal/device knows the backends, and no backend knows another.
func rules() []rule {
	conformance := []string{"backend/backendtest", "internal/ref"}
	return []rule{
		{dir: "backend", imports: []string{"internal/quant"}},
		{dir: "backend/backendtest", imports: []string{"backend", "internal/quant", "internal/ref"}},

		{dir: "cpu", imports: []string{"backend", "internal/quant"}, thirdOnes: []string{sys}, tests: conformance},
		{dir: "cpu/_asm/...", thirdOnes: []string{avo}},
		{dir: "cuda", imports: []string{"backend", "internal/quant"}, thirdOnes: []string{nvml}, tests: append(conformance, "internal/sim")},
		{dir: "metal", imports: []string{"backend", "internal/quant"}, thirdOnes: []string{purego}, tests: append(conformance, "internal/sim")},
		{dir: "internal/device", imports: []string{"backend", "cpu", "cuda", "internal/quant", "metal"}, tests: []string{"internal/sim"}},

		{dir: "internal/quant"},
		{dir: "internal/gguf", thirdOnes: []string{sys}},
		{dir: "internal/safetensors", thirdOnes: []string{sys}},
		{dir: "internal/token", tests: []string{"internal/gguf"}},
		{dir: "internal/sample"},
		{dir: "internal/chat"},
		{dir: "internal/grammar"},
		{dir: "internal/demo"},
		{dir: "internal/ref", imports: []string{"backend", "internal/quant"}},
		{dir: "internal/model", imports: []string{"backend", "internal/gguf", "internal/safetensors", "internal/quant", "internal/token"},
			tests: []string{"internal/ref", "internal/demo"}},

		{dir: "internal/engine", imports: []string{"backend", "internal/quant", "internal/sample"}, tests: append(conformance, "internal/model", "internal/token", "internal/demo")},
		{dir: "internal/rates", imports: []string{"backend", "internal/quant"}},
		{dir: "internal/sched", imports: []string{"backend", "internal/quant", "internal/rates"}, tests: []string{"internal/model"}},
		{dir: "internal/doctor", imports: []string{"backend", "internal/model", "internal/quant", "internal/ref"}, tests: conformance},
		{dir: "internal/verify", imports: []string{"backend", "internal/quant", "internal/ref"}, tests: []string{"internal/model"}},
		{dir: "internal/bench", imports: []string{"backend", "internal/engine", "internal/quant"}, tests: []string{"internal/ref", "internal/model"}},
		{dir: "internal/store", imports: []string{"internal/bench"}},
		{dir: "internal/compare", imports: []string{"internal/bench"}, thirdOnes: []string{perf}},
		{dir: "internal/report", imports: []string{"internal/bench", "internal/compare"}},
		{dir: "internal/server", imports: []string{"backend", "internal/chat", "internal/engine", "internal/grammar", "internal/model", "internal/sample", "internal/token"},
			tests: []string{"internal/ref", "internal/demo"}},

		{dir: "cmd/drover", thirdOnes: []string{cli, sys, term}, imports: []string{
			"backend", "internal/bench", "internal/chat", "internal/compare", "internal/demo", "internal/device", "internal/doctor", "internal/engine", "internal/gguf", "internal/grammar",
			"internal/model", "internal/quant", "internal/rates", "internal/ref", "internal/report", "internal/sample", "internal/sched", "internal/server", "internal/store", "internal/token", "internal/verify"}, tests: []string{"internal/sim"}},
		{dir: "internal/sim", tests: []string{"internal/sim"}},
		{dir: "internal/sim/cuda", tests: []string{"internal/sim"}},
		{dir: "internal/sim/nvml", tests: []string{"internal/sim"}},
		{dir: "internal"},
		{dir: ".ci"},
	}
}

// find is the rule of a folder.
func find(dir string) (rule, bool) {
	for _, r := range rules() {
		below, all := strings.CutSuffix(r.dir, "/...")
		if dir == r.dir || all && (dir == below || strings.HasPrefix(dir, below+"/")) {
			return r, true
		}
	}
	return rule{}, false
}

// within reports whether an import path lies in a module.
func within(imported, module string) bool {
	return imported == module || strings.HasPrefix(imported, module+"/")
}

// refused says why a file of dir may not have an import, or "".
func refused(dir, imported string, test bool) string {
	r, ok := find(dir)
	if !ok {
		return "the folder is not in the import table"
	}
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case imported == "C":
		if dir != "cuda" {
			return "cgo is for cuda alone"
		}
	case first == "drover":
		folder := strings.TrimPrefix(imported, "drover/")
		if !slices.Contains(r.imports, folder) && !(test && (folder == dir || slices.Contains(r.tests, folder))) {
			return "the import table does not allow it"
		}
	case strings.Contains(first, "."):
		if !slices.ContainsFunc(thirdParty(), func(m string) bool { return within(imported, m) }) {
			return "not one of the modules that drover uses"
		}
		if !slices.ContainsFunc(r.thirdOnes, func(m string) bool { return within(imported, m) }) {
			return "the import table does not allow this module here"
		}
	}
	return ""
}

// tree calls visit with every file of the working tree and its content, but for
// git's own and what builds leave behind.
func tree(t *testing.T, visit func(name string, content []byte)) {
	t.Helper()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains([]string{".git", "bin", "gpu-bundle"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || strings.HasSuffix(name, ".test") || strings.HasSuffix(name, ".prof") {
			return nil
		}
		content, err := fs.ReadFile(root, name)
		if err == nil {
			visit(name, content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every Go file, whatever its build tags, imports what the table allows, and
// has neither init nor imports for their effects.
func TestImports(t *testing.T) {
	files := 0
	used := map[string]bool{}
	tree(t, func(name string, content []byte) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		files++
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, content, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		dir, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
		for _, i := range f.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := refused(dir, imported, test); why != "" {
				t.Errorf("%s imports %s: %s", set.Position(i.Pos()), imported, why)
			}
			// package embed has no other use than its directive, and avo's programs read as assembly
			special := imported == "embed" || within(imported, avo)
			if i.Name != nil && (i.Name.Name == "." || i.Name.Name == "_") && !special {
				t.Errorf("%s imports %s as %q", set.Position(i.Pos()), imported, i.Name.Name)
			}
			for _, m := range thirdParty() {
				used[m] = used[m] || within(imported, m)
			}
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: make it a function that somebody calls", set.Position(fn.Pos()))
			}
		}
	})
	if files < 20 {
		t.Errorf("%d Go files in the tree: looked in the wrong place", files)
	}
	if t.Failed() {
		return
	}
	modules(t, used)
}

// modules holds every go.mod to the list: what is required is on it, or comes
// with what is, and what is on it and required is used.
func modules(t *testing.T, used map[string]bool) {
	tree(t, func(name string, content []byte) {
		if path.Base(name) != "go.mod" {
			return
		}
		require := regexp.MustCompile(`(?m)^(?:require)?\s+([a-zA-Z0-9.]+\.[a-z]+/\S+) v\S+(.*)$`)
		found := require.FindAllStringSubmatch(string(content), -1)
		if len(found) == 0 {
			t.Errorf("%s: no requirements found", name)
		}
		for _, m := range found {
			listed := slices.Contains(thirdParty(), m[1])
			if indirect := strings.Contains(m[2], "// indirect"); !listed && !indirect {
				t.Errorf("%s requires %s, which is not on the list", name, m[1])
			}
			if name == "go.mod" && listed && !used[m[1]] {
				t.Errorf("%s requires %s, and nothing imports it", name, m[1])
			}
		}
		if regexp.MustCompile(`(?m)^\s*(replace|toolchain)\b`).Match(content) {
			t.Errorf("%s has a replace or toolchain line: it must build the same everywhere", name)
		}
	})
}

// The table itself: what it must refuse, whatever is in the tree today.
func TestTable(t *testing.T) {
	for _, c := range []struct {
		dir, imported string
		test, ok      bool
	}{
		{"backend", "drover/cpu", false, false},
		{"backend", "drover/internal/quant", false, true},
		{"cpu", "drover/cuda", true, false},
		{"cpu", "drover/backend/backendtest", false, false},
		{"cpu", "drover/backend/backendtest", true, true},
		{"cpu", "C", false, false},
		{"internal/engine", "drover/cpu", true, false},
		{"internal/sched", "drover/internal/device", true, false},
		{"internal/bench", "drover/metal", true, false},
		{"internal/doctor", "drover/internal/device", true, false},
		{"internal/verify", "drover/cpu", true, false},
		{"internal/device", "drover/cuda", false, true},
		{"internal/quant", "golang.org/x/sys/unix", false, false},
		{"internal/gguf", "golang.org/x/sys/unix", false, true},
		{"internal/gguf", "golang.org/x/system", false, false},
		{"internal/token", "drover/internal/gguf", false, false},
		{"internal/token", "math/rand/v2", false, true},
		{"cmd/drover", "drover/cpu", true, false},
		{"cmd/drover", "github.com/spf13/cobra", false, false},
		{"internal/helpers", "fmt", false, false},
		{"cuda", "drover/internal/sim", true, true},
		{"cuda", "drover/internal/sim", false, false},
		{"cuda", "C", false, true},
		{"internal/sim", "drover/backend", false, false},
		{"internal/device", "github.com/NVIDIA/go-nvml/pkg/nvml", false, false},
	} {
		if why := refused(c.dir, c.imported, c.test); (why == "") != c.ok {
			t.Errorf("%s imports %s (test: %v): %q, want ok %v", c.dir, c.imported, c.test, why, c.ok)
		}
	}
	for _, r := range rules() {
		for _, m := range r.thirdOnes {
			if !slices.Contains(thirdParty(), m) {
				t.Errorf("%s may import %s, which is not on the list", r.dir, m)
			}
		}
	}
}

// Nothing in the tree knows one machine's folders, or where modules are fetched.
func TestNoMachine(t *testing.T) {
	folders := regexp.MustCompile(`(?:^|[^\w./~-])/(?:home|root|Users|work|mnt|media)/\w`)
	hosts := regexp.MustCompile(`\b(?:proxy\.golang|sum\.golang|goproxy|pypi|pythonhosted|npmjs|crates|repo1?\.maven|registry-1\.docker)\.(?:org|io|com|cn)\b`)
	for _, bad := range []string{"/home/" + "someone", `"/work/` + `x"`, "see /root/" + "go"} {
		if !folders.MatchString(bad) {
			t.Errorf("%q passes for no machine's folder", bad)
		}
	}
	tree(t, func(name string, content []byte) {
		if slices.Contains(content[:min(len(content), 8000)], 0) {
			return // not text
		}
		for i, line := range strings.Split(string(content), "\n") {
			if folders.MatchString(line) || hosts.MatchString(line) && name != "internal/deps_test.go" {
				t.Errorf("%s:%d names a machine's folder or a package registry: %.100s", name, i+1, line)
			}
		}
	})
}
