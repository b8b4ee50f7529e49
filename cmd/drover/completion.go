package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/internal/device"
	"drover/internal/report"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a shell's completion script",
		ArgsUsage: "bash|zsh|fish|pwsh",
		Description: "bash: source <(drover completion bash)          in ~/.bashrc\n" +
			"zsh:  source <(drover completion zsh)           in ~/.zshrc, after compinit\n" +
			"fish: drover completion fish | source           in config.fish\n" +
			"pwsh: drover completion pwsh | Out-String | Invoke-Expression   in $PROFILE",
		Action: func(c *cli.Context) error {
			if err := wrongArgs(c, 1); err != nil {
				return err
			}
			write, ok := map[string]func(io.Writer, []words){
				"bash": completeBash, "zsh": completeZsh, "fish": completeFish, "pwsh": completePwsh,
			}[c.Args().First()]
			if !ok {
				return usageError("bash, zsh, fish or pwsh", "no completion for shell %q", c.Args().First())
			}
			var script strings.Builder
			write(&script, commandWords(c.App))
			if wantJSON(c) {
				return writeJSON(c.App.Writer, map[string]any{"schema": 1, "script": script.String()})
			}
			_, err := io.WriteString(c.App.Writer, script.String())
			return err
		},
	}
}

// words is what can follow a command: flags, and for a flag its values.
type words struct {
	command, usage string
	args           []string // positional arguments to choose from
	flags          []flagWords
}

// flagWords is a flag as completion sees it.
type flagWords struct {
	names  []string // with dashes, the long one first
	usage  string
	value  bool     // a value follows
	values []string // to choose from, or empty
	file   bool     // the value is a path
}

// commandWords is the table behind every script. Devices are those of the
// machine at the time of printing.
func commandWords(app *cli.App) []words {
	var all []words
	for _, cmd := range app.Commands {
		w := words{command: cmd.Name, usage: cmd.Usage}
		if cmd.Name == "completion" {
			w.args = []string{"bash", "zsh", "fish", "pwsh"}
		}
		for _, f := range cmd.Flags {
			d, ok := f.(cli.DocGenerationFlag)
			if !ok {
				continue
			}
			fw := flagWords{usage: strings.ReplaceAll(d.GetUsage(), "`", ""), value: d.TakesValue(), values: flagValues(cmd.Name, f.Names()[0])}
			if s, ok := f.(*cli.StringFlag); ok {
				fw.file = s.TakesFile
			}
			if s, ok := f.(*cli.StringSliceFlag); ok {
				fw.file = s.TakesFile
			}
			for _, n := range f.Names() {
				fw.names = append(fw.names, dashed(f, n))
			}
			w.flags = append(w.flags, fw)
		}
		all = append(all, w)
	}
	return all
}

// flagValues are the values of a flag that can be listed.
func flagValues(command, long string) []string {
	switch long {
	case "device":
		names := []string{"auto"}
		if command == "bench" || command == "doctor" {
			names = append(names, "all")
		}
		devices, _, err := device.All(device.Options{})
		if err == nil {
			for _, d := range devices {
				names = append(names, d.Info().ID)
			}
		}
		return names
	case "cache-type-k", "cache-type-v":
		return []string{"f32", "f16", "q8_0"}
	case "against":
		return []string{"ref", "cpu"}
	case "gpu-layers":
		return []string{"auto", "all"}
	case "output":
		if command == "bench" {
			return report.Formats()
		}
	}
	return nil
}

func completeBash(w io.Writer, all []words) {
	fmt.Fprint(w, "_drover() {\n    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} cmd= words= i\n    COMPREPLY=()\n")
	fmt.Fprintf(w, "    for ((i = 1; i < COMP_CWORD; i++)); do\n        case ${COMP_WORDS[i]} in\n        %s) cmd=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n", names(all, "|"))
	fmt.Fprint(w, "    case $cmd:$prev in\n")
	for _, c := range all {
		for _, f := range c.flags {
			var at []string
			for _, n := range f.names {
				at = append(at, c.command+":"+n)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, "    %s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n", strings.Join(at, "|"), strings.Join(f.values, " "))
			case f.value:
				fmt.Fprintf(w, "    %s) return ;;\n", strings.Join(at, "|"))
			}
		}
	}
	fmt.Fprintf(w, "    esac\n    case $cmd in\n    '') words=%q ;;\n", "help "+names(all, " ")+" --json --help --version")
	for _, c := range all {
		fmt.Fprintf(w, "    %s) words=%q ;;\n", c.command, strings.Join(append(c.flagNames(), c.args...), " "))
	}
	fmt.Fprint(w, "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -o default -F _drover drover\n")
}

