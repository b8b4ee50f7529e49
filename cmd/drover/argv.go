package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// invocation is a command line taken apart. cli ignores flags that stand after
// a positional argument, so argv is put in order before cli reads it.
type invocation struct {
	args  []string       // for cli.App.Run: command, flags as --name=value, "--", positional arguments
	given map[string]int // how often the command line (not the environment) sets a flag, by its long name
	json  bool           // --json, wherever it stands, or DROVER_JSON
	help  bool
}

// parseArgs takes argv (without the program's name) apart. On an error the
// invocation still says whether --json was asked for.
func parseArgs(app *cli.App, argv []string) (invocation, error) {
	inv := invocation{given: map[string]int{}, json: wantsJSON(argv)}
	var cmd *cli.Command
	flags, positional := []string{}, []string{}
	for i := 0; i < len(argv); i++ {
		arg := argv[i]
		switch {
		case cmd != nil && arg == "--":
			positional = append(positional, argv[i+1:]...)
			i = len(argv)
		case len(arg) < 2 || arg[0] != '-':
			if cmd != nil {
				positional = append(positional, arg)
			} else if arg == "help" {
				inv.help = true
			} else if cmd = app.Command(arg); cmd == nil {
				return inv, unknownCommand(app, arg)
			}
		default:
			set, used, err := parseFlag(app, cmd, argv[i:])
			if err != nil {
				return inv, err
			}
			i += used - 1
			switch set.name {
			case "json":
				inv.json = set.value == "true"
			case "help":
				inv.help = inv.help || set.value == "true"
			default:
				flags = append(flags, "--"+set.name+"="+set.value)
				inv.given[set.name]++
			}
		}
	}
	inv.args = []string{app.Name}
	if cmd != nil {
		inv.args = append(inv.args, cmd.Name)
	}
	if inv.help {
		inv.args = append(inv.args, "--help")
		return inv, nil
	}
	inv.args = append(append(inv.args, "--json="+strconv.FormatBool(inv.json)), flags...)
	if cmd != nil {
		inv.args = append(append(inv.args, "--"), positional...)
	}
	return inv, nil
}

// setting is one flag as the command line sets it.
type setting struct{ name, value string }

// parseFlag reads the flag at the head of argv and says how many arguments it
// takes up: 1, or 2 where the value stands apart.
func parseFlag(app *cli.App, cmd *cli.Command, argv []string) (setting, int, error) {
	name, value, joined := strings.Cut(strings.TrimPrefix(argv[0][1:], "-"), "=")
	flag := findFlag(flagsOf(app, cmd), name)
	if flag == nil {
		typed, _, _ := strings.Cut(argv[0], "=")
		return setting{}, 0, unknownFlag(app, cmd, typed)
	}
	long := flag.Names()[0]
	if !takesValue(flag) {
		if !joined {
			value = "true"
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return setting{}, 0, usageError("write --"+long+" or --"+long+"=false", "flag --%s: %q is neither true nor false", name, value)
		}
		return setting{long, strconv.FormatBool(on)}, 1, nil
	}
	if joined {
		return setting{long, value}, 1, nil
	}
	if len(argv) < 2 {
		return setting{}, 0, usageError(helpHint(cmd), "flag %s needs a value", argv[0])
	}
	return setting{long, argv[1]}, 2, nil
}

// flagsOf is what may stand here: the command's flags, or before a command the
// program's.
func flagsOf(app *cli.App, cmd *cli.Command) []cli.Flag {
	if cmd == nil {
		return append(slices.Clone(app.Flags), cli.HelpFlag)
	}
	return append(slices.Clone(cmd.Flags), cli.HelpFlag)
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func unknownFlag(app *cli.App, cmd *cli.Command, typed string) error {
	name := strings.TrimLeft(typed, "-")
	if cmd == nil {
		for _, c := range app.Commands {
			if findFlag(c.Flags, name) != nil {
				return usageError("drover COMMAND "+typed+" ...", "flag %s stands before the command; flags come after it", typed)
			}
		}
	}
	var names []string
	for _, f := range flagsOf(app, cmd) {
		names = append(names, f.Names()...)
	}
	near := nearest(name, names)
	if near == "" {
		return usageError(helpHint(cmd), "unknown flag %q", typed)
	}
	return usageError("did you mean "+dashed(findFlag(flagsOf(app, cmd), near), near)+"?", "unknown flag %q", typed)
}

// dashed is a flag's name as people write it: --model, and for the short names
// of llama.cpp, which have up to three letters, -m and -ngl.
func dashed(f cli.Flag, name string) string {
	if name == f.Names()[0] && len(name) > 1 {
		return "--" + name
	}
	return "-" + name
}

func helpHint(cmd *cli.Command) string {
	if cmd == nil {
		return "drover --help lists the commands"
	}
	return "drover " + cmd.Name + " --help lists the flags"
}

// wantsJSON looks for --json before the rest is understood, so that an error
// on the command line is JSON too.
func wantsJSON(argv []string) bool {
	on, _ := strconv.ParseBool(os.Getenv("DROVER_JSON"))
	for _, arg := range argv {
		switch arg {
		case "--":
			return on
		case "--json", "-json", "--json=true", "-json=true":
			on = true
		case "--json=false", "-json=false":
			on = false
		}
	}
	return on
}

func unknownCommand(app *cli.App, name string) error {
	names := []string{"help"}
	for _, c := range app.Commands {
		names = append(names, c.Name)
	}
	if near := nearest(name, names); near != "" {
		return usageError(fmt.Sprintf("did you mean %q?", near), "unknown command %q", name)
	}
	return usageError(helpHint(nil), "unknown command %q", name)
}

// nearest is the known name with the fewest edits from name; where none is near,
// which is more than two edits or more than half of the name, the longest of three
// letters or more that name begins with, or "".
func nearest(name string, known []string) string {
	if name == "" {
		return ""
	}
	best, bestDistance := "", 3
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < bestDistance && 2*d <= max(len(name), 2) {
			best, bestDistance = k, d
		}
	}
	if best == "" { // --temperature is --temp elsewhere
		for _, k := range known {
			if len(k) > max(2, len(best)) && strings.HasPrefix(strings.ToLower(name), strings.ToLower(k)) {
				best = k
			}
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
