package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestMain builds the program once; the tests drive it as a user does.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "drover")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv("DROVER_TEST_BINARY", filepath.Join(dir, "drover"))
	out, err := exec.Command("go", "build", "-tags", tags, "-o", os.Getenv("DROVER_TEST_BINARY"), ".").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// result is what one command did.
type result struct {
	exit        int
	out, errout string
}

// command runs drover with the arguments, the input and further environment.
func command(t *testing.T, input string, env []string, args ...string) result {
	t.Helper()
	c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), args...)
	c.Stdin = strings.NewReader(input)
	for _, v := range os.Environ() { // DROVER_CPU and the like must not change what is tested
		if !strings.HasPrefix(v, "DROVER_") {
			c.Env = append(c.Env, v)
		}
	}
	// two threads wait for each other on a busy machine; a card of this machine changes nothing
	// nor do speeds that were measured before the tests
	c.Env = append(append(c.Env, "DROVER_THREADS=1", "DROVER_BENCH_THREADS=1", "DROVER_CUDA_LIBRARY=/nonexistent/libcuda.so.1", "XDG_STATE_HOME="+filepath.Join(filepath.Dir(os.Getenv("DROVER_TEST_BINARY")), "state")), env...)
	var out, errout bytes.Buffer
	c.Stdout, c.Stderr = &out, &errout
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{c.ProcessState.ExitCode(), out.String(), errout.String()}
	if strings.Contains(r.errout, "goroutine ") || strings.Contains(r.errout, "internal error") {
		t.Errorf("drover %q panicked:\n%s", args, r.errout)
	}
	return r
}

// object is stdout as exactly one JSON object of schema 1.
func (r result) object(t *testing.T) map[string]any {
	t.Helper()
	var doc map[string]any
	d := json.NewDecoder(strings.NewReader(r.out))
	if err := d.Decode(&doc); err != nil || doc["schema"] != 1.0 {
		t.Fatalf("stdout is no JSON object of schema 1 (%v): %q", err, r.out)
	}
	if rest := strings.TrimSpace(r.out[d.InputOffset():]); rest != "" {
		t.Fatalf("stdout goes on after the JSON object: %q", rest)
	}
	return doc
}

