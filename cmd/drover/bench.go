package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"drover/internal/bench"
	"drover/internal/device"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/report"
)

func benchCommand() *cli.Command {
	const prefix = "BENCH_"
	compute := slices.DeleteFunc(computeFlags(prefix), func(f cli.Flag) bool {
		return slices.Contains([]string{"threads", "cache-type-k", "cache-type-v"}, f.Names()[0])
	})
	return &cli.Command{
		Name:  "bench",
		Usage: "measure prompt and decode speed, as a share of the devices' own limit",
		Description: "Each length of -p and of -n is a test of its own, for each depth, number of sequences, cache format and\n" +
			"number of threads. Tokens are random and nothing is sampled. A test is repeated until the 95 % confidence\n" +
			"interval of its mean (Student's t) is within 2 % of it, at least 3 times and at most -r times; after --budget\n" +
			"seconds no further repeat begins. Tests of one depth and number of sequences take turns, a sample of each.\n" +
			"drover bench -m synthetic:llama-7b:Q4_0 -p 512 -n 128 --device all",
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Category: catModel, Name: "model", Aliases: []string{"m"}, EnvVars: envVars(prefix, "model"), TakesFile: true,
				Usage: "GGUF `FILE`, synthetic:SHAPE[:TYPE][:SEED], or nothing for the embedded demo; may be repeated"},
			&cli.StringSliceFlag{Category: catDevice, Name: "device", EnvVars: envVars(prefix, "device"),
				Usage: "`DEVICE` or list that shares the model, as run takes it; all: each alone, then the scheduler's choice of all; may be repeated"},
			stringFlag("TESTS", prefix, "n-prompt", "512", "prompt lengths, as `128,512`; 0: none", "p"),
			stringFlag("TESTS", prefix, "n-gen", "128", "lengths of generation, as `128,512`; 0: none", "n"),
			stringFlag("TESTS", prefix, "n-depth", "0", "tokens already in the cache, as `0,4096`", "d"),
			intFlag("TESTS", prefix, "repetitions", 5, "most repeats of a test; fewer where 3 or more agree", "r"),
			floatFlag("TESTS", prefix, "budget", 45, "`SECONDS` after which a test begins no further repeat (0: no bound)"),
			stringFlag("TESTS", prefix, "sequences", "1", "sequences at once, as `1,8,64`"),
			boolFlag("TESTS", prefix, "no-warmup", false, "no unmeasured pass of each test before its first sample"),
			boolFlag("TESTS", prefix, "profile", false, "after the tests a pass of each that times each op, beside the op's own limit"),
			stringFlag(catDevice, prefix, "threads", "0", "CPU threads, as `1,2` (0: one a core)", "t"),
			stringFlag(catDevice, prefix, "cache-type-k", "f16", "`TYPES` of cached keys: f32, f16, q8_0, as f16,q8_0", "ctk"),
			stringFlag(catDevice, prefix, "cache-type-v", "f16", "`TYPES` of cached values", "ctv"),
			stringFlag(catGeneral, prefix, "output", "md", "`FORMAT`: "+strings.Join(report.Formats(), ", "), "o"),
			stringFlag(catGeneral, prefix, "output-file", "", "write to `FILE` instead of the standard output", "O"),
			boolFlag(catGeneral, prefix, "save", false, "also append the records to those that are kept, for compare --history"),
		}, compute...),
		Action: runBench,
	}
}

// benchAsked is what bench's flags say.
type benchAsked struct {
	tests    []bench.Test
	settings []compute // threads and cache formats, each with each
	devices  []string
	models   []string
	repeats  int
	budget   time.Duration
}

func runBench(c *cli.Context) error {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	asked, err := readBench(c)
	if err != nil {
		return err
	}
	sets, err := benchSets(c, asked)
	if err != nil {
		return err
	}
	out, err := openResults(c)
	if err != nil {
		return err
	}
	for _, spec := range asked.models {
		if err = benchModel(c, asked, spec, sets, out); err != nil {
			break
		}
	}
	return out.end(err)
}

