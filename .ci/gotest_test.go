package main

import (
	"strings"
	"testing"
)

// Streams as go test -json writes them, shortened to what is read.
func TestSummary(t *testing.T) {
	pass := `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"
	skip := `{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:3: no data\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}` + "\n"
	fail := `{"Action":"output","Package":"p","Test":"TestC","Output":"    a_test.go:9: got 1\n"}` + "\n" + `{"Action":"fail","Package":"p","Test":"TestC"}` + "\n"
	ended := `{"Action":"pass","Package":"p"}` + "\n"
	broken := `{"Action":"fail","Package":"p"}` + "\n"
	for _, c := range []struct {
		name, stream string
		noskip, ok   bool
		want         string // in the output
	}{
		{"passed", pass + ended, true, true, "tests: 1 passed, 0 failed, 0 skipped"},
		{"skip allowed", pass + skip + ended, false, true, "skipped: p TestB: a_test.go:3: no data"},
		{"skip refused", pass + skip + ended, true, false, "tests: 1 passed, 0 failed, 1 skipped"},
		{"failed", pass + fail + broken, false, false, "a_test.go:9: got 1"},
		{"did not build", `{"ImportPath":"p","Action":"build-output","Output":"x.go:1: bad\n"}` + "\n" + broken, false, false, "x.go:1: bad"},
		{"died", pass + `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: x\n"}` + "\n" + broken, false, false, "panic: x"},
		{"nothing ran", `{"Action":"skip","Package":"p"}` + "\n", false, false, "no test ran"},
	} {
		var out strings.Builder
		s := &summary{out: &out, noskip: c.noskip, packages: map[string]*counts{}, output: map[string][]string{}}
		if err := s.read(strings.NewReader(c.stream)); err != nil {
			t.Fatal(err)
		}
		if ok := s.finish(); ok != c.ok || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: ok %v, want %v; output\n%s", c.name, ok, c.ok, out.String())
		}
	}
}
