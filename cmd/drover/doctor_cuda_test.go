//go:build linux && cgo

package main

import (
	"fmt"
	"strings"
	"testing"

	"drover/internal/sim"
)

// doctored gives the environment of software cards.
func doctored(t *testing.T, cards string) []string {
	return []string{"DROVER_CUDA_LIBRARY=" + sim.CUDA(t), "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1", "DROVER_SIM_CUDA=" + cards}
}

// A card of each kind is right, by itself and beside others.
func TestDoctorCards(t *testing.T) {
	r := command(t, "", doctored(t, "name=A,cc=7.5;name=B,cc=8.0;name=C,cc=9.0"), "doctor", "--device", "cuda,cpu")
	for _, want := range []string{"PASS    cuda:0  A, sm_75", "PASS    cuda:1  B, sm_80", "PASS    cuda:2  C, sm_90a", "PASS    cpu "} {
		if r.exit != 0 || !strings.Contains(r.out, want) {
			t.Errorf("exit %d, %q, %q: no %q", r.exit, r.out, r.errout, want)
		}
	}
}

// A kernel, a link or a card that is faulty fails by name, with status 6; the card
// beside it passes.
func TestDoctorFaults(t *testing.T) {
	for i, c := range []struct {
		fault  string
		check  string // the first that fails
		want   string // of its detail
		hint   string
		passed int // checks of that card before it
	}{
		{"wrong=link", "memory", "embed: 1 of 131072 values", "faulty card", 1},
		{"wrong=embed", "memory", "embed: 16 of 131072 values", "faulty card", 1},
		{"wrong=matmul_q4_k", "prompt Q4_K", "wrong from layer 0 q on", "faulty card", 11},
		{"wrong=matvec_q6_k", "decode Q6_K", "wrong from layer 0 q on", "faulty card", 15},
		{"wrong=top", "greedy F16", "the largest logit of row 0", "faulty card", 4},
		{"fail=214:matmul_q8_0", "prompt Q8_0", "CUDA_ERROR_ECC_UNCORRECTABLE, 214", "nvidia-smi -q -d ECC", 5},
		{"fail=709:matvec", "decode F16", "device lost", "Xid", 3},
		{"mem=4MiB", "memory", "4.0 MiB are free", "nvidia-smi lists it", 1},
	} {
		text := i%4 == 0 // and of two cards; the others are the same
		env := doctored(t, c.fault)
		if text {
			env = doctored(t, c.fault+";name=Good")
		}
		r := command(t, "", env, "doctor", "--device", "cuda", "--json")
		checks := r.checksOf(t, "cuda:0")
		if len(checks) <= c.passed {
			t.Errorf("%s: %s", c.fault, r.out)
			continue
		}
		bad := checks[c.passed]
		if r.exit != 6 || bad["check"] != c.check || bad["ok"] != false || !strings.Contains(fmt.Sprint(bad["detail"]), c.want) || !strings.Contains(fmt.Sprint(bad["hint"]), c.hint) {
			t.Errorf("%s: exit %d, %v; want 6, %s with %q and %q", c.fault, r.exit, bad, c.check, c.want, c.hint)
		}
		if failed, _ := r.object(t)["error"].(map[string]any); failed["code"] != "verify" || failed["device"] != "cuda:0" {
			t.Errorf("%s: %v", c.fault, failed)
		}
		for _, good := range append(checks[:c.passed], r.checksOf(t, "cuda:1")...) {
			if good["ok"] != true {
				t.Errorf("%s: %v", c.fault, good)
			}
		}
		if !text {
			continue
		}
		r = command(t, "", env, "doctor", "--device", "cuda")
		if r.exit != 6 || !strings.Contains(r.out, "FAIL    cuda:0  "+c.check+": ") || !strings.Contains(r.out, "PASS    cuda:1  Good") || r.errout != "drover: checks failed: cuda:0\n" {
			t.Errorf("%s: exit %d, %q, %q", c.fault, r.exit, r.out, r.errout)
		}
	}
}

