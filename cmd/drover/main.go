// Command drover runs LLaMA-family language models on whatever this machine
// has. One file per command: flags in, engine calls, text or JSON out.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

func main() {
	if os.Getenv("DROVER_DEBUG") == "" {
		debug.SetTraceback("none")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(drover(ctx, newApp(os.Stdin, os.Stdout, os.Stderr), os.Args[1:]))
}

// drover runs one command line and gives its exit status. A panic becomes an
// error like any other: it is our mistake, and a dump tells nobody else much.
func drover(ctx context.Context, app *cli.App, argv []string) (status int) {
	out := app.Writer
	inv := invocation{json: wantsJSON(argv)}
	var err error
	defer func() {
		if p := recover(); p != nil {
			if os.Getenv("DROVER_DEBUG") != "" {
				panic(p)
			}
			err = &failure{exit: exitRuntime, code: "internal", err: fmt.Errorf("internal error: %v", p),
				hint: "please report it with this command line; DROVER_DEBUG=1 shows where it happened"}
		}
		if err != nil {
			f := classify(err)
			f.report(inv.json, out, app.ErrWriter)
			status = f.exit
		}
	}()
	if inv, err = parseArgs(app, argv); err != nil {
		return
	}
	app.Metadata["given"] = inv.given
	var help bytes.Buffer
	if inv.json && inv.help {
		app.Writer = &help
	}
	if err = app.RunContext(ctx, inv.args); err == nil && help.Len() > 0 {
		err = writeJSON(out, map[string]any{"schema": 1, "help": help.String()})
	}
	return
}

func newApp(in io.Reader, out, errs io.Writer) *cli.App {
	app := &cli.App{
		Name:                      "drover",
		Usage:                     "run LLaMA-family language models on this machine's devices",
		UsageText:                 "drover [--json] COMMAND [flags] [args]",
		Description:               "Without -m a small demo model, embedded in this program, is used:\n  drover run \"Once upon a time\"",
		Version:                   version(),
		HideVersion:               true, // cli's own flag would take -v
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		Reader:                    in,
		Writer:                    out,
		ErrWriter:                 errs,
		ExitErrHandler:            func(*cli.Context, error) {}, // the exit status is given in one place, above
		Metadata:                  map[string]any{},
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "version", Usage: "print the version"},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return printVersion(c)
			}
			return usageError("drover --help lists the commands", "no command given")
		},
		Commands: []*cli.Command{
			runCommand(),
			benchCommand(),
			compareCommand(),
			devicesCommand(),
			doctorCommand(),
			planCommand(),
			verifyCommand(),
			inspectCommand(),
			tokenizeCommand(),
			logitsCommand(),
			perplexityCommand(),
			convertCommand(),
			completionCommand(),
		},
	}
	for _, cmd := range app.Commands {
		cmd.HideHelpCommand = true
		cmd.Flags = append(cmd.Flags, jsonFlag())
		cmd.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return usageError(helpHint(cmd), "%w", err)
		}
	}
	app.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return usageError(helpHint(nil), "%w", err) }
	return app
}

func jsonFlag() cli.Flag {
	return boolFlag("", "", "json", false, "print one JSON object and nothing else")
}

// version is the module's version, or the commit, that the Go tool recorded.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}

func printVersion(c *cli.Context) error {
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "version": c.App.Version})
	}
	_, err := fmt.Fprintln(c.App.Writer, "drover", c.App.Version)
	return err
}

// wrongArgs is the usage error for positional arguments that a command does
// not take.
func wrongArgs(c *cli.Context, most int) error {
	if c.NArg() <= most {
		return nil
	}
	return usageError(helpHint(c.Command), "%s takes %d argument(s); %q is one too many (quote a text with spaces)", c.Command.Name, most, c.Args().Get(most))
}

// stdin is a reader whose Read ends with ctx: a read of a terminal or a pipe
// cannot be cancelled, so it is left behind.
type stdin struct {
	ctx  context.Context
	r    io.Reader
	buf  []byte // what the last read of r gave, and was not taken yet
	rest []byte // the memory of buf
}

func newStdin(c *cli.Context) *stdin {
	return &stdin{ctx: c.Context, r: c.App.Reader, rest: make([]byte, 1<<16)}
}

func (s *stdin) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if len(s.buf) == 0 {
		var n int
		var err error
		done := make(chan struct{})
		go func() { n, err = s.r.Read(s.rest); close(done) }()
		select {
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		case <-done:
		}
		if s.buf = s.rest[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

// readFile reads a text file, or the standard input for "-". A file that is
// not there is a usage error: the command line names it.
func readFile(c *cli.Context, path string) (string, error) {
	if path == "-" {
		data, err := io.ReadAll(newStdin(c))
		if err != nil {
			return "", fmt.Errorf("read the standard input: %w", err)
		}
		return string(data), nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", usageError("", "%w", err)
	}
	return string(data), err
}
