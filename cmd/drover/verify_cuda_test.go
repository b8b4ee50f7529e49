//go:build linux && cgo

package main

import (
	"fmt"
	"strings"
	"testing"
)

const smallVerified = "synthetic:dim=256,layers=2,heads=4,kv=2,ffn=256,vocab=331"

// Cards of every tier are right, alone, together and beside the CPU.
func TestVerifyCards(t *testing.T) {
	env := doctored(t, "name=A,cc=7.5;name=B,cc=8.0;name=C,cc=9.0")
	for _, args := range []string{
		":Q4_0 --device cuda:0", ":Q4_K -ctk q8_0 -ctv q8_0 --device cuda:1", ":Q6_K --device cuda:2", ":BF16 --device cuda:1", ":IQ3_S --device cuda:1",
		",experts=8:MXFP4 --device cuda:2", ":Q8_0 --device cuda --split 1,1,1", ":Q4_0 --device cuda:1,cpu -ngl 1", ",experts=8:Q8_0 --device cuda:1,cpu -ngl all --n-cpu-moe 2",
		":Q4_0 --device cuda:1 --against cpu", ":F16 -ctk f32 -ctv f32 --device cuda:1 --against cpu",
	} {
		fields := strings.Fields(args)
		r := command(t, "", env, append([]string{"verify", "-m", smallVerified + fields[0]}, fields[1:]...)...)
		if r.exit != 0 || !strings.Contains(r.out, "cuda:") || strings.Contains(args, "cpu -n") && !strings.Contains(r.out, "cpu ") {
			t.Errorf("%s: exit %d, %s%s", args, r.exit, r.out, r.errout)
		}
	}
}

// A kernel with one wrong bit is found with status 6, and what it computes is named.
func TestVerifyWrongKernel(t *testing.T) {
	for kernel, want := range map[string]string{
		"matvec": "is wrong from q on", "matmul": "is wrong from q on", "rope": "is wrong from q on", "attention": "is wrong from attention on",
		"act": "layer 0 feed-forward on cuda:0 is wrong from act on", "embed": "embedding on cuda:0 is wrong from embed on", "top": "its kernel finds token",
	} {
		r := command(t, "", doctored(t, "wrong="+kernel), "verify", "-m", smallVerified+":Q4_0", "--device", "cuda", "--json")
		doc := r.object(t)
		failed, _ := doc["error"].(map[string]any)
		if r.exit != 6 || failed["code"] != "verify" || !strings.Contains(fmt.Sprint(failed["message"]), want) || doc["ok"] != false || len(doc["blocks"].([]any)) != 6 {
			t.Errorf("%s: exit %d, %v; want 6 and %q", kernel, r.exit, failed, want)
		}
		if first, _ := doc["first_wrong"].(map[string]any); kernel != "top" && (failed["device"] != "cuda:0" || first["device"] != "cuda:0" || first["ok"] != false) {
			t.Errorf("%s: %v, %v", kernel, failed, first)
		}
	}
	r := command(t, "", doctored(t, "wrong=matvec;name=Good"), "verify", "-m", smallVerified+":Q4_0", "--device", "cuda", "--split", "1,1")
	if r.exit != 6 || !strings.Contains(r.out, "FAIL  layer 0 attention        cuda:0") || !strings.Contains(r.out, "pass  layer 1 attention        cuda:1") || !strings.Contains(r.errout, "layer 0 attention on cuda:0 is wrong from q on") {
		t.Errorf("one card of two: exit %d, %s%s", r.exit, r.out, r.errout)
	}
	if r := command(t, "", doctored(t, "wrong=matvec"), "verify", "-m", smallVerified+":Q4_0", "--device", "cuda", "--against", "cpu"); r.exit != 6 {
		t.Errorf("against the CPU: exit %d, %s%s", r.exit, r.out, r.errout)
	}
}

// A card that is lost, too small or not here ends with its own status.
func TestVerifyCardErrors(t *testing.T) {
	for _, c := range []struct {
		cards, args string
		exit        int
		want        string
	}{
		{"fail=709:matvec", "--device cuda", 4, "device lost"},
		{"mem=2MiB", "--device cuda:0", 5, "cuda:0: needs "},
		{"cc=8.0", "--device cuda:3", 4, "cuda:3"},
	} {
		r := command(t, "", doctored(t, c.cards), append([]string{"verify", "-m", smallVerified + ":Q8_0"}, strings.Fields(c.args)...)...)
		if r.exit != c.exit || !strings.Contains(r.errout, c.want) {
			t.Errorf("%s: exit %d, %s%s; want %d and %q", c.cards, r.exit, r.out, r.errout, c.exit, c.want)
		}
	}
}
