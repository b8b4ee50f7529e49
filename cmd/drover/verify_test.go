package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/device"
)

const verifyModel = "synthetic:dim=256,layers=3,heads=4,kv=2,ffn=512,vocab=331"

// opsOf are the ops of a block in verify's JSON.
func (r result) opsOf(t *testing.T, block string) (ops []map[string]any) {
	t.Helper()
	all, _ := r.object(t)["blocks"].([]any)
	for _, b := range all {
		if b := b.(map[string]any); b["name"] == block {
			for _, o := range b["ops"].([]any) {
				ops = append(ops, o.(map[string]any))
			}
		}
	}
	return ops
}

// What was verified is told, for people and in JSON.
func TestVerify(t *testing.T) {
	r := command(t, "", nil, "verify", "-m", verifyModel+":Q4_K_M", "--seed", "5")
	for _, want := range []string{"against ref: all layers (3)", "up to position 1035, seed 5\n", "pass  embedding", "pass  layer 2 feed-forward", "pass  logits of all blocks", "KL divergence"} {
		if r.exit != 0 || !strings.Contains(r.out, want) {
			t.Errorf("exit %d, %q, %q: no %q", r.exit, r.out, r.errout, want)
		}
	}
	r = command(t, "", nil, "--json", "verify", "-m", verifyModel+":Q4_0", "-b", "16", "-ctk", "q8_0")
	doc := r.object(t)
	if r.exit != 0 || doc["ok"] != true || doc["against"] != "ref" || doc["model_layers"] != 3.0 || len(doc["blocks"].([]any)) != 8 {
		t.Errorf("exit %d, %s", r.exit, r.out)
	}
	var names []string
	for _, o := range r.opsOf(t, "layer 1 attention") {
		names = append(names, fmt.Sprint(o["op"], " ", o["fused"]))
		if nmse, ok := o["nmse"].(float64); !ok || nmse > o["nmse_limit"].(float64) || o["where"] == "" || o["rows"] != 89.0 {
			t.Errorf("%v", o)
		}
	}
	if want := []string{"q false", "k false", "v false", "attention false", "attn_out false", "attn_out true"}; !slices.Equal(names, want) {
		t.Errorf("ops %q, want %q", names, want)
	}
	if q := r.opsOf(t, "layer 1 attention")[0]; fmt.Sprint(q["tensors"], q["types"]) != "[blk.1.attn_q.weight] [Q4_0]" {
		t.Errorf("%v", q)
	}
	logits := doc["logits"].(map[string]any)
	if logits["together_nmse"] != 0.0 || logits["top1"].(float64) < 25 || logits["kl_mean"].(float64) > 1e-2 || doc["worst"].(map[string]any)["block"] == nil || doc["first_wrong"] != nil {
		t.Errorf("%v, worst %v", logits, doc["worst"])
	}
}

// A model of the user's own, here the demo: a file with norms and scales of training.
func TestVerifyDemo(t *testing.T) {
	if r := command(t, "", nil, "verify", "--full"); r.exit != 0 || !strings.Contains(r.out, "pass  logits") {
		t.Errorf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	r := command(t, "", nil, "verify", "-c", "40")
	if r.exit != 0 || !strings.Contains(r.out, "note  the context is 40: no position lies beyond the first page") {
		t.Errorf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
	if r := command(t, "", nil, "verify", "-b", "4"); r.exit != 0 || !strings.Contains(r.out, "kernels for prompts are not verified") {
		t.Errorf("exit %d, %s%s", r.exit, r.out, r.errout)
	}
}

// Every kernel set of this CPU is right, on repacked and on raw weights.
func TestVerifySets(t *testing.T) {
	for _, isa := range []string{"generic", "avx2", "avxvnni", "avx512", "amx", "neon", "i8mm"} {
		if _, err := device.Find("cpu", device.Options{ISA: isa}); err != nil {
			continue
		}
		for _, args := range []string{":F16", ":Q4_0 -ctk q8_0 -ctv q8_0", ":Q4_K --no-repack", ":Q6_K -t 3", ",experts=8:MXFP4"} {
			fields := strings.Fields(verifyModel + args)
			if args == ":F16" { // long sums
				fields[0] = "synthetic:dim=64,layers=1,heads=2,ffn=28672,vocab=331:F16"
			}
			r := command(t, "", []string{"DROVER_CPU=" + isa}, append([]string{"verify", "-m"}, fields...)...)
			if r.exit != 0 {
				t.Errorf("%s, %s: exit %d, %s%s", isa, args, r.exit, r.out, r.errout)
			}
		}
	}
}

// A reference without the memory for a block says whose memory that is, with status 5.
func TestVerifyReferenceMemory(t *testing.T) {
	short := &backend.MemoryError{Device: "ref", Need: 2 << 30, Free: 1 << 30}
	f := classify(referenceError(fmt.Errorf("load head for the reference: %w", short)))
	if f.exit != 5 || f.device != "ref" || !strings.Contains(f.hint, "--against cpu") || !strings.Contains(f.Error(), "2048.0 MiB") {
		t.Errorf("%+v", f)
	}
	if f := classify(referenceError(&backend.MemoryError{Device: "cuda:0"})); f.exit != 5 || f.device != "cuda:0" || strings.Contains(f.hint, "reference") {
		t.Errorf("%+v", f)
	}
}
