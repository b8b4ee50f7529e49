package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"drover/backend"
)

// spread says who got what: "a[0,5) b[5,10)".
func spread(places []Placement) string {
	var parts []string
	for _, p := range places {
		for _, r := range p.Runs {
			parts = append(parts, fmt.Sprintf("%s[%d,%d)", p.Device.Info().ID, r.Lo, r.Hi))
		}
	}
	return strings.Join(parts, " ")
}

func TestSpread(t *testing.T) {
	// four layers, ten blocks of 100 bytes; a stage takes 1024 more, and 10 a page
	m := &backend.Model{Config: backend.Config{Layers: 4, Vocab: 8, Dim: 2, Context: 640}}
	gpu := func(id string, free uint64) backend.Device {
		return &fakeDevice{id: id, kind: "cuda", free: free, perPage: 10, perBlock: 100}
	}
	cpu := &fakeDevice{id: "cpu", kind: "cpu", free: 1 << 20, perPage: 10, perBlock: 100}
	none := Wishes{GPULayers: -1}
	for _, c := range []struct {
		name    string
		devices []backend.Device
		w       Wishes
		o       Options
		want    string
	}{
		{"one", []backend.Device{gpu("a", 1)}, none, Options{}, "a[0,10)"},
		{"all on the first", []backend.Device{gpu("a", 2124), gpu("b", 9999)}, none, Options{}, "a[0,10)"},
		{"a byte short", []backend.Device{gpu("a", 2123), gpu("b", 9999)}, none, Options{}, "a[0,9) b[9,10)"},
		{"three", []backend.Device{gpu("a", 1500), gpu("b", 1500), gpu("c", 1700)}, none, Options{}, "a[0,3) b[3,5) c[5,10)"},
		{"one too small for anything", []backend.Device{gpu("a", 500), gpu("b", 9999)}, none, Options{}, "b[0,10)"},
		{"a shorter context", []backend.Device{gpu("a", 1580), gpu("b", 1570)}, none, Options{}, "a[0,5) b[5,10)"},
		{"shares", []backend.Device{gpu("a", 1), gpu("b", 1)}, Wishes{Shares: []float64{3, 1}, GPULayers: -1}, Options{}, "a[0,7) b[7,10)"},
		{"a share of nothing", []backend.Device{gpu("a", 1), gpu("b", 1)}, Wishes{Shares: []float64{1, 0}, GPULayers: -1}, Options{}, "a[0,10)"},
		{"one GPU layer", []backend.Device{gpu("a", 9999), cpu}, Wishes{GPULayers: 1}, Options{}, "cpu[0,7) a[7,10)"},
		{"no GPU layer", []backend.Device{gpu("a", 9999), cpu}, Wishes{GPULayers: 0}, Options{}, "cpu[0,10)"},
		{"all layers", []backend.Device{gpu("a", 9999), cpu}, Wishes{GPULayers: 5}, Options{}, "a[0,10)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			places, err := Spread(m, c.devices, c.w, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := spread(places); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if _, err := order(m, places); err != nil {
				t.Error(err)
			}
		})
	}
	var short *backend.MemoryError
	if _, err := Spread(m, []backend.Device{gpu("a", 1200), gpu("b", 1300)}, none, Options{}); !errors.As(err, &short) || short.Device != "b" {
		t.Errorf("too small for all: %v, want a MemoryError of b", err)
	}
}
