package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"

	"drover/backend"
)

// Machine is what must not be compared unsaid where it differs: the hardware, its
// drivers and the program.
type Machine struct {
	OS      string     `json:"os"`
	Arch    string     `json:"arch"`
	CPUs    int        `json:"cpus"` // logical
	CPU     string     `json:"cpu"`  // its name; empty: not known
	Devices []Hardware `json:"devices"`
	Version string     `json:"version"` // of drover, or its commit
	Go      string     `json:"go"`      // that built it
	Program string     `json:"program"` // eight hex digits of the running file's SHA-256; zeros: it cannot be read
}

// Hardware is a device in use.
type Hardware struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	UUID   string `json:"uuid"`
	Driver string `json:"driver"`
	Cores  int    `json:"cores"`
	Memory uint64 `json:"memory"` // bytes in all
}

func newMachine(in []backend.Info, o *Options) Machine {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), CPU: o.CPU, Devices: []Hardware{},
		Version: o.Version, Go: runtime.Version(), Program: program()}
	for _, i := range in {
		m.Devices = append(m.Devices, Hardware{i.Kind, i.Name, i.UUID, i.Driver, i.Cores, i.Total})
	}
	return m
}

// fingerprint is eight hex digits of the hardware, a dash, eight of the program.
func (m *Machine) fingerprint() string {
	var all strings.Builder
	fmt.Fprintf(&all, "%s/%s %d %q", m.OS, m.Arch, m.CPUs, m.CPU)
	for _, d := range m.Devices {
		fmt.Fprintf(&all, " %q %q %q %q %d %d", d.Kind, d.Name, d.UUID, d.Driver, d.Cores, d.Memory)
	}
	sum := sha256.Sum256([]byte(all.String()))
	return hex.EncodeToString(sum[:4]) + "-" + m.Program
}

// program is the running file's, read once.
var program = sync.OnceValue(func() string {
	const unknown = "00000000"
	path, err := os.Executable()
	if err != nil {
		return unknown
	}
	f, err := os.Open(path)
	if err != nil {
		return unknown
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return unknown
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
})
