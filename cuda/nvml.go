//go:build linux && cgo

package cuda

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"drover/backend"
)

// management is NVIDIA's management library, NVML: what the driver API does not
// tell of a card. Without it those facts are absent and all else works.
type management struct {
	library nvml.Interface
	handle  uintptr
	driver  string // its version: 570.86.10
}

// openManagement starts NVML once a process, since go-nvml keeps what it found
// in the library in variables of its own.
var openManagement = sync.OnceValue(func() *management {
	names := []string{"libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"}
	if own := os.Getenv("DROVER_NVML_LIBRARY"); own != "" {
		names = []string{own}
	}
	for _, name := range names {
		if m := startManagement(name); m != nil {
			return m
		}
	}
	return nil
})

// startManagement is nil where the library is not here or does not start.
func startManagement(name string) *management {
	handle, err := openLibrary(name)
	if err != nil {
		return nil
	}
	m := &management{library: nvml.New(nvml.WithLibraryPath(name)), handle: handle}
	if !m.has("nvmlInit_v2", "nvmlErrorString") || m.library.Init() != nvml.SUCCESS {
		return nil
	}
	if m.has("nvmlSystemGetDriverVersion") {
		if version, r := m.library.SystemGetDriverVersion(); r == nvml.SUCCESS {
			m.driver = version
		}
	}
	return m
}

// has reports whether the library has functions. A call to one that it lacks
// would end the process.
func (m *management) has(names ...string) bool {
	return m != nil && !slices.ContainsFunc(names, func(name string) bool { return symbol(m.handle, name) == 0 })
}

// card is NVML's view of a card.
type card struct {
	*management
	device nvml.Device
	whole  nvml.Device // the card that a MIG instance is part of; else device
}

// card finds a card or MIG instance by its UUID; nil where NVML does not know it.
func (m *management) card(uuid string) *card {
	if !m.has("nvmlDeviceGetHandleByUUID") {
		return nil
	}
	d, r := m.library.DeviceGetHandleByUUID(uuid)
	if r != nvml.SUCCESS {
		return nil
	}
	c := &card{management: m, device: d, whole: d}
	if strings.HasPrefix(uuid, "MIG-") && m.has("nvmlDeviceGetDeviceHandleFromMigDeviceHandle") {
		if whole, r := d.GetDeviceHandleFromMigDeviceHandle(); r == nvml.SUCCESS {
			c.whole = whole
		}
	}
	return c
}

// link says how the card is attached: the generation that card and slot can
// have, since the one in use drops while the card idles.
func (c *card) link() string {
	if c == nil || !c.has("nvmlDeviceGetMaxPcieLinkGeneration", "nvmlDeviceGetCurrPcieLinkWidth") {
		return ""
	}
	generation, r := c.whole.GetMaxPcieLinkGeneration()
	if r != nvml.SUCCESS {
		return ""
	}
	width, r := c.whole.GetCurrPcieLinkWidth()
	if r != nvml.SUCCESS {
		return ""
	}
	return fmt.Sprintf("PCIe %d.0 x%d", generation, width)
}

// sensors reads what the card has.
func (c *card) sensors() backend.Sensors {
	var s backend.Sensors
	if c == nil {
		return s
	}
	value := func(n uint32, r nvml.Return, scale float64) *float64 {
		if r != nvml.SUCCESS {
			return nil
		}
		v := float64(n) * scale
		return &v
	}
	if c.has("nvmlDeviceGetPowerUsage") {
		n, r := c.whole.GetPowerUsage()
		s.Watts = value(n, r, 1e-3)
	}
	if c.has("nvmlDeviceGetEnforcedPowerLimit") {
		n, r := c.whole.GetEnforcedPowerLimit()
		s.Limit = value(n, r, 1e-3)
	}
	if c.has("nvmlDeviceGetTemperature") {
		n, r := c.whole.GetTemperature(nvml.TEMPERATURE_GPU)
		s.Celsius = value(n, r, 1)
	}
	if c.has("nvmlDeviceGetClockInfo") {
		n, r := c.whole.GetClockInfo(nvml.CLOCK_SM)
		s.MHz = value(n, r, 1)
	}
	if c.has("nvmlDeviceGetTotalEnergyConsumption") {
		if mj, r := c.whole.GetTotalEnergyConsumption(); r == nvml.SUCCESS {
			joules := float64(mj) * 1e-3
			s.Joules = &joules
		}
	}
	if c.has("nvmlDeviceGetCurrentClocksThrottleReasons") {
		if bits, r := c.whole.GetCurrentClocksThrottleReasons(); r == nvml.SUCCESS {
			s.Throttle = throttle(bits)
		}
	}
	return s
}

