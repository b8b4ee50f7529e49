package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// greedy runs the demo model with --json.
func greedy(t *testing.T, env []string, args ...string) map[string]any {
	t.Helper()
	r := command(t, "", env, append([]string{"run", "--temp", "0", "--json"}, args...)...)
	if r.exit != 0 {
		t.Fatalf("drover run %q: exit %d, %s", args, r.exit, r.errout)
	}
	return r.object(t)
}

// joined writes ids as --tokens wants them.
func joined(ids any) string {
	var words []string
	for _, id := range ids.([]any) {
		words = append(words, fmt.Sprint(id))
	}
	return strings.Join(words, ",")
}

// demoFile is the demo model as a file of its own, as convert writes it.
func demoFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo.gguf")
	if r := command(t, "", nil, "convert", "-o", path); r.exit != 0 || r.out != "" {
		t.Fatalf("convert: exit %d, %s", r.exit, r.errout)
	}
	return path
}

// The object has exactly the fields of the contract.
func TestRunJSON(t *testing.T) {
	doc := greedy(t, nil, "Once upon a time", "-n", "8")
	keys := func(v any) []string {
		var names []string
		for k := range v.(map[string]any) {
			names = append(names, k)
		}
		slices.Sort(names)
		return names
	}
	plan := doc["plan"].(map[string]any)
	stage := plan["stages"].([]any)[0].(map[string]any)
	for _, c := range []struct {
		v    any
		want string
	}{
		{doc, "model plan prompt_tokens schema stop text timings tokens"},
		{doc["model"], "arch bytes name params type"},
		{plan, "advice binding ctx ctx_wanted left_out limit predicted_at predicted_prompt_tokens_per_s predicted_tokens_per_s stages"},
		{stage, "blocks cache device free host isa layers left predicted_ms scratch share weights"},
		{doc["timings"], "bandwidth_share decode_ms decode_tokens_per_s load_ms prompt_ms prompt_tokens_per_s"},
	} {
		if got := strings.Join(keys(c.v), " "); got != c.want {
			t.Errorf("got fields %s, want %s", got, c.want)
		}
	}
	if len(doc["tokens"].([]any)) != 8 || doc["stop"] != "length" || !strings.HasPrefix(doc["text"].(string), ", there was a little") {
		t.Errorf("got %v %v %q", doc["tokens"], doc["stop"], doc["text"])
	}
	if stage["device"] != "cpu" || !reflect.DeepEqual(stage["layers"], []any{0.0, 5.0}) || plan["ctx"] != 512.0 {
		t.Errorf("got plan %v", plan)
	}
}