func readBench(c *cli.Context) (*benchAsked, error) {
	a := &benchAsked{repeats: c.Int("repetitions"), devices: c.StringSlice("device"), models: c.StringSlice("model")}
	if len(a.devices) == 0 {
		a.devices = []string{"auto"}
	}
	if len(a.models) == 0 {
		a.models = []string{""}
	}
	if a.repeats < 1 || a.repeats > 1<<20 {
		return nil, usageError("5 is the default", "flag --repetitions: %d is not a number of repeats", a.repeats)
	}
	budget := c.Float64("budget")
	if !(budget >= 0 && budget <= 1e6) {
		return nil, usageError("45 is the default, 0 means no bound", "flag --budget: %v is not a number of seconds", budget)
	}
	a.budget = time.Duration(budget * float64(time.Second))
	var err error
	if a.tests, err = benchTests(c); err != nil {
		return nil, err
	}
	a.settings, err = benchSettings(c)
	return a, err
}

// benchTests is the list of tests that the flags ask for.
func benchTests(c *cli.Context) ([]bench.Test, error) {
	var lists [4][]int
	for i, name := range []string{"n-prompt", "n-gen", "n-depth", "sequences"} {
		what := "tokens"
		if name == "sequences" {
			what = name
		}
		var err error
		if lists[i], err = numbers(c, name, what); err != nil {
			return nil, err
		}
	}
	tests := bench.Tests(lists[0], lists[1], lists[2], lists[3])
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

// numbers are those of a flag that takes several.
func numbers(c *cli.Context, flag, what string) ([]int, error) {
	var list []int
	for s := range strings.SplitSeq(c.String(flag), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 0 {
			return nil, usageError("numbers with commas between, as 1,2", "flag --%s: %q is not a number of %s", flag, s, what)
		}
		list = append(list, n)
	}
	return list, nil
}

// benchSettings are the combinations of threads and cache formats.
func benchSettings(c *cli.Context) ([]compute, error) {
	threads, err := numbers(c, "threads", "threads")
	if err != nil {
		return nil, err
	}
	var types [2][]quant.Type
	for i, flag := range []string{"cache-type-k", "cache-type-v"} {
		for name := range strings.SplitSeq(c.String(flag), ",") {
			t, err := cacheType(flag, strings.TrimSpace(name))
			if err != nil {
				return nil, err
			}
			types[i] = append(types[i], t)
		}
	}
	var all []compute
	for _, n := range threads {
		for _, k := range types[0] {
			for _, v := range types[1] {
				o := compute{Threads: n, Batch: c.Int("batch"), K: k, V: v, NoRepack: c.Bool("no-repack")}
				if err := o.check(); err != nil {
					return nil, err
				}
				if n == 0 {
					// as many as the CPU takes by itself, but known, for the record
					o.Threads = cpuThreads()
				}
				all = append(all, o)
			}
		}
	}
	return all, nil
}

// benchModel runs all tests of one model on each set of devices, with all settings.
func benchModel(c *cli.Context, asked *benchAsked, spec string, sets []benchSet, out *results) error {
	f, err := openModel(c, spec, true)
	if err != nil {
		return err
	}
	for i := range sets {
		if err = benchOn(c, asked, f, &sets[i], out); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

// benchOn runs all tests of one model on one set of devices. What does not fit on
// one of all is left out, and said.
func benchOn(c *cli.Context, asked *benchAsked, f *model.File, set *benchSet, out *results) error {
	bar := newProgress(c.App.ErrWriter, "loading")
	defer bar.end()
	b := &benchRun{c: c, asked: asked, file: f, set: set, bar: bar}
	err := bench.Run(c.Context, b.subject(), asked.tests, b.options(), func(r bench.Record) error {
		bar.end()
		b.remarks(r)
		return out.add(r)
	})
	if f := classify(err); err != nil && set.oneOfAll && f.exit == exitMemory {
		out.leftOut(c.App.ErrWriter, set.name, err)
		return nil
	}
	return err
}

// cpuThreads is one for each core that this process may use; 0 if not known.
func cpuThreads() int {
	found, err := device.Find("cpu", device.Options{})
	if err != nil {
		return 0
	}
	return min(found[0].Info().Cores, maxProcs())
}

// remarks says what a reader of the figures should know.
func (b *benchRun) remarks(r bench.Record) {
	if r.Simulated != nil && *r.Simulated && !b.warned {
		b.warned = true
		fmt.Fprintf(b.c.App.ErrWriter, "%s: a software device: its time says nothing about a real one\n", b.set.name)
	}
	for _, text := range report.Remarks(r, b.asked.repeats) {
		fmt.Fprintf(b.c.App.ErrWriter, "%s: %s\n", b.set.name, text)
	}
	if b.c.Bool("profile") && r.Profile == nil {
		fmt.Fprintf(b.c.App.ErrWriter, "%s: no profile: a backend that times its ops must carry the whole model\n", b.set.name)
	}
}
