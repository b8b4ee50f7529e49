package device

import (
	"errors"
	"strings"
	"testing"

	"drover/cpu"
)

func TestFind(t *testing.T) {
	t.Setenv("DROVER_CUDA_LIBRARY", "/nonexistent/libcuda.so.1") // the same on a machine with a card
	for _, c := range []struct {
		spec, isa string
		ids       string // of the devices found
		err       error
		say       string // part of the error
	}{
		{spec: "auto", ids: "cpu"},
		{spec: "cpu", ids: "cpu"},
		{spec: " cpu ", ids: "cpu"},
		{spec: "all", ids: "cpu"},
		{spec: "cpu", isa: "generic", ids: "cpu"},
		{spec: "cuda", err: ErrUnavailable, say: "cuda is not available"},
		{spec: "cuda:0", err: ErrUnavailable, say: "cuda:0"},
		{spec: "cuda:GPU-5f3c", err: ErrUnavailable, say: "cuda:GPU-5f3c"},
		{spec: "metal", err: ErrUnavailable, say: "no Metal backend"},
		{spec: "cpu,cuda", err: ErrUnavailable, say: "cuda is not available"},
		{spec: "", err: ErrSpec, say: "unknown device"},
		{spec: "gpu", err: ErrSpec, say: "gpu"},
		{spec: "cpu:0", err: ErrSpec, say: "cpu:0"},
		{spec: "metal:0", err: ErrSpec, say: "metal:0"},
		{spec: "cuda:", err: ErrSpec, say: "cuda:"},
		{spec: "cpu,", err: ErrSpec, say: "unknown device"},
		{spec: "cpu,cpu", err: ErrSpec, say: "twice"},
		{spec: "cpu,auto", err: ErrSpec, say: "auto"},
		{spec: "auto", isa: "sse9", err: ErrSpec, say: "sse9"},
		{spec: "cuda", isa: "sse9", err: ErrSpec, say: "sse9"},
	} {
		found, err := Find(c.spec, Options{ISA: c.isa})
		var ids []string
		for _, d := range found {
			ids = append(ids, d.Info().ID)
		}
		if strings.Join(ids, ",") != c.ids || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("Find(%q, %q): got %v, %v; want %s, %v", c.spec, c.isa, ids, err, c.ids, c.err)
		}
		if err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("Find(%q): %q does not say %q", c.spec, err, c.say)
		}
	}
}

// Every kernel set is found by its name here or refused as one of another CPU.
func TestKernelSets(t *testing.T) {
	here := 0
	for _, isa := range []string{"generic", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"} {
		found, err := Find("cpu", Options{ISA: isa})
		switch {
		case err == nil && found[0].Info().ISA == isa:
			here++
		case err == nil:
			t.Errorf("%s gives kernels %s", isa, found[0].Info().ISA)
		case !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), isa):
			t.Errorf("%s: %v", isa, err)
		}
	}
	if here != len(cpu.Available()) {
		t.Errorf("%d kernel sets found, the CPU has %v", here, cpu.Available())
	}
}

func TestAllSaysWhatIsAbsent(t *testing.T) {
	found, absent, err := All(Options{})
	if err != nil || len(found) == 0 || found[len(found)-1].Info().Kind != "cpu" {
		t.Fatalf("got %d devices, %v", len(found), err)
	}
	kinds := map[string]bool{}
	for _, d := range found {
		kinds[d.Info().Kind] = true
	}
	for _, a := range absent {
		if kinds[a.Kind] || a.Reason == nil || a.Reason.Error() == "" {
			t.Errorf("%s is absent: %v", a.Kind, a.Reason)
		}
		kinds[a.Kind] = true
	}
	if len(kinds) != 3 {
		t.Errorf("of three backends only %v are told of", kinds)
	}
}
