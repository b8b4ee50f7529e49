package cpu

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"drover/backend"
)

// sensors are what /sys tells of the processors. Their energy is that of RAPL
// (Documentation/power/powercap in Linux): counters that begin again after some
// minutes, so that they must be read more often than that. Most systems let only
// root read them.
type sensors struct {
	root string // "/sys"

	once sync.Once
	// files, found once
	energy, clocks, warmth []string
	throttles              []string

	mu      sync.Mutex
	last    []uint64 // of energy, µJ
	joules  float64
	counted uint64 // times that the processors were throttled; valid after the first reading
	read    bool
}

func newSensors(root string) *sensors { return &sensors{root: root} }

// find looks up which files there are.
func (s *sensors) find() {
	glob := func(pattern string) []string {
		found, _ := filepath.Glob(filepath.Join(s.root, pattern)) // the only error is of the pattern
		return found
	}
	for _, zone := range glob("class/powercap/*") {
		if name, _ := os.ReadFile(filepath.Join(zone, "name")); strings.HasPrefix(string(name), "package-") {
			s.energy = append(s.energy, zone)
		}
	}
	s.clocks = glob("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
	for _, chip := range glob("class/hwmon/hwmon*") {
		name, _ := os.ReadFile(filepath.Join(chip, "name"))
		if slices.Contains([]string{"coretemp", "k10temp", "zenpower", "cpu_thermal"}, strings.TrimSpace(string(name))) {
			s.warmth = append(s.warmth, filepath.Join(chip, "temp1_input"))
		}
	}
	s.throttles = glob("devices/system/cpu/cpu*/thermal_throttle/package_throttle_count")
}

// now reads everything: the fastest core's clock, the warmest processor.
func (s *sensors) now() backend.Sensors {
	s.once.Do(s.find)
	var r backend.Sensors
	r.MHz = highest(s.clocks, 1e-3)
	r.Celsius = highest(s.warmth, 1e-3)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.add() {
		joules := s.joules
		r.Joules = &joules
	}
	if n := highest(s.throttles, 1); n != nil {
		r.Throttle = []string{}
		if count := uint64(*n); s.read && count > s.counted {
			r.Throttle = append(r.Throttle, "temperature")
		}
		s.counted, s.read = uint64(*n), true
	}
	return r
}

// add counts the energy since the last reading; false: it cannot be read, of one
// processor or more.
func (s *sensors) add() bool {
	var values []uint64
	for _, zone := range s.energy {
		uj, ok := number(filepath.Join(zone, "energy_uj"))
		if !ok {
			return false
		}
		values = append(values, uj)
	}
	for i, uj := range values {
		if s.last == nil {
			break
		}
		if uj < s.last[i] { // begun again
			most, ok := number(filepath.Join(s.energy[i], "max_energy_range_uj"))
			if !ok || most < s.last[i] {
				return false
			}
			uj += most
		}
		s.joules += float64(uj-s.last[i]) * 1e-6
	}
	s.last = values
	return len(values) > 0
}

// highest of the numbers in files, or nil.
func highest(files []string, scale float64) *float64 {
	var found *float64
	for _, f := range files {
		if n, ok := number(f); ok {
			if v := float64(n) * scale; found == nil || v > *found {
				found = &v
			}
		}
	}
	return found
}

func number(file string) (uint64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
	return n, err == nil
}
