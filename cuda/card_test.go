//go:build linux && cgo

package cuda

import (
	"os"
	"testing"

	"drover/backend"
	"drover/internal/sim"
)

// simulated are the software device's cards: two of each compute capability that
// the suite runs on, and some small ones.
const simulated = "name=Sim 8.0,cc=8.0,mem=2GiB;name=Sim 8.0,cc=8.0,mem=2GiB;name=Sim 8.0,cc=8.0,mem=256MiB;" +
	"name=Sim 9.0,cc=9.0,mem=2GiB;name=Sim 9.0,cc=9.0,mem=2GiB;name=Sim 9.0,cc=9.0,mem=256MiB;" +
	"name=Sim 7.5,cc=7.5,mem=2GiB;name=Sim 7.5,cc=7.5,mem=2GiB;name=Sim 7.5,cc=7.5,mem=256MiB;" +
	"name=Sim 12.0,cc=12.0,mem=2GiB;name=Sim 12.0,cc=12.0,mem=2GiB;name=Sim 12.0,cc=12.0,mem=256MiB"

// The software device reads its description once a process.
func TestMain(m *testing.M) {
	if _, set := os.LookupEnv("DROVER_SIM_CUDA"); !set {
		os.Setenv("DROVER_SIM_CUDA", simulated)
	}
	os.Exit(m.Run())
}

// onCard reports whether the tests run on a real card: DROVER_CUDA_LIBRARY names
// a driver.
func onCard() bool { return os.Getenv("DROVER_CUDA_LIBRARY") != "" }

// cards are the devices to test on, of a compute capability (80) if that is not
// 0: a real machine's, or the software device's.
func cards(t testing.TB, cc int) []*device {
	t.Helper()
	if !onCard() {
		t.Setenv("DROVER_CUDA_LIBRARY", sim.CUDA(t))
		t.Setenv("DROVER_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1")
		defer os.Unsetenv("DROVER_CUDA_LIBRARY") // Setenv restores what was; until then it must not look like a card's
	}
	found, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	var all []*device
	for _, f := range found {
		if d := f.(*device); cc == 0 || d.cc == cc {
			all = append(all, d)
		}
	}
	return all
}

// small makes a card have so much memory by taking the rest of it.
type small struct {
	t       testing.TB
	d       *device
	ballast uint64
}

func (s *small) leave(memory uint64) backend.Device {
	s.t.Helper()
	s.release()
	free, _, err := s.d.memory()
	if err != nil || free < memory {
		s.t.Fatalf("%s: %d bytes free, %d wanted: %v", s.d.id, free, memory, err)
	}
	if s.ballast, err = s.d.alloc(free - memory/s.d.granule*s.d.granule); err != nil {
		s.t.Fatal(err)
	}
	return s.d
}

func (s *small) release() {
	s.t.Helper()
	if s.ballast == 0 {
		return
	}
	if err := s.d.free(s.ballast); err != nil {
		s.t.Fatal(err)
	}
	s.ballast = 0
}

// class is the row class of a batch.
func class(rows int) int {
	if rows > decodeRows {
		return 1
	}
	return 0
}
