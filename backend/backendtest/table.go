package backendtest

import (
	"fmt"
	"strings"

	"drover/internal/quant"
)

// table counts, for each shape and format, the cases that ran and passed.
type table struct {
	name        string
	full        bool
	types       []quant.Type
	ran, passed [][]int // (shapes, formats)
	cases       []int   // (cases) pairs on which each ran
}

func newTable(name string, full bool, types []quant.Type) *table {
	t := &table{name: name, full: full, types: types, cases: make([]int, len(cases))}
	for range shapes {
		t.ran, t.passed = append(t.ran, make([]int, len(types))), append(t.passed, make([]int, len(types)))
	}
	return t
}

func (t *table) add(shape, format, n int, ok bool) {
	t.ran[shape][format]++
	t.cases[n]++
	if ok {
		t.passed[shape][format]++
	}
}

// String is the table as docs/conformance.txt has it: for each format and
// shape the number of cases that passed ("of n" where some did not), then on
// how many pairs each case ran.
func (t *table) String() string {
	var b strings.Builder
	how := "pairwise"
	if t.full {
		how = "full product"
	}
	fmt.Fprintf(&b, "device %s, %s: cases passed for each format and shape\n%-8s", t.name, how, "")
	for i := range shapes {
		fmt.Fprintf(&b, " %s", shapes[i].name)
	}
	b.WriteByte('\n')
	for j, typ := range t.types {
		fmt.Fprintf(&b, "%-8s", typ)
		for i := range shapes {
			cell := fmt.Sprint(t.passed[i][j])
			if t.passed[i][j] < t.ran[i][j] {
				cell += fmt.Sprintf(" of %d", t.ran[i][j])
			}
			fmt.Fprintf(&b, " %*s", len(shapes[i].name), cell)
		}
		b.WriteByte('\n')
	}
	b.WriteString("pairs of format and shape that each case ran on\n")
	for n, c := range cases {
		fmt.Fprintf(&b, "%8d %s\n", t.cases[n], c.name)
	}
	return b.String()
}