// The text is the same whatever the order of flags, wherever it comes from,
// and whether it is printed or told in JSON.
func TestRunSameText(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "prompt.txt")
	if err := os.WriteFile(file, []byte("Once upon a time\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := greedy(t, nil, "-n", "12", "Once upon a time")
	for _, c := range []struct {
		input string
		env   []string
		args  []string
	}{
		{args: []string{"run", "Once upon a time", "-n", "12", "--temp=0"}},
		{args: []string{"run", "--n", "12", "-temp", "0", "--", "Once upon a time"}},
		{args: []string{"run", "-p", "Once upon a time", "--predict=12", "--temp", "0"}},
		{args: []string{"run", "-f", file, "-n", "12", "--temp", "0"}},
		{args: []string{"run", "-f", "-", "-n", "12", "--temp", "0"}, input: "Once upon a time\n"},
		{args: []string{"run", "-n", "12", "--temp", "0"}, input: "Once upon a time"},
		{args: []string{"run", "--tokens", joined(want["prompt_tokens"]), "-n", "12", "--temp", "0"}},
		{args: []string{"run", "--raw", "-t", "1", "-b", "2", "Once upon a time", "-n", "12", "--temp", "0"}},
		{args: []string{"run"}, env: []string{"DROVER_PROMPT=Once upon a time", "DROVER_PREDICT=12", "DROVER_TEMP=0"}},
		{args: []string{"run", "Once upon a time", "-n", "12"}, env: []string{"DROVER_PROMPT=else", "DROVER_PREDICT=3", "DROVER_TEMP=0"}},
	} {
		r := command(t, c.input, c.env, c.args...)
		if r.exit != 0 || r.out != want["text"].(string)+"\n" {
			t.Errorf("%v drover %q: exit %d, %q, want %q; %s", c.env, c.args, r.exit, r.out, want["text"], r.errout)
		}
	}
}

func TestRunSampling(t *testing.T) {
	run := func(args ...string) string {
		r := command(t, "", nil, append([]string{"run", "One day", "-n", "24"}, args...)...)
		if r.exit != 0 {
			t.Fatalf("%q: exit %d, %s", args, r.exit, r.errout)
		}
		return r.out
	}
	if a, b := run("-s", "7"), run("--seed", "7"); a != b {
		t.Errorf("the same seed gives %q and %q", a, b)
	}
	other := false
	for seed := range 5 {
		other = other || run("-s", fmt.Sprint(seed), "--temp", "1.5") != run("-s", fmt.Sprint(seed+100), "--temp", "1.5")
	}
	if !other {
		t.Error("no seed makes a difference")
	}
	if a, b := run("--top-k", "1", "-s", "3"), run("--temp", "0"); a != b {
		t.Errorf("--top-k 1 gives %q, greedy %q", a, b)
	}
	if a, b := run("--temp", "0", "--repeat-penalty", "1.8"), run("--temp", "0"); a == b {
		t.Errorf("--repeat-penalty changes nothing of %q", a)
	}
}

func TestRunStops(t *testing.T) {
	whole := greedy(t, nil, "Once upon a time")
	if whole["stop"] != "eos" {
		t.Errorf("the story ends by %v", whole["stop"])
	}
	stopped := greedy(t, nil, "Once upon a time", "--stop", "nobody, ever", "--stop", "Jane was cur")
	if stopped["stop"] != "stop" || stopped["text"] != ", there was a little girl named Jane. " {
		t.Errorf("--stop: %v, %q", stopped["stop"], stopped["text"])
	}
	n := len(whole["tokens"].([]any))
	further := greedy(t, nil, "Once upon a time", "--ignore-eos", "-n", fmt.Sprint(n+3))
	if got, end := further["tokens"].([]any), whole["tokens"].([]any); len(got) != n+3 || !reflect.DeepEqual(got[:n], end) || further["stop"] != "length" {
		t.Errorf("--ignore-eos: %d tokens, %v", len(got), further["stop"])
	}
	full := command(t, "", nil, "run", "Once upon a time", "--temp", "0", "-c", "20")
	if full.exit != 0 || !strings.Contains(full.errout, "context of 20 positions is full") {
		t.Errorf("-c 20: exit %d, %s", full.exit, full.errout)
	}
	empty := greedy(t, nil, "", "-n", "4")
	if !reflect.DeepEqual(empty["prompt_tokens"], []any{1.0}) || len(empty["tokens"].([]any)) != 4 {
		t.Errorf("empty prompt: %v", empty)
	}
}

// The order of rank: one prompt of the command line goes before those of the
// environment.
func TestRunTwoPrompts(t *testing.T) {
	r := command(t, "", []string{"DROVER_PROMPT=a", "DROVER_TOKENS=1,2"}, "run", "-n", "1")
	if r.exit != 2 || !strings.Contains(r.errout, "DROVER_TOKENS") {
		t.Errorf("two in the environment: exit %d, %s", r.exit, r.errout)
	}
	r = command(t, "", []string{"DROVER_PROMPT=a", "DROVER_TOKENS=1,2"}, "run", "-n", "1", "b")
	if r.exit != 0 {
		t.Errorf("one on the command line: exit %d, %s", r.exit, r.errout)
	}
	r = command(t, "", nil, "run", "-n", "1", "b", "--system", "be kind")
	if r.exit != 2 || !strings.Contains(r.errout, "template") {
		t.Errorf("--system without a template: exit %d, %s", r.exit, r.errout)
	}
}

// Every flag that says how to compute is obeyed, and the text stays sane.
func TestRunComputeFlags(t *testing.T) {
	file := demoFile(t)
	want := greedy(t, nil, "-m", file, "--raw", "Once upon a time", "-n", "8")["tokens"]
	for _, args := range [][]string{
		{"-ctk", "f32", "-ctv", "f32"}, {"-ctk", "q8_0", "-ctv", "q8_0"}, {"--cache-type-k=f32"},
		{"--no-repack"}, {"--mmap=false"}, {"-b", "1"}, {"-t", "2"}, {"-c", "64"}, {"--fit=false"},
		{"-ngl", "0"}, {"--n-cpu-moe", "0"}, {"--split", "1"}, {"--device", "cpu"}, {"--rope-freq-base", "10000"}, {"--rope-freq-scale", "1"},
	} {
		got := greedy(t, nil, append([]string{"-m", file, "--raw", "Once upon a time", "-n", "8"}, args...)...)
		if !reflect.DeepEqual(got["tokens"], want) {
			t.Errorf("%q: tokens %v, want %v", args, got["tokens"], want)
		}
	}
	for _, args := range [][]string{{"--rope-freq-base", "100"}, {"--rope-freq-scale", "0.25"}} {
		got := greedy(t, nil, append([]string{"-m", file, "--raw", "Once upon a time, there was a", "-n", "8"}, args...)...)
		if reflect.DeepEqual(got["tokens"], greedy(t, nil, "-m", file, "--raw", "Once upon a time, there was a", "-n", "8")["tokens"]) {
			t.Errorf("%q changes nothing", args)
		}
	}
	if got := greedy(t, []string{"DROVER_CPU=generic"}, "Once upon a time", "-n", "8"); got["plan"].(map[string]any)["stages"].([]any)[0].(map[string]any)["isa"] != "generic" {
		t.Errorf("DROVER_CPU=generic: %v", got["plan"])
	}
	small := greedy(t, nil, "-m", file, "--raw", "Hi", "-n", "1", "-c", "64")["plan"].(map[string]any)
	if small["ctx"] != 64.0 || small["limit"] != "flag" {
		t.Errorf("-c 64: plan %v", small)
	}
	r := command(t, "", nil, "run", "Once", "-n", "8", "--verbose")
	for _, word := range []string{"predicted", "weights", "tokens/s", "bandwidth"} {
		if r.exit != 0 || !strings.Contains(r.errout, word) {
			t.Errorf("--verbose: exit %d, no %q in %q", r.exit, word, r.errout)
		}
	}
}

// A model file's own template is applied, the demo continues the text.
func TestRunTemplate(t *testing.T) {
	file := demoFile(t)
	demo := greedy(t, nil, "What does a cow say?", "-n", "1")["prompt_tokens"]
	raw := greedy(t, nil, "-m", file, "What does a cow say?", "-n", "1", "--raw")["prompt_tokens"]
	if !reflect.DeepEqual(demo, raw) {
		t.Errorf("the demo reads %v, --raw %v", demo, raw)
	}
	answer := greedy(t, nil, "-m", file, "What does a cow say?")
	if text := strings.TrimSpace(answer["text"].(string)); text != "The cow says moo, moo!" || answer["stop"] != "eos" {
		t.Errorf("by template: %q, %v", text, answer["stop"])
	}
}

func TestLogits(t *testing.T) {
	dir := t.TempDir()
	logits := func(args ...string) []float32 {
		path := filepath.Join(dir, "l.f32")
		r := command(t, "", nil, append([]string{"logits", "-o", path}, args...)...)
		data, err := os.ReadFile(path)
		if r.exit != 0 || r.out != "" || err != nil {
			t.Fatalf("logits %q: exit %d, %q, %s, %v", args, r.exit, r.out, r.errout, err)
		}
		var row []float32
		for i := 0; i < len(data); i += 4 {
			row = append(row, math.Float32frombits(binary.LittleEndian.Uint32(data[i:])))
		}
		return row
	}
	doc := greedy(t, nil, "Once upon a time", "-n", "3")
	ids := joined(append(doc["prompt_tokens"].([]any), doc["tokens"].([]any)...))
	all := logits("--tokens", ids, "--all")
	last := logits("--tokens", ids)
	const vocab = 1024
	if len(all) != 8*vocab || !slices.Equal(all[7*vocab:], last) {
		t.Fatalf("%d logits with --all, %d without, or the last rows differ", len(all), len(last))
	}
	for i, id := range doc["tokens"].([]any) {
		row := all[(4+i)*vocab : (5+i)*vocab]
		if row[int(id.(float64))] != slices.Max(row) {
			t.Errorf("token %d is not what its logits choose", i)
		}
	}
	r := command(t, "", nil, "logits", "--tokens", "1,2", "-o", filepath.Join(dir, "j"), "--json")
	if doc := r.object(t); r.exit != 0 || doc["rows"] != 1.0 || doc["vocab"] != 1024.0 {
		t.Errorf("--json: exit %d, %v", r.exit, doc)
	}
	if r := command(t, "", nil, "logits", "--tokens", "1,2", "-o", "-"); r.exit != 0 || len(r.out) != 4*vocab {
		t.Errorf("-o -: exit %d, %d bytes", r.exit, len(r.out))
	}
	if r := command(t, "", nil, "logits", "--tokens", strings.Repeat("1,", 600)+"1", "-o", filepath.Join(dir, "x")); r.exit != 1 ||
		!strings.Contains(r.errout, "601") || !strings.Contains(r.errout, "512") {
		t.Errorf("601 tokens: exit %d, %s", r.exit, r.errout)
	}
}

func TestPerplexity(t *testing.T) {
	story := command(t, "", nil, "run", "Once upon a time", "--temp", "0").out
	r := command(t, "Once upon a time"+story, nil, "perplexity", "-f", "-", "-c", "32", "--json")
	doc := r.object(t)
	ppl, _ := doc["perplexity"].(float64)
	nll, _ := doc["nll"].(float64)
	if r.exit != 0 || ppl < 1 || ppl > 4 || math.Abs(math.Exp(nll)-ppl) > 1e-9 || doc["chunks"].(float64) < 3 || doc["tokens"] != doc["chunks"].(float64)*15 {
		t.Errorf("exit %d, %v", r.exit, doc)
	}
	r = command(t, "xq zv kk jq wv "+strings.Repeat("qzx vkj ", 80), nil, "perplexity", "-f", "-", "-c", "32", "--json")
	if worse, _ := r.object(t)["perplexity"].(float64); worse < 2*ppl {
		t.Errorf("perplexity %v of nonsense, %v of the model's own story", worse, ppl)
	}
	if r = command(t, "too short", nil, "perplexity", "-f", "-"); r.exit != 1 || !strings.Contains(r.errout, "512") {
		t.Errorf("short text: exit %d, %s", r.exit, r.errout)
	}
}

func TestTokenize(t *testing.T) {
	r := command(t, "", nil, "tokenize", "Once upon a time")
	if r.exit != 0 || r.out != "1 454 486 261 448\n" {
		t.Errorf("exit %d, %q", r.exit, r.out)
	}
	if again := command(t, "Once upon a time", nil, "tokenize"); again.out != r.out {
		t.Errorf("from the standard input: %q", again.out)
	}
	r = command(t, "", nil, "tokenize", "Once upon a time", "--no-bos", "--json")
	doc := r.object(t)
	if fmt.Sprint(doc["tokens"]) != "[454 486 261 448]" || fmt.Sprint(doc["pieces"]) != "[ Once  upon  a  time]" {
		t.Errorf("got %v", doc)
	}
	r = command(t, "", nil, "tokenize", "-d", "1,454,486,261,448", "--json")
	if text := r.object(t)["text"]; !strings.HasSuffix(text.(string), "Once upon a time") {
		t.Errorf("decoded %q", text)
	}
	special := command(t, "", nil, "tokenize", "a</s>").out
	if plain := command(t, "", nil, "tokenize", "a</s>", "--no-special").out; special == plain || !strings.HasSuffix(special, " 2\n") {
		t.Errorf("special %q, plain %q", special, plain)
	}
	if r = command(t, "", nil, "tokenize", "", "--no-bos", "--json"); fmt.Sprint(r.object(t)["tokens"]) != "[]" {
		t.Errorf("empty text: %q", r.out)
	}
}

func TestTokenizeBatch(t *testing.T) {
	lines := []string{
		`{"text":"Once upon a time","add_special":true,"parse_special":false}`,
		`{"hex":"4f6e63652075706f6e20612074696d65","add_special":true,"parse_special":false}`,
		`{"text":"Once upon a time","add_special":false}`,
		`{"text":"","add_special":false,"parse_special":false}`,
		`{"hex":"zz"}`, `{}`, `not json`, ``, `{"text":"a","hex":"61"}`, `{"text":"a","add_special":null}`, `[]`, `{"txet":"a"}`, `{"text":"a"} {"text":"b"}`,
		`{"text":"Once"}`,
	}
	r := command(t, strings.Join(lines, "\n"), nil, "tokenize", "--batch")
	answers := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	if r.exit != 1 || len(answers) != len(lines) {
		t.Fatalf("exit %d, %d answers to %d lines: %q", r.exit, len(answers), len(lines), r.out)
	}
	for i, answer := range answers {
		var doc struct {
			Tokens []int32
			Error  string
		}
		if err := json.Unmarshal([]byte(answer), &doc); err != nil {
			t.Errorf("line %d: %q: %v", i, answer, err)
		}
		want := map[int]string{0: "[1 454 486 261 448]", 1: "[1 454 486 261 448]", 2: "[454 486 261 448]", 3: "[]", 13: "[1 454]"}[i]
		if got := fmt.Sprint(doc.Tokens); want != "" && (got != want || doc.Tokens == nil || doc.Error != "") || want == "" && doc.Error == "" {
			t.Errorf("line %d, %s: got %s, want tokens %s", i, lines[i], answer, want)
		}
	}
	if r = command(t, lines[0]+"\n", nil, "tokenize", "--batch"); r.exit != 0 || strings.Count(r.out, "\n") != 1 {
		t.Errorf("one line: exit %d, %q", r.exit, r.out)
	}
	if r = command(t, "", nil, "tokenize", "--batch"); r.exit != 0 || r.out != "" {
		t.Errorf("no line: exit %d, %q", r.exit, r.out)
	}
}

func TestConvertAndInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.gguf")
	const spec = "synthetic:dim=64,layers=2,heads=4,kv=2,ffn=128,vocab=300:Q8_0:5"
	r := command(t, "", nil, "convert", "-m", spec, "-o", path, "--json")
	info, err := os.Stat(path)
	if err != nil || r.exit != 0 || r.object(t)["bytes"] != float64(info.Size()) {
		t.Fatalf("convert: exit %d, %s, %v", r.exit, r.errout, err)
	}
	for _, args := range [][]string{{"inspect", path}, {"inspect", "-m", path}, {"inspect", "-m", spec}} {
		r = command(t, "", nil, append(args, "--json")...)
		doc := r.object(t)
		shape, _ := doc["shape"].(map[string]any)
		if r.exit != 0 || shape["dim"] != 64.0 || shape["kv_heads"] != 2.0 || doc["model"].(map[string]any)["type"] != "Q8_0" || len(doc["tensors"].([]any)) < 20 {
			t.Errorf("%q: exit %d, %v", args, r.exit, doc)
		}
		if r = command(t, "", nil, args...); r.exit != 0 || !strings.Contains(r.out, "token_embd.weight") {
			t.Errorf("%q: exit %d, %q", args, r.exit, r.out)
		}
	}
	a := greedy(t, nil, "-m", path, "--tokens", "5,6,7", "-n", "8")
	b := greedy(t, nil, "-m", spec, "--tokens", "5,6,7", "-n", "8")
	if !reflect.DeepEqual(a["tokens"], b["tokens"]) {
		t.Errorf("the file gives %v, the synthetic model %v", a["tokens"], b["tokens"])
	}
	// a file cut off in its tensors is described by its error
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, data[:len(data)/2], 0o644)
	}
	if r = command(t, "", nil, "inspect", path); err != nil || r.exit != 3 || !strings.Contains(r.errout, "cut off") {
		t.Errorf("cut off: exit %d, %s, %v", r.exit, r.errout, err)
	}
}
