package rates

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"drover/backend"
	"drover/internal/quant"
)

func card() (backend.Info, backend.Sensors) {
	limit := 350.
	return backend.Info{ID: "cuda:0", Kind: "cuda", Name: "A", UUID: "GPU-a", ISA: "sm_80", Driver: "570.1", Link: "PCIe 4.0 x16", Cores: 82, Total: 24 << 30, Free: 5},
		backend.Sensors{Limit: &limit}
}

func some() *Entry {
	return &Entry{Rates: backend.Rates{Read: 8e11, Copy: 7e11, Matrix: 6e13, Float: 2e13, Format: map[quant.Type]float64{quant.Q4_0: 7e11}, Launch: 1e-6, Link: 2e10, Latency: 1e-5,
		Layers: map[quant.Type][]backend.LayerTime{quant.Q8_0: {{Weights: 4e7, Decode: 1e-4, Prompt: 1e-3}}},
		Mixtures: []backend.MixtureTime{{Mixture: backend.Mixture{Format: quant.Q4_K, Dim: 4096, FFN: 14336, Experts: 8, Used: 2},
			LayerTime: backend.LayerTime{Weights: 4e8, Decode: 2e-4, Prompt: 3e-3}}}},
		Speed: map[quant.Type]float64{quant.Q8_0: 0.9}}
}

// What is saved is found, by another Store too, and by nothing but its own key.
func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "rates")
	i, s := card()
	key := KeyOf(i, s, 8, true)
	if _, err := Open(dir).Load(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty store: %v", err)
	}
	if err := Open(dir).Save(key, some()); err != nil {
		t.Fatal(err)
	}
	if got, err := Open(dir).Load(key); err != nil || !reflect.DeepEqual(got, some()) {
		t.Errorf("%v: got %+v, want %+v", err, got, some())
	}
	// free memory and the number that a card has are not its identity
	j := i
	j.Free, j.ID = 7, "cuda:3"
	if KeyOf(j, s, 1, false) != key {
		t.Error("a card that was renumbered, with other CPU threads, is another")
	}
	less := 300.
	for name, other := range map[string]Key{
		"driver": KeyOf(func() backend.Info { j := i; j.Driver = "580.1"; return j }(), s, 8, true),
		"uuid":   KeyOf(func() backend.Info { j := i; j.UUID = "GPU-b"; return j }(), s, 8, true),
		"memory": KeyOf(func() backend.Info { j := i; j.Total = 1; return j }(), s, 8, true),
		"isa":    KeyOf(func() backend.Info { j := i; j.ISA = "sm_90"; return j }(), s, 8, true),
		"link":   KeyOf(func() backend.Info { j := i; j.Link = "PCIe 3.0 x1"; return j }(), s, 8, true),
		"limit":  KeyOf(i, backend.Sensors{Limit: &less}, 8, true),
		"version": func() Key {
			k := key
			k.Version--
			return k
		}(),
	} {
		if _, err := Open(dir).Load(other); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	cpu := backend.Info{Kind: "cpu", Name: "C", Cores: 8}
	if KeyOf(cpu, s, 8, false) == KeyOf(cpu, s, 4, false) || KeyOf(cpu, s, 8, false) == KeyOf(cpu, s, 8, true) {
		t.Error("a CPU with other threads, or with raw weights, is the same")
	}
}

// A damaged file is an error that says so, and saving replaces it.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	i, s := card()
	key := KeyOf(i, s, 0, false)
	if err := Open(dir).Save(key, some()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: want one file and nothing beside it", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new string }{
		{string(good), ""}, {string(good), string(good[:len(good)/2])}, {"8e+11", "-1"}, {"8e+11", "1e300"}, {`"GPU-a"`, `"GPU-b"`},
		{"0.9", "0"}, {"0.9", "1e9"}, {"Q8_0", "Q9_9"}, {"800000000000", "0"},
		{"Q4_K", "Q9_9"}, {`"used": 2`, `"used": 9`}, {`"used": 2`, `"used": 0`}, {`"dim": 4096`, `"dim": -1`}, {`"decode_s": 0.0002`, `"decode_s": 0`}, {`"weights": 400000000`, `"weights": 1e300`},
	} {
		bad := strings.Replace(string(good), c.old, c.new, 1)
		if bad == string(good) {
			continue // one of the two ways to write the number
		}
		if err := os.WriteFile(files[0], []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir).Load(key); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), files[0]) {
			t.Errorf("%q for %q: %v", c.new, c.old, err)
		}
	}
	if err := Open(dir).Save(key, some()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir).Load(key); err != nil {
		t.Errorf("after saving again: %v", err)
	}
}