func completeZsh(w io.Writer, all []words) {
	fmt.Fprint(w, "#compdef drover\n_drover() {\n    local cmd= prev=${words[CURRENT-1]} i\n")
	fmt.Fprintf(w, "    for ((i = 2; i < CURRENT; i++)); do\n        case ${words[i]} in\n        (%s) cmd=${words[i]}; break ;;\n        esac\n    done\n    case $cmd:$prev in\n", names(all, "|"))
	for _, c := range all {
		for _, f := range c.flags {
			var at []string
			for _, n := range f.names {
				at = append(at, c.command+":"+n)
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, "    (%s) compadd -- %s; return ;;\n", strings.Join(at, "|"), strings.Join(f.values, " "))
			case f.value:
				fmt.Fprintf(w, "    (%s) _files; return ;;\n", strings.Join(at, "|"))
			}
		}
	}
	fmt.Fprintf(w, "    esac\n    case $cmd in\n    ('') compadd -- help %s --json --help --version ;;\n", names(all, " "))
	for _, c := range all {
		fmt.Fprintf(w, "    (%s) compadd -- %s ;;\n", c.command, strings.Join(append(c.flagNames(), c.args...), " "))
	}
	fmt.Fprint(w, "    esac\n}\ncompdef _drover drover\n")
}

func completeFish(w io.Writer, all []words) {
	fmt.Fprint(w, "complete -c drover -e\n")
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'" }
	for _, c := range all {
		fmt.Fprintf(w, "complete -c drover -f -n __fish_use_subcommand -a %s -d %s\n", c.command, quote(c.usage))
		for _, a := range c.args {
			fmt.Fprintf(w, "complete -c drover -f -n '__fish_seen_subcommand_from %s' -a %s\n", c.command, a)
		}
		for _, f := range c.flags {
			fmt.Fprintf(w, "complete -c drover -n '__fish_seen_subcommand_from %s'", c.command)
			for _, n := range f.names {
				switch {
				case strings.HasPrefix(n, "--"):
					fmt.Fprintf(w, " -l %s", n[2:])
				case len(n) == 2:
					fmt.Fprintf(w, " -s %s", n[1:])
				default:
					fmt.Fprintf(w, " -o %s", n[1:])
				}
			}
			switch {
			case len(f.values) > 0:
				fmt.Fprintf(w, " -x -a %s", quote(strings.Join(f.values, " ")))
			case f.file:
				fmt.Fprint(w, " -r -F")
			case f.value:
				fmt.Fprint(w, " -x")
			}
			fmt.Fprintf(w, " -d %s\n", quote(f.usage))
		}
	}
}

func completePwsh(w io.Writer, all []words) {
	list := func(items []string) string { return "'" + strings.Join(items, "', '") + "'" }
	fmt.Fprint(w, "Register-ArgumentCompleter -Native -CommandName drover -ScriptBlock {\n    param($word, $ast, $cursor)\n")
	fmt.Fprint(w, "    $before = @($ast.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { $_.ToString() })\n")
	fmt.Fprintf(w, "    $commands = @('%s')\n    $cmd = $before | Select-Object -Skip 1 | Where-Object { $_ -cin $commands } | Select-Object -First 1\n", names(all, "', '"))
	fmt.Fprint(w, "    $values = switch -CaseSensitive (\"${cmd}:$($before[-1])\") {\n")
	for _, c := range all {
		for _, f := range c.flags {
			for _, n := range f.names {
				if len(f.values) > 0 {
					fmt.Fprintf(w, "        '%s:%s' { %s }\n", c.command, n, list(f.values))
				}
			}
		}
	}
	fmt.Fprint(w, "    }\n    if (-not $values) {\n        $values = switch ($cmd) {\n")
	for _, c := range all {
		fmt.Fprintf(w, "            '%s' { %s }\n", c.command, list(append(c.flagNames(), c.args...)))
	}
	fmt.Fprint(w, "            default { @('help') + $commands + @('--json', '--help', '--version') }\n        }\n    }\n")
	fmt.Fprint(w, "    $values | Where-Object { $_ -like \"$word*\" } | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_) }\n}\n")
}

func names(all []words, sep string) string {
	var s []string
	for _, c := range all {
		s = append(s, c.command)
	}
	return strings.Join(s, sep)
}

func (c words) flagNames() []string {
	names := []string{"--help"}
	for _, f := range c.flags {
		names = append(names, f.names...)
	}
	return names
}
