//go:build linux && cgo

package main

import (
	"fmt"
	"strings"
	"testing"

	"drover/internal/sim"
)

// A machine whose driver cannot be used: a command that names a card ends with
// status 4 and the reason, and devices gives the same reason.
func TestNoCard(t *testing.T) {
	for _, c := range []struct {
		library, absent string
		want            string
	}{
		{"/nonexistent/libcuda.so.1", "cuda", "there is no file /nonexistent/libcuda.so.1"},
		{sim.Broken(t, "cuMemAlloc_v2=missing"), "cuda", "no function cuMemAlloc_v2"},
		{sim.Broken(t, "VERSION=11020"), "cuda", "CUDA 11.4 (driver 470) or newer is needed"},
		{sim.Broken(t, "INIT=100"), "cuda", "finds no GPU"},
		{sim.Broken(t, "INIT=999"), "cuda", "modprobe nvidia_uvm"},
		{sim.Broken(t, "MAJOR=6", "MINOR=1"), "cuda:0", "Broken Card has compute capability 6.1, and 7.5 or newer is needed"},
	} {
		env := []string{"DROVER_CUDA_LIBRARY=" + c.library, "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1"}
		for _, spec := range []string{"cuda", "cuda:0", "cpu,cuda:0"} {
			r := command(t, "", env, "--json", "run", "x", "-n", "1", "--device", spec)
			failed, _ := r.object(t)["error"].(map[string]any)
			if r.exit != 4 || failed["code"] != "device" || !strings.Contains(fmt.Sprint(failed["message"], failed["hint"]), c.want) {
				t.Errorf("%s, --device %s: exit %d, %v; want 4 and %q", c.library, spec, r.exit, failed, c.want)
			}
		}
		r := command(t, "", env, "devices")
		if line := "no " + c.absent + ": "; r.exit != 0 || !strings.Contains(r.out, line) || !strings.Contains(r.out, c.want) {
			t.Errorf("%s: devices, exit %d: %q has no %q with %q", c.library, r.exit, r.out, line, c.want)
		}
		doc := command(t, "", env, "devices", "--json").object(t)
		reason, id := "", ""
		for _, a := range doc["absent"].([]any) {
			if a := a.(map[string]any); a["kind"] == "cuda" {
				reason, id = fmt.Sprint(a["reason"], a["hint"]), fmt.Sprint(a["id"])
			}
		}
		if !strings.Contains(reason, c.want) || (c.absent == "cuda:0") != (id == "cuda:0") {
			t.Errorf("%s: devices --json: %q (id %s), want %q", c.library, reason, id, c.want)
		}
		if r := command(t, "", env, "run", "x", "-n", "1", "--device", "auto"); r.exit != 0 {
			t.Errorf("%s: --device auto: exit %d, %s", c.library, r.exit, r.errout)
		}
	}
}

// A card that is left out does not hide the others; naming it says why it is.
func TestCardLeftOut(t *testing.T) {
	env := []string{"DROVER_CUDA_LIBRARY=" + sim.Broken(t, "CARDS=2", "MAJOR=5", "MINOR=2"), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1"}
	r := command(t, "", env, "devices")
	if !strings.Contains(r.out, "cuda:0  Broken Card") || !strings.Contains(r.out, "no cuda:1: Broken Card has compute capability 5.2") {
		t.Errorf("devices: %q", r.out)
	}
	r = command(t, "", env, "run", "x", "--device", "cuda:1")
	if r.exit != 4 || !strings.Contains(r.errout, "cuda:1 is not available: Broken Card has compute capability 5.2") {
		t.Errorf("exit %d, %q", r.exit, r.errout)
	}
	r = command(t, "", env, "run", "x", "--device", "cuda:2")
	if r.exit != 4 || !strings.Contains(r.errout, "here are cuda:0") {
		t.Errorf("exit %d, %q", r.exit, r.errout)
	}
}

// Work on the CPU alone does not open the driver.
func TestCPUAlone(t *testing.T) {
	env := []string{"DROVER_CUDA_LIBRARY=" + sim.Broken(t, "EXIT=77")}
	if r := command(t, "", env, "run", "x", "-n", "1", "--device", "cpu"); r.exit != 0 {
		t.Errorf("exit %d, %q", r.exit, r.errout)
	}
	if r := command(t, "", env, "devices"); r.exit != 77 {
		t.Errorf("devices did not open the driver: exit %d, %q", r.exit, r.out)
	}
}

// What the driver and NVML tell of a card is what devices shows.
func TestCardShown(t *testing.T) {
	env := []string{"DROVER_CUDA_LIBRARY=" + sim.Broken(t), "DROVER_NVML_LIBRARY=" + sim.NVML(t),
		"DROVER_SIM_NVML=uuid=GPU-00112233-4455-6677-8899-aabbccddee00,watts=120.5,celsius=44,mhz=1980,pcie=4x16,smi=570.86.10"}
	doc := command(t, "", env, "devices", "--json").object(t)
	card, _ := doc["devices"].([]any)[0].(map[string]any)
	for key, want := range map[string]any{"id": "cuda:0", "kind": "cuda", "name": "Broken Card", "uuid": "GPU-00112233-4455-6677-8899-aabbccddee00", "isa": "sm_80",
		"driver": "570.86.10 (CUDA 12.8)", "link": "PCIe 4.0 x16", "cores": 1.0, "memory_total": float64(1 << 30), "memory_free": float64(1 << 20),
		"watts": 120.5, "celsius": 44.0, "mhz": 1980.0} {
		if card[key] != want {
			t.Errorf("%s: got %v, want %v", key, card[key], want)
		}
	}
	r := command(t, "", append(env, "DROVER_NVML_LIBRARY="+sim.NVML(t, "nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrPcieLinkWidth")), "devices", "--json")
	card, _ = r.object(t)["devices"].([]any)[0].(map[string]any)
	if _, has := card["watts"]; has || card["celsius"] != 44.0 || card["link"] != nil {
		t.Errorf("without two functions of NVML: exit %d, %v", r.exit, card)
	}
	if r := command(t, "", env, "run", "x", "--device", "cuda:gpu-00112233-4455-6677-8899-AABBCCDDEE00"); strings.Contains(r.errout, "not available") {
		t.Errorf("the card is not found by its UUID: %q", r.errout)
	}
}
