//go:build linux && cgo

package cuda

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"drover/backend"
	"drover/internal/sim"
)

// use makes Devices open a driver's library, and no NVML.
func use(t *testing.T, library string) {
	t.Helper()
	t.Setenv("DROVER_CUDA_LIBRARY", library)
	t.Setenv("DROVER_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1")
}

// open gives the cards of a driver.
func open(t *testing.T, library string) []*device {
	t.Helper()
	use(t, library)
	found, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	var cards []*device
	for _, d := range found {
		cards = append(cards, d.(*device))
	}
	return cards
}

// Whatever keeps the driver from being used is said with what to do about it.
func TestNoDriver(t *testing.T) {
	text := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(text, []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		library string
		broken  bool // it is here and does not work
		want    []string
	}{
		{"/nonexistent/libcuda.so.1", false, []string{"/nonexistent/libcuda.so.1", "DROVER_CUDA_LIBRARY"}},
		{text, true, []string{"does not load", text}},
		{"libnone-of-this-name.so.1", kernelSide("/").version != "", []string{"libnone-of-this-name.so.1 was not found", "install the NVIDIA driver", "DROVER_CUDA_LIBRARY"}},
		{sim.Broken(t, "cuGraphInstantiateWithFlags=missing", "VERSION=11020"), true, []string{"no function cuGraphInstantiateWithFlags", "470 or newer", "CUDA 11.2"}},
		{sim.Broken(t, "cuInit=missing", "cuDriverGetVersion=missing_too"), true, []string{"no function cuInit"}},
		{sim.Broken(t, "VERSION=11020"), true, []string{"CUDA 11.2", "CUDA 11.4", "update the driver to 470"}},
		{sim.Broken(t, "INIT=100"), false, []string{"no GPU", "nvidia-smi", "CUDA_ERROR_OF_TEST, 100"}},
		{sim.Broken(t, "CARDS=0"), false, []string{"no GPU", "nvidia-smi"}},
		{sim.Broken(t, "INIT=999"), true, []string{"sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm", "words of the driver"}},
		{sim.Broken(t, "INIT=304"), true, []string{"does not start", "restart the machine"}},
		{sim.Broken(t, "INIT=3"), true, []string{"stub", "install the NVIDIA driver"}},
		{sim.Broken(t, "INIT=4"), true, []string{"stub"}},
		{sim.Broken(t, "INIT=34"), true, []string{"stub"}},
		{sim.Broken(t, "INIT=802"), true, []string{"nvidia-fabricmanager"}},
		{sim.Broken(t, "INIT=803"), true, []string{"different versions", "restart", "rmmod"}},
		{sim.Broken(t, "INIT=804"), true, []string{"compatibility package", "LD_LIBRARY_PATH"}},
		{sim.Broken(t, "INIT=1"), true, []string{"does not start", "nvidia-smi"}},
		{sim.Broken(t, "MAJOR=7", "MINOR=0"), true, []string{"cuda:0", "Broken Card", "compute capability 7.0", "7.5 or newer", "--device cpu"}},
	} {
		use(t, c.library)
		found, err := Devices()
		if len(found) != 0 || err == nil {
			t.Errorf("%s: %d devices, %v", c.library, len(found), err)
			continue
		}
		said := err.Error() + ": " + backend.Remedy(err)
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q does not say %q", c.library, said, want)
			}
		}
		if u := (*backend.Unusable)(nil); !errors.As(err, &u) || u.Remedy == "" || u.Absent == c.broken {
			t.Errorf("%s: %+v, want a remedy, and broken %v", c.library, u, c.broken)
		}
	}
}

func TestHiddenCards(t *testing.T) {
	use(t, sim.Broken(t, "INIT=100"))
	t.Setenv("CUDA_VISIBLE_DEVICES", "7")
	if _, err := Devices(); err == nil || !strings.Contains(err.Error(), `CUDA_VISIBLE_DEVICES="7"`) {
		t.Errorf("got %v, want the variable that hides the cards", err)
	}
}

// A card that is too old is left out by name; the others keep their numbers.
func TestLeftOut(t *testing.T) {
	use(t, sim.Broken(t, "CARDS=3", "MAJOR=6"))
	found, err := Devices()
	var left *backend.Unusable
	if len(found) != 2 || !errors.As(err, &left) || left.ID != "cuda:2" || left.Absent || !strings.Contains(left.Remedy, "CUDA_VISIBLE_DEVICES") {
		t.Fatalf("got %d devices, %v", len(found), err)
	}
	info := found[1].Info()
	want := backend.Info{ID: "cuda:1", Kind: "cuda", Name: "Broken Card", UUID: "GPU-00112233-4455-6677-8899-aabbccddee01",
		ISA: "sm_80", Driver: "CUDA 12.8", Cores: 1, Total: 1 << 30, Free: 1 << 20}
	if info != want {
		t.Errorf("got  %+v\nwant %+v", info, want)
	}
}