// What keeps the driver from starting is told alike by doctor, devices and run, each
// with its remedy: status 6 where a card was not asked for, 4 where it was.
func TestDoctorDriver(t *testing.T) {
	lost := []string{"DROVER_NVML_LIBRARY=" + sim.NVML(t), "DROVER_SIM_NVML=fallen=1"}
	for _, c := range []struct {
		env    []string
		device string
		absent bool
		want   string
		hint   string
	}{
		{doctored(t, "init=803"), "cuda", false, "different versions", "rmmod nvidia_uvm"},
		{doctored(t, "init=804"), "cuda", false, "compatibility package", "LD_LIBRARY_PATH"},
		{doctored(t, "init=802"), "cuda", false, "not ready", "nvidia-fabricmanager"},
		{doctored(t, "init=999"), "cuda", false, "does not start", "modprobe nvidia_uvm"},
		{doctored(t, "init=1"), "cuda", false, "does not start", "nvidia-smi works"},
		{doctored(t, "none"), "cuda", true, "finds no GPU", "nvidia-smi"},
		{append(doctored(t, "cc=8.0"), "CUDA_VISIBLE_DEVICES=4"), "cuda", true, `CUDA_VISIBLE_DEVICES="4" hides them`, "unset CUDA_VISIBLE_DEVICES"},
		{append(doctored(t, "init=999"), lost...), "cuda", false, "GPU 0 has fallen off the bus", "Xid"},
		{doctored(t, "driver=11020"), "cuda", false, "CUDA 11.4 (driver 470) or newer is needed", "470 or newer"},
		{doctored(t, "name=Old,cc=6.1"), "cuda:0", false, "Old has compute capability 6.1", "Turing"},
		{doctored(t, "cc=8.0;name=Old,cc=6.1"), "cuda:1", false, "Old has compute capability 6.1", "CUDA_VISIBLE_DEVICES hides this one"},
	} {
		exit, word := 6, "FAIL  "
		if c.absent {
			exit, word = 0, "absent"
		}
		r := command(t, "", c.env, "doctor")
		if r.exit != exit || !strings.Contains(r.out, word+"  "+c.device+" ") || !strings.Contains(r.out, c.want) || !strings.Contains(r.out, c.hint) || !strings.Contains(r.out, "PASS    cpu") {
			t.Errorf("%q: doctor, exit %d: %q, %q", c.env, r.exit, r.out, r.errout)
		}
		r = command(t, "", c.env, "doctor", "--device", c.device)
		if r.exit != 4 || !strings.Contains(r.out, "FAIL    "+c.device+" ") || !strings.Contains(r.out, c.want) || !strings.Contains(r.out, c.hint) {
			t.Errorf("%q: doctor of it alone, exit %d: %q", c.env, r.exit, r.out)
		}
		if r = command(t, "", c.env, "devices"); !strings.Contains(r.out, c.want) || !strings.Contains(r.out, c.hint) {
			t.Errorf("%q: devices, exit %d: %q", c.env, r.exit, r.out)
		}
		if r = command(t, "", c.env, "run", "x", "--device", c.device); r.exit != 4 || !strings.Contains(r.errout, c.want) || !strings.Contains(r.errout, c.hint) {
			t.Errorf("%q: run, exit %d: %q", c.env, r.exit, r.errout)
		}
	}
	r := command(t, "", append(doctored(t, "cc=8.0;cc=8.0"), "CUDA_VISIBLE_DEVICES=0"), "run", "x", "--device", "cuda:1")
	if r.exit != 4 || !strings.Contains(r.errout, `CUDA_VISIBLE_DEVICES="0" shows these alone`) {
		t.Errorf("a card that is hidden: exit %d, %q", r.exit, r.errout)
	}
}

// A card that another process has for itself, and one whose driver's compiler fails,
// in one line each.
func TestDoctorOpens(t *testing.T) {
	for _, c := range []struct{ library, want, hint string }{
		{sim.Broken(t, "RETAIN=46"), "another process has the card for itself", "sudo nvidia-smi -c 0"},
		{sim.Broken(t, "RETAIN=2"), "open cuda:0: cuda:0: needs 256.0 MiB", "nvidia-smi lists it"},
		{sim.Broken(t), "CUDA_ERROR_OF_TEST, 218", "nvidia-smi"},
	} {
		r := command(t, "", []string{"DROVER_CUDA_LIBRARY=" + c.library, "DROVER_NVML_LIBRARY=/nonexistent/libnvidia-ml.so.1"}, "doctor", "--device", "cuda")
		lines := strings.Split(strings.TrimSpace(r.out), "\n")
		if r.exit != 6 || len(lines) != 2 || !strings.HasPrefix(lines[0], "FAIL    cuda:0  memory: ") || !strings.Contains(lines[0], c.want) || !strings.Contains(lines[1], c.hint) {
			t.Errorf("exit %d, %q; want %q, %q", r.exit, r.out, c.want, c.hint)
		}
	}
}

// A card that another process fills says how much is free, and who has the rest.
func TestDoctorFull(t *testing.T) {
	env := append(doctored(t, "uuid=GPU-00112233-4455-6677-8899-aabbccddee00,mem=4MiB"), "DROVER_NVML_LIBRARY="+sim.NVML(t),
		"DROVER_SIM_NVML=uuid=GPU-00112233-4455-6677-8899-aabbccddee00,mem=8GiB,process=4711:trainer:7.5GiB")
	r := command(t, "", env, "doctor", "--device", "cuda")
	if r.exit != 6 || !strings.Contains(r.out, "4.0 MiB are free; 7.5 GiB are used by trainer (pid 4711)") {
		t.Errorf("exit %d, %q", r.exit, r.out)
	}
}
