package device

import (
	"context"
	"errors"
	"strings"
	"testing"

	"drover/backend"
)

func workstation(t *testing.T) []backend.Device {
	t.Helper()
	var all []backend.Device
	for _, i := range []backend.Info{
		{ID: "cuda:0", Kind: "cuda", UUID: "GPU-aa", ISA: "sm_80", Cores: 10},
		{ID: "cuda:1", Kind: "cuda", UUID: "GPU-bb", ISA: "sm_90", Cores: 10},
		{ID: "cpu", Kind: "cpu", ISA: "neon", Cores: 4},
	} {
		d, err := Described(i, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Info() != i {
			t.Errorf("got %+v, want %+v", d.Info(), i)
		}
		all = append(all, d)
	}
	return all
}

func TestChoose(t *testing.T) {
	all := workstation(t)
	for _, c := range []struct {
		spec, ids string
		err       error
		say       string
	}{
		{"auto", "cuda:0,cuda:1,cpu", nil, ""},
		{"all", "cuda:0,cuda:1,cpu", nil, ""},
		{"cpu, cuda:1", "cpu,cuda:1", nil, ""},
		{"cuda", "cuda:0,cuda:1", nil, ""},
		{"cuda:gpu-bb", "cuda:1", nil, ""},
		{"cuda:2", "", ErrUnavailable, "cuda:0, cuda:1, cpu"},
		{"metal", "", ErrUnavailable, "cuda:0"},
		{"cuda,cuda:1", "", ErrSpec, "twice"},
		{"gpu", "", ErrSpec, "gpu"},
		{"", "", ErrSpec, "unknown device"},
	} {
		found, err := Choose(all, c.spec)
		var ids []string
		for _, d := range found {
			ids = append(ids, d.Info().ID)
		}
		if strings.Join(ids, ",") != c.ids || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%q: got %v, %v; want %s, %v, %q", c.spec, ids, err, c.ids, c.err, c.say)
		}
	}
}

// What is only described neither runs nor is measured, and what has no kernels
// here is not planned for.
func TestDescribed(t *testing.T) {
	mac, err := Described(backend.Info{ID: "metal", Kind: "metal", ISA: "apple8"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(workstation(t), mac) {
		if _, err := d.Load(context.Background(), nil, nil, backend.Limits{}, nil); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("%s loads: %v", d.Info().ID, err)
		}
		if _, err := d.Measure(context.Background()); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("%s is measured: %v", d.Info().ID, err)
		}
	}
	for _, i := range []backend.Info{{Kind: "cuda", ISA: "sm_61"}, {Kind: "cpu", ISA: "sm_80"}, {Kind: "rocm", ISA: "gfx90a"}, {Kind: "metal", ISA: "apple6"}, {Kind: "metal", ISA: "9"}} {
		if _, err := Described(i, Options{}); !errors.Is(err, backend.ErrUnsupported) {
			t.Errorf("%+v: %v", i, err)
		}
	}
}
