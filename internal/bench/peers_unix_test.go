//go:build unix

package bench_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
serve) echo $HOME >"` + dir + `/serving"; exec sleep 60 ;;
create) cp "$4" "` + dir + `/Modelfile" ;;
*) exit 1 ;;
esac
`,
		// answers in the server's place: a text of 7 tokens and 2 a word, read at 40 and
		// made at 5 tokens/s. Of the long ones the first ends early, and the second is
		// given up, as ollama does where a token comes 30 times in a row
		"curl": `[ -f "` + dir + `/serving" ] || exit 7
case $* in
*/api/version) echo '{"version":"0.33.0"}' ;;
*/api/generate)
	body=$(cat)
	echo "$body" >>"` + dir + `/bodies"
	made=$(echo "$body" | sed 's/.*"num_predict":\([0-9]*\).*/\1/')
	seen=$((7 + 2 * $(echo "$body" | awk -F ' a' '{ print NF - 1 }')))
	if [ "$made" -gt 2 ]; then
		case $(grep -c '"num_predict":9' "` + dir + `/bodies") in
		1) made=4 ;;
		2) echo '{"model":"peer","response":" rufa rufa","done":false}' >"$3"; exit ;;
		esac
	fi
	echo '{"model":"peer","created_at":"2026-11-26T08:00:00.5Z","response":" of \"eval_count\":77,","done":true,"done_reason":"length","total_duration":9,"load_duration":8,"prompt_eval_count":'$seen',"prompt_eval_duration":'$((seen * 25000000))',"eval_count":'$made',"eval_duration":'$(((made - 1) * 200000000 + 1))'}' >"$3"
	;;
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
	// looked at here, so that go test runs anew when the script has changed
	if _, err := os.Stat("peers.sh"); err != nil {
		t.Fatal(err)
	}
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
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, errs, exit := peers(t, "-d", at("drover"), "-l", at("llama"), "-l", at("other"), "-o", at("ollama"), "-m", at("drover"), "-p", "32", "-n", "8", "-r", "2", "-t", "2", "-c")
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, errs)
	}
	for _, want := range []string{
		"| llama-bench-1  | tg8 ", "| llama-bench-2  | tg8 ",
		"| ollama         | pp32     |     2 |       200.50 |        40.00 |",
		"| ollama         | tg8      |     2 |        20.00 |         5.00 |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if !strings.Contains(errs, "ollama 0.33.0\n") {
		t.Errorf("no version of ollama in %s", errs)
	}
	if text, err := os.ReadFile(at("Modelfile")); err != nil || string(text) != "FROM "+at("drover")+"\n" {
		t.Errorf("%v, %s", err, text)
	}
	if home, err := os.ReadFile(at("serving")); err != nil || strings.TrimSpace(string(home)) == os.Getenv("HOME") {
		t.Errorf("%v, the server keeps its keys in %s", err, home)
	}

	bodies, err := os.ReadFile(at("bodies"))
	if err != nil {
		t.Fatal(err)
	}
	var made []int
	var before string
	for _, l := range strings.Split(strings.TrimSpace(string(bodies)), "\n") {
		var body struct {
			Model, Prompt string
			Raw, Stream   *bool
			Options       struct {
				Context int      `json:"num_ctx"`
				Predict int      `json:"num_predict"`
				Threads int      `json:"num_thread"`
				Layers  *int     `json:"num_gpu"`
				Heat    *float64 `json:"temperature"`
			}
		}
		if err := json.Unmarshal([]byte(l), &body); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		o := body.Options
		if body.Model != "peer" || body.Raw == nil || !*body.Raw || body.Stream == nil || *body.Stream || o.Context < 32+8 || o.Threads != 2 || o.Layers == nil || *o.Layers != 0 || o.Heat == nil || *o.Heat != 0 {
			t.Errorf("asked %s", l)
		}
		if before != "" && body.Prompt[0] == before[0] {
			t.Errorf("%q after %q: its beginning is in the cache", body.Prompt, before)
		}
		before = body.Prompt
		made = append(made, o.Predict)
	}
	// a warm-up, two for a word's tokens, then a prompt and a text for each pair;
	// the first two texts end early and are asked for again
	if want := []int{2, 1, 1, 1, 9, 9, 9, 1, 9}; !slices.Equal(made, want) {
		t.Errorf("asked for %d tokens, want %d", made, want)
	}
}

func TestPeersOllamaRefuses(t *testing.T) {
	dir := programs(t)
	args := []string{"peers.sh", "-d", filepath.Join(dir, "drover"), "-o", filepath.Join(dir, "ollama"), "-m", filepath.Join(dir, "drover")}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "serving"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{t.TempDir(), "no curl"},
		{dir + string(filepath.ListSeparator) + os.Getenv("PATH"), "something answers at"}, // another's server
	} {
		run := exec.Command(shell, args...)
		run.Env = []string{"PATH=" + c.path}
		if errs, _ := run.CombinedOutput(); run.ProcessState.ExitCode() != 2 || !strings.Contains(string(errs), c.want) {
			t.Errorf("exit %d: %s; want 2, %s", run.ProcessState.ExitCode(), errs, c.want)
		}
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