// wrong are command lines that must fail.
func wrong(t *testing.T) []wrongCase {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.gguf")
	empty := filepath.Join(dir, "empty.gguf")
	for path, text := range map[string]string{garbage: "GGUF\x03\x00\x00\x00garbage", empty: ""} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) []string { return append([]string{"run"}, args...) }
	return []wrongCase{
		{args: []string{}, exit: 2, code: "usage", want: "no command"},
		{args: []string{"rnu"}, exit: 2, code: "usage", want: `did you mean "run"`},
		{args: []string{"quantise"}, exit: 2, code: "usage", want: "unknown command"},
		{args: []string{"doctor", "x"}, exit: 2, code: "usage", want: "one too many"},
		{args: []string{"doctor", "--device", "gpu"}, exit: 2, code: "usage", want: "unknown device"},
		{args: []string{"doctor"}, env: "DROVER_CPU=nonsense", exit: 2, code: "usage", want: "nonsense"},
		{args: run("--promt", "x"), exit: 2, code: "usage", want: "did you mean --prompt"},
		{args: run("x", "--tepm", "1"), exit: 2, code: "usage", want: "did you mean --temp"},
		{args: run("x", "--temperature", "1"), exit: 2, code: "usage", want: "did you mean --temp"},
		{args: run("a", "b"), exit: 2, code: "usage", want: "quote"},
		{args: run("a", "-p", "b"), exit: 2, code: "usage", want: "--prompt"},
		{args: run("-p", "a", "-p", "b"), exit: 2, code: "usage", want: "--prompt"},
		{args: run("-p", "a", "-f", garbage), exit: 2, code: "usage", want: "--file"},
		{args: run("--tokens", "1,2", "a"), exit: 2, code: "usage", want: "--tokens"},
		{args: run("--tokens", "1,x"), exit: 2, code: "usage", want: "not a token id"},
		{args: run("--tokens", "1,99999"), exit: 2, code: "usage", want: "1024"},
		{args: run("-f", filepath.Join(dir, "none.txt")), exit: 2, code: "usage", want: "none.txt"},
		{args: run("x", "-n", "many"), exit: 2, code: "usage", want: "many"},
		{args: run("x", "-n", "-2"), exit: 2, code: "usage", want: "predict"},
		{args: run("x", "-n"), exit: 2, code: "usage", want: "needs a value"},
		{args: run("x"), env: "DROVER_PREDICT=many", exit: 2, code: "usage", want: "DROVER_PREDICT"},
		{args: run("x", "--temp", "-1"), exit: 2, code: "usage", want: "temp"},
		{args: run("x", "--temp", "NaN"), exit: 2, code: "usage", want: "temp"},
		{args: run("x", "--top-p", "1.5"), exit: 2, code: "usage", want: "top-p"},
		{args: run("x", "-c", "-1"), exit: 2, code: "usage", want: "ctx-size"},
		{args: run("x", "-b", "0"), exit: 2, code: "usage", want: "batch"},
		{args: run("x", "-t", "-1"), exit: 2, code: "usage", want: "threads"},
		{args: run("x", "-ctk", "q4_0"), exit: 2, code: "usage", want: "q8_0"},
		{args: run("x", "--rope-freq-scale", "-1"), exit: 2, code: "usage", want: "rope-freq-scale"},
		{args: run("x", "--device", "gpu"), exit: 2, code: "usage", want: "unknown device"},
		{args: run("x", "--device", "cpu,cpu"), exit: 2, code: "usage", want: "twice"},
		{args: run("x", "--device", "cpu:1"), exit: 2, code: "usage", want: "unknown device"},
		{args: run("x", "--device", "all"), exit: 2, code: "usage", want: "bench"},
		{args: run("x", "--split", "1,1"), exit: 2, code: "usage", want: "split"},
		{args: run("x", "-ngl", "some"), exit: 2, code: "usage", want: "gpu-layers"},
		{args: run("x", "-m", "synthetic:nothing"), exit: 2, code: "usage", want: "nothing"},
		{args: run("x"), env: "DROVER_CPU=nonsense", exit: 2, code: "usage", want: "nonsense"},
		{args: run("x", "-m", filepath.Join(dir, "none.gguf")), exit: 3, code: "model", want: "none.gguf"},
		{args: run("x", "-m", dir), exit: 3, code: "model", want: ""},
		{args: run("x", "-m", garbage), exit: 3, code: "model", want: "garbage.gguf"},
		{args: run("x", "-m", empty), exit: 3, code: "model", want: "empty"},
		{args: run("x"), env: "DROVER_MODEL=" + garbage, exit: 3, code: "model", want: "garbage.gguf"},
		{args: run("x", "--device", "cuda"), exit: 4, code: "device", want: "CUDA"},
		{args: run("x", "--device", "cuda:0"), exit: 4, code: "device", want: "CUDA"},
		{args: run("x", "--device", "metal"), exit: 4, code: "device", want: "Metal"},
		{args: run("x", "--device", "cpu,cuda"), exit: 4, code: "device", want: "CUDA"},
		{args: run("x"), env: "DROVER_DEVICE=cuda", exit: 4, code: "device", want: "CUDA"},
		{args: run("x", "-ngl", "all"), exit: 4, code: "device", want: "CUDA"},
		{args: run("x", "--strict"), exit: 5, code: "memory", want: "CPU"},
		{args: run("x", "-n", "1", "-c", "2147483647"), exit: 5, code: "memory", want: "MiB"},
		{args: run(strings.Repeat("word ", 40), "-c", "16"), exit: 1, code: "runtime", want: "16"},
		{args: []string{"tokenize", "a", "-d", "1"}, exit: 2, code: "usage", want: "one text"},
		{args: []string{"tokenize", "-d", "1,5000"}, exit: 2, code: "usage", want: "1024"},
		{args: []string{"tokenize", "a", "-m", garbage}, exit: 3, code: "model", want: "garbage.gguf"},
		{args: []string{"logits", "-o", filepath.Join(dir, "l")}, exit: 2, code: "usage", want: "--tokens"},
		{args: []string{"logits", "--tokens", "1"}, exit: 2, code: "usage", want: "--output"},
		{args: []string{"verify", "x"}, exit: 2, code: "usage", want: "one too many"},
		{args: []string{"verify", "--against", "gpu"}, exit: 2, code: "usage", want: "--against"},
		{args: []string{"verify", "--against", "cpu"}, exit: 2, code: "usage", want: "held to itself"},
		{args: []string{"verify", "--seed", "-1"}, exit: 2, code: "usage", want: "--seed"},
		{args: []string{"verify", "-m", garbage}, exit: 3, code: "model", want: "garbage.gguf"},
		{args: []string{"verify", "--device", "cuda"}, exit: 4, code: "device", want: "cuda"},
		{args: []string{"verify", "-m", "synthetic:llama-65b:F32", "-c", "1000000", "--fit=false"}, exit: 5, code: "memory", want: "needs"},
		{args: []string{"perplexity"}, exit: 2, code: "usage", want: "--file"},
		{args: []string{"inspect", "-m", garbage}, exit: 3, code: "model", want: "garbage.gguf"},
		{args: []string{"inspect", garbage}, exit: 3, code: "model", want: "garbage.gguf"},
		{args: []string{"convert", "-m", garbage, "-o", filepath.Join(dir, "o")}, exit: 3, code: "model", want: "garbage.gguf"},
		{args: []string{"convert"}, exit: 2, code: "usage", want: "--output"},
		{args: []string{"completion", "tcsh"}, exit: 2, code: "usage", want: "tcsh"},
		{args: []string{"devices", "x"}, exit: 2, code: "usage", want: "one too many"},
	}
}

type wrongCase struct {
	args []string
	env  string
	exit int
	code string // of the JSON error
	want string // part of the message or its hint
}

