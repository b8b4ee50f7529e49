//go:build unix

package bench_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// programs writes stand-ins for drover and its peers, each of which notes what it
// was asked, and gives their folder.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	// the run's number sets the speed, so that medians and ranges can be told
	bench := func(name, speeds string) string {
		return `echo "` + name + ` $*" >>"` + dir + `/asked"
if [ "$1" = convert ]; then echo GGUF >"$5"; exit; fi
n=$(($(cat "` + dir + `/` + name + `.runs" 2>/dev/null || echo 0) + 1)); echo $n >"` + dir + `/` + name + `.runs"
set -- ` + speeds + `
shift $((n - 1))
echo '{"n_prompt": 32,"n_gen": 0,"plan":{"n":1},"avg_ts": '$1'0.5, "samples_ts": [1]}'
echo '{"n_prompt":0,"n_gen":8,"avg_ts":'$1'}'
`
	}
	for name, text := range map[string]string{
		"drover": bench("drover", "10 12 30 10 10 10"), "llama": bench("llama", "10 10 10"), "other": bench("other", "20 20 20"), "broken": "echo oops >&2; exit 1\n",
		"ollama": `echo "ollama $*" >>"` + dir + `/asked"
case $1 in
serve) exec sleep 60 ;;
create) [ -f "$4" ] && cp "$4" "` + dir + `/Modelfile" ;;
run) [ "$2" != --verbose ] || printf 'prompt eval rate:     99.0 tokens/s\neval count: 8 token(s)\neval rate:            5.0 tokens/s\n' >&2 ;;
esac
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// peers runs the script.
func peers(t *testing.T, args ...string) (out, errs string, exit int) {
	t.Helper()
	var o, e strings.Builder
	c := exec.Command("sh", append([]string{"peers.sh"}, args...)...)
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

func TestPeers(t *testing.T) {
	dir := programs(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	out, errs, exit := peers(t, "-d", at("drover"), "-l", at("llama"), "-m", "synthetic:tinyllama-1.1b", "-p", "32", "-n", "8", "-r", "3", "-t", "2", "-c", "-O", at("kept"))
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, errs)
	}
	// ratios 1, 1.2 and 3: the median is 1.2
	for _, want := range []string{"| llama-bench    | tg8      |     3 |        12.00 |        10.00 |   1.200 (1.000 to 3.000) |", "| pp32 ", "synthetic:tinyllama-1.1b, 2 threads"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	asked, err := os.ReadFile(at("asked"))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, l := range strings.Split(strings.TrimSpace(string(asked)), "\n") {
		order = append(order, strings.Join(strings.Fields(l)[:2], " "))
	}
	if got, want := strings.Join(order, ", "), "drover convert, drover bench, llama -m, llama -m, drover bench, drover bench, llama -m"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	for _, want := range []string{"-p 32 -n 8 -r 1 -o jsonl -t 2 --device cpu", "-p 32 -n 8 -r 1 -o jsonl -t 2 -ngl 0"} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("no %q in\n%s", want, asked)
		}
	}
	for _, name := range []string{"drover.jsonl", "llama-bench.jsonl"} {
		if text, err := os.ReadFile(filepath.Join(at("kept"), name)); err != nil || strings.Count(string(text), "\n") != 6 {
			t.Errorf("%s: %v, %q; want 6 lines", name, err, text)
		}
	}
}

func TestPeersOllama(t *testing.T) {
	dir := programs(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	out, errs, exit := peers(t, "-d", at("drover"), "-l", at("llama"), "-l", at("other"), "-o", at("ollama"), "-m", at("drover"), "-p", "32", "-n", "8", "-r", "2", "-t", "2")
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, errs)
	}
	for _, want := range []string{"| llama-bench-1  | tg8 ", "| llama-bench-2  | tg8 ", "| ollama         | tg8      |     2 |        20.00 |         5.00 |"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "ollama         | pp") {
		t.Errorf("a text's prompt speed stands beside that of a known number of tokens:\n%s", out)
	}
	if text, err := os.ReadFile(at("Modelfile")); err != nil || !strings.Contains(string(text), "FROM "+at("drover")+"\n") || !strings.Contains(string(text), "num_predict 8") || !strings.Contains(string(text), "num_thread 2") {
		t.Errorf("%v, %s", err, text)
	}
}

func TestPeersRefuse(t *testing.T) {
	dir := programs(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "name a peer"},
		{[]string{"-x"}, "usage"},
		{[]string{"-d", at("none"), "-l", at("llama")}, "no drover at"},
		{[]string{"-d", at("drover"), "-l", at("none")}, "no llama-bench at"},
		{[]string{"-d", at("drover"), "-o", at("none")}, "no ollama at"},
		{[]string{"-d", at("drover"), "-l", at("llama"), "-m", at("none")}, "no file"},
		{[]string{"-d", at("drover"), "-l", at("llama"), "-r", "0"}, "not a number"},
		{[]string{"-d", at("drover"), "-l", at("llama"), "-t", "x"}, "not a number"},
		{[]string{"-d", at("drover"), "-l", at("llama"), "model.gguf"}, "files go with -m"},
		{[]string{"-d", at("drover"), "-l", at("broken"), "-m", at("drover")}, "oops"},
	} {
		if out, errs, exit := peers(t, c.args...); exit != 2 || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%q: exit %d, %s%s; want 2, %s", c.args, exit, out, errs, c.want)
		}
	}
}
