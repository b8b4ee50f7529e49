package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/bench"
	"drover/internal/device"
	"drover/internal/model"
	"drover/internal/report"
	"drover/internal/sched"
)

func benchCommand() *cli.Command {
	const prefix = "BENCH_"
	return &cli.Command{
		Name:  "bench",
		Usage: "measure prompt and decode speed, as a share of the device's own limit",
		Description: "Each length of -p and of -n is a test of its own. Tokens are random and nothing is sampled.\n" +
			"drover bench -m synthetic:llama-7b:Q4_0 -p 512 -n 128",
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Category: catModel, Name: "model", Aliases: []string{"m"}, EnvVars: envVars(prefix, "model"), TakesFile: true,
				Usage: "GGUF `FILE`, synthetic:SHAPE[:TYPE][:SEED], or nothing for the embedded demo; may be repeated"},
			&cli.StringSliceFlag{Category: catDevice, Name: "device", EnvVars: envVars(prefix, "device"),
				Usage: "`DEVICE` or list, as one plan: auto, cpu, cuda, cuda:N, metal; or all for each in turn; may be repeated"},
			stringFlag("TESTS", prefix, "n-prompt", "512", "prompt lengths, as `128,512`; 0: none", "p"),
			stringFlag("TESTS", prefix, "n-gen", "128", "lengths of generation, as `128,512`; 0: none", "n"),
			stringFlag("TESTS", prefix, "n-depth", "0", "tokens already in the cache, as `0,4096`", "d"),
			intFlag("TESTS", prefix, "repetitions", 5, "how often each test is repeated", "r"),
			intFlag("TESTS", prefix, "sequences", 1, "sequences at once"),
			boolFlag("TESTS", prefix, "no-warmup", false, "no unmeasured pass before each test"),
			boolFlag("TESTS", prefix, "profile", false, "after each test a pass that times each op, beside the op's own limit"),
			stringFlag(catGeneral, prefix, "output", "md", "`FORMAT`: "+strings.Join(report.Formats(), ", "), "o"),
			stringFlag(catGeneral, prefix, "output-file", "", "write to `FILE` instead of the standard output", "O"),
		}, computeFlags(prefix)...),
		Action: runBench,
	}
}

func runBench(c *cli.Context) error {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	o, err := readCompute(c)
	if err != nil {
		return err
	}
	tests, err := benchTests(c)
	if err != nil {
		return err
	}
	if o.Threads == 0 {
		// as many as the CPU takes by itself, but known, for the record
		o.Threads = cpuThreads()
	}
	devices, err := benchDevices(c, o)
	if err != nil {
		return err
	}
	models := c.StringSlice("model")
	if len(models) == 0 {
		models = []string{""}
	}
	out, err := openResults(c)
	if err != nil {
		return err
	}
	for _, spec := range models {
		if err = benchModel(c, spec, devices, tests, o, out.add); err != nil {
			break
		}
	}
	return out.end(err)
}

// benchTests is the list of tests that the flags ask for.
func benchTests(c *cli.Context) ([]bench.Test, error) {
	var lists [3][]int
	for i, name := range []string{"n-prompt", "n-gen", "n-depth"} {
		for _, s := range strings.Split(c.String(name), ",") {
			n, err := strconv.Atoi(strings.TrimSpace(s))
			if err != nil || n < 0 {
				return nil, usageError("numbers with commas between, as 128,512", "flag --%s: %q is not a number of tokens", name, s)
			}
			lists[i] = append(lists[i], n)
		}
	}
	if n := c.Int("repetitions"); n < 1 || n > 1<<20 {
		return nil, usageError("5 is the default", "flag --repetitions: %d is not a number of repeats", n)
	}
	tests := bench.Tests(lists[0], lists[1], lists[2], c.Int("sequences"))
	if len(tests) == 0 {
		return nil, usageError("give -p or -n a length", "nothing to measure: no prompt and no generation is longer than 0")
	}
	for _, t := range tests {
		if err := t.Check(); err != nil {
			return nil, usageError(helpHint(c.Command), "%w", err)
		}
	}
	return tests, nil
}

// benchDevices gives the devices to measure in turn.
func benchDevices(c *cli.Context, o compute) ([]backend.Device, error) {
	specs := c.StringSlice("device")
	if len(specs) == 0 {
		specs = []string{"auto"}
	}
	var all []backend.Device
	for _, spec := range specs {
		if spec == "all" {
			each, err := device.Find(spec, deviceOptions(o))
			if err != nil {
				return nil, deviceError(spec, err)
			}
			if err := checkPlacement(c, each, noGPU); err != nil {
				return nil, err
			}
			all = append(all, each...)
			continue
		}
		m, err := findMachine(c, spec, o, c.App.ErrWriter, false)
		if err != nil {
			return nil, err
		}
		if len(m.devices) == 1 {
			all = append(all, m.devices...)
		} else {
			all = append(all, &several{Device: m.devices[0], machine: m})
		}
	}
	return all, nil
}