// A place that cannot be written, or none at all, is an error and nothing else.
func TestUnwritable(t *testing.T) {
	i, s := card()
	key := KeyOf(i, s, 0, false)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", filepath.Join(file, "rates")} {
		if err := Open(dir).Save(key, some()); err == nil {
			t.Errorf("saved in %q", dir)
		}
		if _, err := Open(dir).Load(key); err == nil {
			t.Errorf("found in %q", dir)
		}
	}
}

// Many that save and load at once see whole files only.
func TestAtOnce(t *testing.T) {
	dir := t.TempDir()
	i, s := card()
	key := KeyOf(i, s, 0, false)
	if err := Open(dir).Save(key, some()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for range 50 {
				e := some()
				e.Rates.Read = 1e9 * float64(1+n)
				if err := Open(dir).Save(key, e); err != nil {
					t.Error(err)
				}
				if got, err := Open(dir).Load(key); err != nil || got.Rates.Matrix != e.Rates.Matrix {
					t.Errorf("%v, %+v", err, got)
				}
			}
		})
	}
	all.Wait()
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
		t.Errorf("%v, %v: want one file", files, err)
	}
}

func TestDir(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	if got, want := Dir(), filepath.Join(state, "drover", "rates"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Setenv("XDG_STATE_HOME", "not/absolute")
	t.Setenv("HOME", state)
	t.Setenv("LocalAppData", state)
	if got := Dir(); !strings.HasPrefix(got, state) || !strings.HasSuffix(got, filepath.Join("drover", "rates")) {
		t.Errorf("a relative XDG_STATE_HOME counts: %s", got)
	}
}

// Speeds follow what runs show, a part of the way each; short runs and nonsense
// change nothing, and nothing takes them past the bounds.
func TestLearn(t *testing.T) {
	const enough = 256 << 20
	e := &Entry{}
	for _, r := range []Run{{Tokens: 31, Bytes: enough, Predicted: 10, Measured: 20}, {Tokens: 100, Bytes: enough - 1, Predicted: 10, Measured: 20},
		{Tokens: 100, Bytes: enough, Measured: 20}, {Tokens: 100, Bytes: enough, Predicted: 10}, {Tokens: 100, Bytes: enough, Predicted: math.Inf(1), Measured: 5},
		{Tokens: 100, Bytes: enough, Predicted: 10, Measured: math.NaN()}} {
		if r.Format = quant.Q4_0; e.Learn(r) || len(e.Speed) != 0 {
			t.Errorf("%+v was believed: %v", r, e.Speed)
		}
	}
	learn := func(f quant.Type, predicted, measured float64) float64 {
		if !e.Learn(Run{f, 32, enough, predicted, measured}) {
			t.Errorf("%v, measured %v, was not believed", predicted, measured)
		}
		return e.Speed[f]
	}
	if got := learn(quant.Q4_0, 10, 12.5); math.Abs(got-math.Pow(0.8, 0.25)) > 1e-12 {
		t.Errorf("one run at four fifths of the speed: %v", got)
	}
	// the prediction follows the speed, so that many runs find it
	got := 0.
	for range 40 {
		got = learn(quant.Q4_0, 10/e.Speed[quant.Q4_0], 12.5)
	}
	if math.Abs(got-0.8) > 1e-4 {
		t.Errorf("many runs at four fifths of the speed: %v", got)
	}
	for _, measured := range []float64{1e-9, 1e9} {
		for range 100 {
			got = learn(quant.Q8_0, 10, measured)
		}
		if got != slowest && got != fastest {
			t.Errorf("measured %v: speed %v, out of bounds or short of them", measured, got)
		}
	}
	if got := learn(quant.F16, 10, 1e9); math.Abs(got-math.Pow(0.5, 0.25)) > 1e-12 {
		t.Errorf("one run moved the speed to %v", got)
	}
}

func TestGuess(t *testing.T) {
	for _, i := range []backend.Info{{Kind: "cuda", Cores: 82}, {Kind: "metal"}, {Kind: "cpu", Cores: 16}, {Kind: "cpu"}} {
		r := Guess(i)
		if _, err := NewDoc(r).Rates(); err != nil {
			t.Errorf("%+v: %v", i, err)
		}
	}
	slow, fast := Guess(backend.Info{Kind: "cuda", Cores: 20}), Guess(backend.Info{Kind: "cuda", Cores: 80})
	if fmt.Sprint(fast.Read/slow.Read) != "4" {
		t.Errorf("%v and %v: a card of four times the size", slow.Read, fast.Read)
	}
}