func TestTier(t *testing.T) {
	for _, c := range []struct {
		cc, version int
		want        string
	}{{75, 11040, "sm_75"}, {80, 11040, "sm_80"}, {89, 12080, "sm_80"}, {90, 11070, "sm_80"}, {90, 11080, "sm_90"}, {90, 12000, "sm_90a"}, {120, 13000, "sm_90"}} {
		d := &device{cc: c.cc, driver: &driver{version: c.version}}
		if got := d.tier(); got != c.want {
			t.Errorf("compute capability %d, driver %d: got %s, want %s", c.cc, c.version, got, c.want)
		}
	}
}

// An error that ends a context is told once with its cause; from then on the
// device is lost, and its neighbour works.
func TestLost(t *testing.T) {
	cards := open(t, sim.Broken(t, "CARDS=2", "SYNC=700"))
	a, b := cards[0], cards[1]
	s, err := a.stream()
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := s.sync(), s.sync(), s.fill(512, 0, 16)
	for i, err := range []error{first, second, third} {
		if !errors.Is(err, backend.ErrLost) || !strings.Contains(err.Error(), "CUDA_ERROR_OF_TEST, 700") || !strings.HasPrefix(err.Error(), "cuda:0: ") {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if strings.Contains(first.Error(), "after") || !strings.Contains(second.Error(), "after") {
		t.Errorf("the cause is not told apart from what follows: %v; %v", first, second)
	}
	if _, err := b.alloc(512); err != nil {
		t.Errorf("the other card: %v", err)
	}
}

// Not every error ends a context.
func TestNotLost(t *testing.T) {
	d := open(t, sim.Broken(t, "SYNC=1"))[0]
	s, err := d.stream()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.sync(); err == nil || errors.Is(err, backend.ErrLost) || errors.Is(err, backend.ErrMemory) {
		t.Errorf("got %v, want an error of the call alone", err)
	}
}

func TestFull(t *testing.T) {
	d := open(t, sim.Broken(t))[0]
	_, err := d.alloc(3 << 20)
	var m *backend.MemoryError
	if !errors.As(err, &m) || *m != (backend.MemoryError{Device: "cuda:0", Need: 3 << 20, Free: 1 << 20}) {
		t.Errorf("got %v (%+v)", err, m)
	}
	// a card so full that it does not open
	d = open(t, sim.Broken(t, "RETAIN=2"))[0]
	if _, err := d.stream(); !errors.Is(err, backend.ErrMemory) || !strings.Contains(err.Error(), "open cuda:0") {
		t.Errorf("got %v, want out of memory", err)
	}
	if free := d.Info().Free; free != 0 {
		t.Errorf("%d bytes are free on a card that does not open", free)
	}
	d = open(t, sim.Broken(t, "RETAIN=46"))[0]
	if _, err := d.stream(); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v, want the process that has the card", err)
	}
}

// The words of the driver's compiler are part of the error.
func TestModuleLog(t *testing.T) {
	d := open(t, sim.Broken(t))[0]
	if _, err := d.module([]byte(".version 1.0")); err == nil || !strings.Contains(err.Error(), "line 1: .version 1.0") || !strings.Contains(err.Error(), "218") {
		t.Errorf("got %v, want the log", err)
	}
}

// What runs for each token allocates nothing.
func TestNoAllocation(t *testing.T) {
	d := open(t, sim.Broken(t))[0]
	s, err := d.stream()
	if err != nil {
		t.Fatal(err)
	}
	k, g, e := &kernel{d: d, name: "k"}, &graph{d: d}, &event{d: d}
	src := make([]byte, 64)
	for _, dependent := range []bool{false, true} {
		s.dependent = dependent
		n := testing.AllocsPerRun(100, func() {
			args := struct{ a, b uint64 }{1, 2}
			err = errors.Join(s.launch(k, [3]uint32{1, 1, 1}, 32, 0, unsafe.Pointer(&args)),
				s.copyIn(512, src), s.copyOut(src, 512), s.copyOn(512, 1024, 8), s.fill(512, 0, 8), s.replay(g), s.record(e), s.sync())
		})
		if n != 0 || err != nil {
			t.Errorf("dependent %v: %v allocations, %v", dependent, n, err)
		}
	}
}
