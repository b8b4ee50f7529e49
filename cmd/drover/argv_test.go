package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func testApp() *cli.App {
	return &cli.App{
		Name:  "drover",
		Flags: []cli.Flag{jsonFlag()},
		Commands: []*cli.Command{
			{Name: "run", Flags: []cli.Flag{
				stringFlag("", "", "prompt", "", "", "p"),
				intFlag("", "", "predict", -1, "", "n"),
				stringFlag("", "", "cache-type-k", "f16", "", "ctk"),
				boolFlag("", "", "raw", false, ""),
				boolFlag("", "", "mmap", true, ""),
				jsonFlag(),
			}},
			{Name: "bench", Flags: []cli.Flag{jsonFlag()}},
		},
	}
}

func TestParseArgs(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "drover --json=false"},
		{"run", "drover run --json=false --"},
		{"run hello", "drover run --json=false -- hello"},
		{"run hello -n 5", "drover run --json=false --predict=5 -- hello"},
		{"run -n 5 hello", "drover run --json=false --predict=5 -- hello"},
		{"run --n=5 hello -ctk f32", "drover run --json=false --predict=5 --cache-type-k=f32 -- hello"},
		{"run -n -1 --raw x", "drover run --json=false --predict=-1 --raw=true -- x"},
		{"run x -mmap=false", "drover run --json=false --mmap=false -- x"},
		{"run -p --raw", "drover run --json=false --prompt=--raw --"},
		{"run -p= x", "drover run --json=false --prompt= -- x"},
		{"run -- -n 5", "drover run --json=false -- -n 5"},
		{"run - -n 5", "drover run --json=false --predict=5 -- -"},
		{"--json run x", "drover run --json=true -- x"},
		{"-json run x", "drover run --json=true -- x"},
		{"run x --json", "drover run --json=true -- x"},
		{"run x --json=false", "drover run --json=false -- x"},
		{"--help", "drover --help"},
		{"help", "drover --help"},
		{"help run", "drover run --help"},
		{"run -h x", "drover run --help"},
		{"run x -n 5 --help", "drover run --help"},
	} {
		inv, err := parseArgs(testApp(), strings.Fields(c.in))
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
		} else if got := strings.Join(inv.args, " "); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestParseArgsErrors(t *testing.T) {
	for _, c := range []struct{ in, message, hint string }{
		{"rnu", `unknown command "rnu"`, `did you mean "run"?`},
		{"zzzzzz", `unknown command "zzzzzz"`, "drover --help lists the commands"},
		{"run --promt x", `unknown flag "--promt"`, "did you mean --prompt?"},
		{"run --promt=x", `unknown flag "--promt"`, "did you mean --prompt?"},
		{"run -cktk x", `unknown flag "-cktk"`, "did you mean -ctk?"},
		{"run --what-is-this", `unknown flag "--what-is-this"`, "drover run --help lists the flags"},
		{"run -n", "flag -n needs a value", "drover run --help lists the flags"},
		{"run --raw=maybe", `flag --raw: "maybe" is neither true nor false`, "write --raw or --raw=false"},
		{"-n 5 run", "flag -n stands before the command; flags come after it", "drover COMMAND -n ..."},
		{"--jsn run", `unknown flag "--jsn"`, "did you mean --json?"},
	} {
		_, err := parseArgs(testApp(), strings.Fields(c.in))
		var f *failure
		if !errors.As(err, &f) {
			t.Errorf("%q: got %v, want a failure", c.in, err)
			continue
		}
		if f.exit != exitUsage || f.Error() != c.message || f.hint != c.hint {
			t.Errorf("%q: got exit %d %q (%s), want exit 2 %q (%s)", c.in, f.exit, f, f.hint, c.message, c.hint)
		}
	}
}

func TestParseArgsGiven(t *testing.T) {
	inv, err := parseArgs(testApp(), []string{"run", "-p", "a", "--prompt", "b", "--raw"})
	if err != nil || inv.given["prompt"] != 2 || inv.given["raw"] != 1 || inv.given["predict"] != 0 {
		t.Errorf("got %v %v", inv.given, err)
	}
}

func TestWantsJSON(t *testing.T) {
	for _, c := range []struct {
		env, argv string
		want      bool
	}{
		{"", "", false}, {"", "rnu --json", true}, {"", "--json rnu", true}, {"", "run -- --json", false},
		{"1", "run", true}, {"1", "run --json=false", false}, {"no", "run", false},
	} {
		t.Setenv("DROVER_JSON", c.env)
		if got := wantsJSON(strings.Fields(c.argv)); got != c.want {
			t.Errorf("DROVER_JSON=%s %q: got %v, want %v", c.env, c.argv, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"run", "bench", "devices", "p", "n", "min-p", "top-p"}
	for name, want := range map[string]string{
		"bnech": "bench", "device": "devices", "RUN": "run", "runs": "run", "benchmark": "bench", "ru": "run", "pnq": "", "minp": "min-p", "zzz": "", "qqqqqqqq": "", "": "",
	} {
		if got := nearest(name, known); got != want {
			t.Errorf("nearest(%q): got %q, want %q", name, got, want)
		}
	}
	words := []string{"", "a", "ab", "ba", "abc", "bca", "kitten", "sitting"}
	for _, a := range words {
		for _, b := range words {
			if editDistance(a, b) != editDistance(b, a) || (editDistance(a, b) == 0) != (a == b) {
				t.Errorf("editDistance(%q, %q) is no distance", a, b)
			}
		}
	}
	if got := editDistance("kitten", "sitting"); got != 3 {
		t.Errorf("kitten to sitting: %d edits, want 3", got)
	}
}
