// macho says what is wrong with a binary for darwin that was built without cgo: a
// library that is not the system's, or code of cgo's.
//
//	macho BINARY
package main

import (
	"debug/macho"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: macho BINARY")
		os.Exit(2)
	}
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "macho:", err)
		os.Exit(1)
	}
}

func check(path string) error {
	f, err := macho.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	if f.Symtab == nil {
		return errors.New("no symbols: build without -s")
	}
	var symbols []string
	for _, s := range f.Symtab.Syms {
		symbols = append(symbols, s.Name)
	}
	return errors.Join(ours(libraries), compiled(symbols))
}

// ours refuses libraries that do not come with the system.
func ours(libraries []string) error {
	for _, l := range libraries {
		if !strings.HasPrefix(l, "/usr/lib/") && !strings.HasPrefix(l, "/System/Library/") {
			return fmt.Errorf("%s is linked", l)
		}
	}
	return nil
}

// compiled refuses what cgo makes of import "C": stubs of functions called and
// exported, and package runtime/cgo. Names like x_cgo_init are purego's own, which
// stands for runtime/cgo in Go.
func compiled(symbols []string) error {
	cgo := regexp.MustCompile(`_Cfunc_|_C2func_|_cgoexp_|_cgo_[0-9a-f]{12}_|^_?runtime/cgo\.|_cgo_topofstack`)
	for _, s := range symbols {
		if cgo.MatchString(s) {
			return fmt.Errorf("symbol %s is cgo's", s)
		}
	}
	return nil
}
