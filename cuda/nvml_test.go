//go:build linux && cgo

package cuda

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/sim"
)

// One test, since a process has one NVML: go-nvml's calls are bound to the first
// library that is loaded. Missing functions are tested by running the program.
func TestNVML(t *testing.T) {
	if m := startManagement("/nonexistent/libnvidia-ml.so.1"); m != nil {
		t.Fatal("a library that is not there has started")
	}
	if m := startManagement(sim.Broken(t)); m != nil {
		t.Fatal("a library without NVML's functions has started")
	}
	t.Setenv("DROVER_SIM_NVML", "name=A,uuid=GPU-a,watts=301.25,celsius=61,mhz=1755,limit=450,joules=12.5,throttle=45,pcie=5x8,smi=580.1,"+
		fmt.Sprintf("process=77:python:4GiB,process=%d:drover:9GiB,process=78:train er:6.5GiB;", os.Getpid())+
		"name=B,uuid=GPU-b;name=C,uuid=GPU-c,mig=1;name=D,fallen=1")
	m := startManagement(sim.NVML(t))
	if m == nil || m.driver != "580.1" {
		t.Fatalf("got %+v", m)
	}

	a := m.card("GPU-a")
	s := a.sensors()
	if s.Watts == nil || *s.Watts != 301.25 || s.Celsius == nil || *s.Celsius != 61 || s.MHz == nil || *s.MHz != 1755 || s.Limit == nil || *s.Limit != 450 || a.link() != "PCIe 5.0 x8" {
		t.Errorf("got %+v, link %q", s, a.link())
	}
	if want := []string{"power limit", "hardware slowdown", "temperature"}; s.Joules == nil || *s.Joules != 12.5 || !slices.Equal(s.Throttle, want) {
		t.Errorf("energy %v, throttled for %q, want 12.5 and %q", s.Joules, s.Throttle, want)
	}
	// this process is not among those that could be ended to make room
	want := []process{{78, "train er", 13 << 29}, {77, "python", 4 << 30}}
	if got := a.processes(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	err := (&device{id: "cuda:0", card: a}).noRoom(3<<30, 1<<30)
	var memory *backend.MemoryError
	if !errors.As(err, &memory) || memory.Need != 3<<30 || memory.Free != 1<<30 || !strings.Contains(err.Error(), "6.5 GiB are used by train er (pid 78)") {
		t.Errorf("got %v", err)
	}

	b := m.card("GPU-b")
	if s := b.sensors(); !reflect.DeepEqual(s, backend.Sensors{}) || b.link() != "" || len(b.processes()) != 0 {
		t.Errorf("a card without sensors has %+v, link %q, processes %v", s, b.link(), b.processes())
	}
	if c := m.card("GPU-z"); c != nil || c.link() != "" || !reflect.DeepEqual(c.sensors(), backend.Sensors{}) || c.processes() != nil {
		t.Error("a card that NVML does not know has something to tell")
	}
	if free := b.free(); free != 2<<30 {
		t.Errorf("%d bytes free of 2 GiB that nobody uses", free)
	}
	if name, found := m.lost(); !found || name != "GPU 3" {
		t.Errorf("got %q, %v; want the card that does not answer", name, found)
	}
	if name, found := m.withoutInstances(); !found || name != "C" {
		t.Errorf("got %q, %v; want the card in MIG mode, C", name, found)
	}
}