func TestFailures(t *testing.T) {
	for _, c := range wrong(t) {
		r := command(t, "", []string{c.env}, c.args...)
		if r.exit != c.exit || !strings.Contains(r.errout, c.want) || !strings.Contains(r.errout, "drover: ") || r.out != "" {
			t.Errorf("%s drover %.80q: got exit %d, %q on stderr, %q on stdout; want exit %d, %q", c.env, c.args, r.exit, r.errout, r.out, c.exit, c.want)
		}
		r = command(t, "", []string{c.env}, append([]string{"--json"}, c.args...)...)
		e, _ := r.object(t)["error"].(map[string]any)
		text := fmt.Sprint(e["message"], e["hint"])
		if r.exit != c.exit || e["code"] != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s drover --json %.80q: got exit %d, %v; want exit %d, code %s, %q", c.env, c.args, r.exit, e, c.exit, c.code, c.want)
		}
	}
}

// A panic is told like an error, without a dump of goroutines.
func TestPanic(t *testing.T) {
	t.Setenv("DROVER_DEBUG", "")
	for _, asJSON := range []bool{false, true} {
		var out, errout bytes.Buffer
		app := newApp(strings.NewReader(""), &out, &errout)
		app.Command("devices").Action = func(*cli.Context) error { panic("BUG: a mistake") }
		args := []string{"devices"}
		if asJSON {
			args = append(args, "--json")
		}
		status := drover(context.Background(), app, args)
		told := errout.String()
		if asJSON {
			e, _ := result{out: out.String()}.object(t)["error"].(map[string]any)
			told = fmt.Sprint(e["message"], e["hint"])
		}
		if status != 1 || !strings.Contains(told, "internal error: BUG: a mistake") || !strings.Contains(told, "report it") || strings.Contains(told, "goroutine") {
			t.Errorf("exit %d, %q, %q", status, out.String(), errout.String())
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help"}, {"help", "run"}, {"run", "x", "-h"}, {"--version"}} {
		if r := command(t, "", nil, args...); r.exit != 0 || r.out == "" || r.errout != "" {
			t.Errorf("drover %q: exit %d, %q, %q", args, r.exit, r.out, r.errout)
		}
		if r := command(t, "", nil, append(args, "--json")...); r.exit != 0 || len(r.object(t)) != 2 {
			t.Errorf("drover %q --json: exit %d, %q", args, r.exit, r.out)
		}
	}
	for _, name := range []string{"run", "bench", "devices", "doctor", "verify", "inspect", "tokenize", "logits", "perplexity", "convert", "completion"} {
		if r := command(t, "", nil, "help"); !strings.Contains(r.out, "\n   "+name+" ") {
			t.Errorf("drover help does not list %s", name)
		}
	}
}

func TestDevices(t *testing.T) {
	r := command(t, "", nil, "devices", "--json")
	doc := r.object(t)
	found, _ := doc["devices"].([]any)
	if r.exit != 0 || len(found) == 0 {
		t.Fatalf("exit %d, %v", r.exit, doc)
	}
	cpu := found[len(found)-1].(map[string]any)
	if cpu["id"] != "cpu" || cpu["kind"] != "cpu" || cpu["isa"] == "" || cpu["memory_total"].(float64) <= 0 || cpu["memory_free"].(float64) <= 0 || cpu["cores"].(float64) < 1 {
		t.Errorf("got %v", cpu)
	}
	r = command(t, "", []string{"DROVER_CPU=generic"}, "devices", "--json")
	found, _ = r.object(t)["devices"].([]any)
	if cpu = found[len(found)-1].(map[string]any); cpu["isa"] != "generic" {
		t.Errorf("DROVER_CPU=generic: got %v", cpu)
	}
	if r = command(t, "", nil, "devices"); r.exit != 0 || !strings.Contains(r.out, "cpu ") || !strings.Contains(r.out, "no metal: ") {
		t.Errorf("exit %d, %q", r.exit, r.out)
	}
}

// Each shell that is here reads its script without complaint.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		r := command(t, "", nil, "completion", shell)
		for _, word := range []string{"perplexity", "ctx-size", "cpu", "q8_0"} {
			if r.exit != 0 || !strings.Contains(r.out, word) {
				t.Errorf("completion %s: exit %d, no %q", shell, r.exit, word)
			}
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "pwsh" {
			continue
		}
		c := exec.Command(path, "-n")
		c.Stdin = strings.NewReader(r.out)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v %s", shell, err, out)
		}
	}
	if bash, err := exec.LookPath("bash"); err == nil {
		script := command(t, "", nil, "completion", "bash").out
		for line, want := range map[string]string{"drover ru": "run", "drover do": "doctor", "drover doctor --device a": "auto all", "drover run --de": "--device", "drover run --device c": "cpu", "drover completion z": "zsh"} {
			c := exec.Command(bash, "-c", script+"\nCOMP_WORDS=("+line+"); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _drover; echo \"${COMPREPLY[@]}\"")
			out, err := c.CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != want {
				t.Errorf("bash completes %q to %q (%v), want %q", line, out, err, want)
			}
		}
	}
}
