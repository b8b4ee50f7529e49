package cpu

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"drover/backend"
)

// A system's files, with two processors whose counters begin again at 1000 J.
func TestSensors(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for zone, name := range map[string]string{"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"} {
		put("class/powercap/"+zone+"/name", name)
		put("class/powercap/"+zone+"/energy_uj", "900000000")
		put("class/powercap/"+zone+"/max_energy_range_uj", "1000000000")
	}
	put("devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000")
	put("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "4250500")
	put("devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "7")
	put("class/hwmon/hwmon0/name", "nvme")
	put("class/hwmon/hwmon0/temp1_input", "90000")
	put("class/hwmon/hwmon1/name", "k10temp")
	put("class/hwmon/hwmon1/temp1_input", "61500")

	s := newSensors(root)
	is := func(what string, got *float64, want float64) {
		t.Helper()
		if got == nil || *got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	now := s.now()
	is("MHz", now.MHz, 4250.5)
	is("Celsius", now.Celsius, 61.5)
	is("joules at first", now.Joules, 0)
	if now.Throttle == nil || len(now.Throttle) > 0 || now.Watts != nil || now.Limit != nil {
		t.Errorf("%+v", now)
	}
	put("class/powercap/intel-rapl:0/energy_uj", "950000000")
	put("class/powercap/intel-rapl:1/energy_uj", "20000000") // 120 J on
	put("devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "8")
	now = s.now()
	is("joules", now.Joules, 170)
	if !reflect.DeepEqual(now.Throttle, []string{"temperature"}) {
		t.Errorf("throttled for %q", now.Throttle)
	}
	if now = s.now(); len(now.Throttle) > 0 {
		t.Errorf("throttled for %q, and nothing has happened since", now.Throttle)
	}
	if err := os.Remove(filepath.Join(root, "class/powercap/intel-rapl:1/energy_uj")); err != nil {
		t.Fatal(err)
	}
	if now = s.now(); now.Joules != nil {
		t.Errorf("%v J of two processors, of which one does not tell", *now.Joules)
	}
	if now := newSensors(t.TempDir()).now(); !reflect.DeepEqual(now, backend.Sensors{}) {
		t.Errorf("a system that tells nothing: %+v", now)
	}
}