// benchModel runs all tests of one model on each device.
func benchModel(c *cli.Context, spec string, devices []backend.Device, tests []bench.Test, o compute, add func(bench.Record) error) error {
	f, err := openModel(c, spec, true)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err = benchDevice(c, f, d, tests, o, add); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

func benchDevice(c *cli.Context, f *model.File, d backend.Device, tests []bench.Test, o compute, add func(bench.Record) error) error {
	bar := newProgress(c.App.ErrWriter, "loading")
	defer bar.end()
	s := bench.Subject{Model: f.Model, Filename: f.Path, TypeName: f.TypeName, Params: f.Params, Bytes: f.Bytes}
	return bench.Run(c.Context, d, s, tests, bench.Options{
		Batch: o.Batch, Repeats: c.Int("repetitions"), Warmup: !c.Bool("no-warmup"), Profile: c.Bool("profile"), Threads: o.Threads,
		K: o.K, V: o.V, CPU: cpuName(d),
		Plan: func(l backend.Limits, r backend.Rates) (bench.Placed, error) {
			asked := planning{compute: o, request: sched.Usual()}
			if d, ok := d.(*several); ok {
				return d.place(c.Context, f.Model, l, asked.wishes(c, f.Model))
			}
			return wholePlan(f.Model, d, l, r)
		},
		Progress: func(what string, done, total uint64) {
			if total > 0 {
				bar.step(done, total)
				return
			}
			bar.end()
			if isTerminal(c.App.ErrWriter) {
				fmt.Fprintf(c.App.ErrWriter, "%s: %s\n", d.Info().ID, what)
			}
		},
	}, func(r bench.Record) error {
		if c.Bool("profile") && r.Profile == nil {
			fmt.Fprintf(c.App.ErrWriter, "%s: no profile: this backend does not time its ops\n", d.Info().ID)
		}
		return add(r)
	})
}

// wholePlan is the plan of all of a model on one device.
func wholePlan(m *backend.Model, d backend.Device, l backend.Limits, r backend.Rates) (bench.Placed, error) {
	w := &workstation{}
	w.add(d, r)
	p, err := sched.Place(w.devices, m, benchLimits(l, 0), sched.Wishes{GPULayers: -1})
	return bench.Placed{Plan: p, Rates: r}, err
}

// benchLimits are those that bench has chosen by its tests. host: see sched.Limits.
func benchLimits(l backend.Limits, host uint64) sched.Limits {
	return sched.Limits{Context: l.Context, Least: l.Context, Asked: "flag", Host: host, At: func(int) backend.Limits { return l }}
}

// cpuThreads is one for each core that this process may use; 0 if not known.
func cpuThreads() int {
	found, err := device.Find("cpu", device.Options{})
	if err != nil {
		return 0
	}
	return min(found[0].Info().Cores, runtime.GOMAXPROCS(0))
}

// cpuName is the processor's name, also where d is a GPU; empty if not known.
func cpuName(d backend.Device) string {
	if d.Info().Kind == "cpu" {
		return d.Info().Name
	}
	if found, err := device.Find("cpu", device.Options{}); err == nil && len(found) == 1 {
		return found[0].Info().Name
	}
	return ""
}

// results is where records go: to a file or the standard output in the format
// of -o, and with --json as one object to the standard output.
type results struct {
	records []bench.Record
	json    io.Writer     // nil: not asked for
	report  report.Writer // nil: only JSON
	file    *os.File      // nil: the standard output
}

func openResults(c *cli.Context) (*results, error) {
	out := &results{records: []bench.Record{}}
	format, path := c.String("output"), c.String("output-file")
	if _, err := report.New(io.Discard, format); err != nil {
		return nil, usageError("", "flag --output: %w", err)
	}
	w := c.App.Writer
	if wantJSON(c) {
		out.json = w
		if path == "" && c.IsSet("output") && format != "json" {
			return nil, usageError("--json -O FILE writes both", "--json and -o %s both want the standard output", format)
		}
		if !c.IsSet("output") {
			format = "json"
		}
		if path == "" {
			return out, nil
		}
	}
	var err error
	if path != "" {
		if out.file, err = os.Create(path); err != nil {
			return nil, usageError("", "flag --output-file: %w", err)
		}
		w = out.file
	}
	out.report, err = report.New(w, format)
	return out, err
}

func (r *results) add(b bench.Record) error {
	r.records = append(r.records, b)
	if r.report == nil {
		return nil
	}
	return r.report.Add(b)
}

// end completes the output, also after err: what was measured is kept.
func (r *results) end(err error) error {
	if r.report != nil {
		err = errors.Join(err, r.report.Close())
	}
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	switch {
	case r.json == nil:
		return err
	case err == nil:
		return writeJSON(r.json, map[string]any{"schema": bench.Schema, "records": r.records})
	}
	f := *classify(err)
	f.partly = map[string]any{"records": r.records}
	return &f
}
