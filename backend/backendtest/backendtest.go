// Package backendtest is the conformance suite: it holds a device to the
// contract of package backend and to the reference, on tiny random models of
// every shape in every weight format. It knows no device.
//
// A case runs on pairs of shape and format. By default the pairs are chosen so
// that every shape meets every format (in the case "nmse"), every case every
// format, and every case every shape that it applies to; DROVER_FULL=1 runs
// every case on every pair.
package backendtest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

// Options says how to treat a device.
type Options struct {
	// Name heads the device's part of the table, and names its file; empty:
	// ID and ISA.
	Name string
	// Types are the weight formats to test; nil: all.
	Types []quant.Type
	// Shapes are the names of those to test; nil: all.
	Shapes []string
	// Full runs every case on every pair, as DROVER_FULL=1 does.
	Full bool
	// Same are other instances of the device (other thread counts, other
	// cards of the model) that must give the same bits.
	Same []backend.Device
	// Small makes the same device with that much memory in all. nil: the
	// device cannot pretend, and is asked for more than it has.
	Small func(memory uint64) backend.Device
	// Used is what a stage holds, for a stage without a method
	// Used() backend.Need.
	Used func(backend.Stage) backend.Need
	// Round rounds a row of activations, in place, as the device does before a
	// product with block-quantised weights (ref.Int8Blocks, say). With it, and the
	// reference rounding too, the device's values are held to those of float
	// weights. nil: the case "arithmetic" does not run.
	Round func(row []float64)
	// Tolerance takes the place of ToleranceOf for a device that rounds something
	// else: activations to f16 before tensor cores, say. nil: ToleranceOf.
	Tolerance func(t, k, v quant.Type) Tolerance
	// Card marks a real card, whose Need may exceed what is used by 1 % and
	// 64 MiB; others are held to the byte.
	Card bool
	// Class is the row class of a batch of so many rows. Results of equal
	// classes must be bit-identical, others within tolerance. nil: one class.
	Class func(rows int) int

	onlyShape, onlyCase string // if not empty
}

// Run holds dev to the contract. With DROVER_CONFORMANCE naming a folder it
// writes the table of what ran there, as docs/conformance.txt has it.
func Run(t *testing.T, dev backend.Device, o Options) {
	t.Helper()
	if os.Getenv("DROVER_FULL") == "1" {
		o.Full = true
	}
	text := run(tester{t}, dev, o).String()
	t.Logf("\n%s", text)
	if dir := os.Getenv("DROVER_CONFORMANCE"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, o.name(dev)+".txt"), []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// T is what the suite needs of *testing.T.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Run(name string, f func(T)) bool
}

type tester struct{ *testing.T }

func (t tester) Run(name string, f func(T)) bool {
	return t.T.Run(name, func(t *testing.T) { f(tester{t}) })
}

func (o *Options) name(dev backend.Device) string {
	if o.Name != "" {
		return o.Name
	}
	return dev.Info().ID + "-" + dev.Info().ISA
}

// run is the suite, and gives the table of what passed.
func run(t T, dev backend.Device, o Options) *table {
	if o.Types == nil {
		o.Types = quant.Types()
	}
	tab := newTable(o.name(dev), o.Full, o.Types)
	for i, sh := range shapes {
		if o.onlyShape != "" && o.onlyShape != sh.name || o.Shapes != nil && !slices.Contains(o.Shapes, sh.name) {
			continue
		}
		t.Run(sh.name, func(t T) {
			for j, typ := range o.Types {
				t.Run(typ.String(), func(t T) { pair(t, dev, &o, tab, i, j) })
			}
		})
	}
	return tab
}

// pair runs the cases of shape i and format j on one model.
func pair(t T, dev backend.Device, o *Options, tab *table, i, j int) {
	sh, typ := &shapes[i], o.Types[j]
	x := &env{dev: dev, o: o, sh: sh, typ: typ, m: sh.model(typ, uint64(1000*i)+uint64(typ))}
	x.lim = limits()
	for n, c := range cases {
		if !c.on(i, j, n, o) {
			continue
		}
		ok := t.Run(c.name, func(t T) {
			x.t = t
			x.lim.K, x.lim.V = sh.caches(i + j + n)
			defer x.closeLines()
			c.run(x)
		})
		tab.add(i, j, n, ok)
	}
}

// limits are a case's, if it does not change them.
func limits() backend.Limits {
	return backend.Limits{Pages: 8, Rows: 136, Seqs: 4, Context: 192, Outs: 136, K: quant.F32, V: quant.F32}
}

// check is one case of the suite.
type check struct {
	name     string
	applies  func(*shape) bool   // nil: every shape
	possible func(*Options) bool // nil: with any options
	run      func(*env)
}

// on reports whether case n runs on shape i and format j. The shapes that the
// case applies to take turns, so that it meets every format once and every
// such shape; the first case meets every pair.
func (c *check) on(i, j, n int, o *Options) bool {
	if c.applies != nil && !c.applies(&shapes[i]) || c.possible != nil && !c.possible(o) {
		return false
	}
	if o.onlyCase != "" {
		return o.onlyCase == c.name
	}
	if o.Full || n == 0 {
		return true
	}
	turn, turns := 0, 0
	for k := range shapes {
		if c.applies == nil || c.applies(&shapes[k]) {
			if k == i {
				turn = turns
			}
			turns++
		}
	}
	// with fewer formats than shapes, every shape still has its turn
	for k := j; k < max(turns, len(o.Types)); k += len(o.Types) {
		if (turn+n+k)%turns == 0 {
			return true
		}
	}
	return false
}