// throttle names the reasons that keep a card that works below its clocks. Idling,
// and clocks that somebody has set, are none.
func throttle(bits uint64) []string {
	found := []string{}
	for _, r := range []struct {
		bit  uint64
		name string
	}{
		{nvml.ClocksThrottleReasonSwPowerCap, "power limit"},
		{nvml.ClocksThrottleReasonHwSlowdown, "hardware slowdown"},
		{nvml.ClocksEventReasonSwThermalSlowdown, "temperature"},
		{nvml.ClocksThrottleReasonHwThermalSlowdown, "temperature, by hardware"},
		{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "power brake"},
	} {
		if bits&r.bit != 0 {
			found = append(found, r.name)
		}
	}
	return found
}

// process is a process with memory of a card.
type process struct {
	pid   int
	name  string // empty where the system does not tell
	bytes uint64
}

// processes are those with memory of the card, most first. Where NVML does not
// tell of one how much it has, that process is left out.
func (c *card) processes() []process {
	if c == nil {
		return nil
	}
	var infos []nvml.ProcessInfo
	any := func(name string) bool { return c.has(name) || c.has(name+"_v2") || c.has(name+"_v3") }
	if any("nvmlDeviceGetComputeRunningProcesses") {
		some, _ := c.device.GetComputeRunningProcesses()
		infos = append(infos, some...)
	}
	if any("nvmlDeviceGetGraphicsRunningProcesses") {
		some, _ := c.device.GetGraphicsRunningProcesses()
		infos = append(infos, some...)
	}
	var found []process
	for _, i := range infos {
		unknown := i.UsedGpuMemory == ^uint64(0)
		listed := slices.ContainsFunc(found, func(p process) bool { return p.pid == int(i.Pid) })
		if unknown || listed || int(i.Pid) == os.Getpid() {
			continue
		}
		p := process{pid: int(i.Pid), bytes: i.UsedGpuMemory}
		if c.has("nvmlSystemGetProcessName") {
			if path, r := c.library.SystemGetProcessName(p.pid); r == nvml.SUCCESS {
				p.name = path[strings.LastIndexByte(path, '/')+1:]
			}
		}
		found = append(found, p)
	}
	slices.SortStableFunc(found, func(a, b process) int { return cmp.Compare(b.bytes, a.bytes) })
	return found
}

// free is how much of the card's memory is not taken, 0 where NVML does not tell.
func (c *card) free() uint64 {
	if c == nil || !c.has("nvmlDeviceGetMemoryInfo") {
		return 0
	}
	m, r := c.device.GetMemoryInfo()
	if r != nvml.SUCCESS {
		return 0
	}
	return m.Free
}

// lost names a card that no longer answers.
func (m *management) lost() (name string, found bool) {
	if !m.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2") {
		return "", false
	}
	count, _ := m.library.DeviceGetCount()
	for n := range count {
		if _, r := m.library.DeviceGetHandleByIndex(n); r == nvml.ERROR_GPU_IS_LOST {
			return fmt.Sprintf("GPU %d", n), true
		}
	}
	return "", false
}

// withoutInstances names a card that is in MIG mode: CUDA sees none of it until
// it has instances.
func (m *management) withoutInstances() (name string, found bool) {
	if !m.has("nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetMigMode", "nvmlDeviceGetName") {
		return "", false
	}
	count, _ := m.library.DeviceGetCount()
	for n := range count {
		d, r := m.library.DeviceGetHandleByIndex(n)
		if r != nvml.SUCCESS {
			continue
		}
		if mode, _, r := d.GetMigMode(); r == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
			name, _ := d.GetName()
			return name, true
		}
	}
	return "", false
}
