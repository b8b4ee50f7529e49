package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/quant"
)

// envVars is the environment variable of a flag: DROVER_CTX_SIZE of ctx-size,
// with prefix "BENCH_" DROVER_BENCH_CTX_SIZE.
func envVars(prefix, name string) []string {
	return []string{"DROVER_" + prefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

// given says whether the command line itself (not the environment) sets the
// flag of this long name.
func given(c *cli.Context, name string) bool {
	counts, _ := c.App.Metadata["given"].(map[string]int)
	return counts[name] > 0
}

func stringFlag(category, prefix, name, value, usage string, aliases ...string) *cli.StringFlag {
	return &cli.StringFlag{Category: category, Name: name, Aliases: aliases, Value: value, Usage: usage, EnvVars: envVars(prefix, name)}
}

func intFlag(category, prefix, name string, value int, usage string, aliases ...string) *cli.IntFlag {
	return &cli.IntFlag{Category: category, Name: name, Aliases: aliases, Value: value, Usage: usage, EnvVars: envVars(prefix, name)}
}

func floatFlag(category, prefix, name string, value float64, usage string, aliases ...string) *cli.Float64Flag {
	return &cli.Float64Flag{Category: category, Name: name, Aliases: aliases, Value: value, Usage: usage, EnvVars: envVars(prefix, name)}
}

func boolFlag(category, prefix, name string, value bool, usage string, aliases ...string) *cli.BoolFlag {
	return &cli.BoolFlag{Category: category, Name: name, Aliases: aliases, Value: value, Usage: usage, EnvVars: envVars(prefix, name)}
}

const (
	catModel   = "MODEL"
	catDevice  = "DEVICE"
	catPrompt  = "PROMPT"
	catSample  = "SAMPLING"
	catGeneral = "GENERAL"
)

// modelFlag is -m.
func modelFlag() cli.Flag {
	f := stringFlag(catModel, "", "model", "", "GGUF `FILE`, synthetic:SHAPE[:TYPE][:SEED], or nothing for the embedded demo", "m")
	f.TakesFile = true
	return f
}

// deviceFlag is --device, for one plan.
func deviceFlag() cli.Flag {
	return stringFlag(catDevice, "", "device", "auto", "`DEVICE` or list: auto, cpu, cuda, cuda:N, cuda:UUID, metal")
}

// computeFlags are the thread, batch, cache and placement flags that run,
// logits, perplexity and bench share; prefix is "" or "BENCH_".
func computeFlags(prefix string) []cli.Flag {
	return []cli.Flag{
		intFlag(catDevice, prefix, "threads", 0, "CPU threads (0: one a core)", "t"),
		intFlag(catDevice, prefix, "batch", 2048, "most prompt rows in one step", "b"),
		stringFlag(catDevice, prefix, "cache-type-k", "f16", "`TYPE` of cached keys: f32, f16 or q8_0", "ctk"),
		stringFlag(catDevice, prefix, "cache-type-v", "f16", "`TYPE` of cached values: f32, f16 or q8_0", "ctv"),
		boolFlag(catDevice, prefix, "no-repack", false, "use the weights as they lie in the file"),
		stringFlag(catDevice, prefix, "gpu-layers", "auto", "layers on GPUs: `N`, auto or all", "ngl"),
		stringFlag(catDevice, prefix, "split", "", "layers in this proportion over the listed devices, as `3,1`"),
		intFlag(catDevice, prefix, "n-cpu-moe", 0, "experts of the first `N` layers on the CPU"),
		boolFlag(catDevice, prefix, "strict", false, "fail instead of placing anything on the CPU"),
	}
}

// compute is what computeFlags say.
type compute struct {
	Threads, Batch int
	K, V           quant.Type
	NoRepack       bool
}

// readCompute checks the flags of computeFlags but those of placement, which
// checkPlacement checks.
func readCompute(c *cli.Context) (compute, error) {
	o := compute{Threads: c.Int("threads"), Batch: c.Int("batch"), NoRepack: c.Bool("no-repack")}
	err := o.check()
	if err != nil {
		return o, err
	}
	if o.K, err = cacheType("cache-type-k", c.String("cache-type-k")); err != nil {
		return o, err
	}
	o.V, err = cacheType("cache-type-v", c.String("cache-type-v"))
	return o, err
}

// check bounds the numbers.
func (o *compute) check() error {
	if o.Threads < 0 || o.Threads > 4096 {
		return usageError("0 means one thread a core", "flag --threads: %d is not a number of threads", o.Threads)
	}
	if o.Batch < 1 || o.Batch > 1<<20 {
		return usageError("2048 is the default", "flag --batch: %d is not a number of rows", o.Batch)
	}
	return nil
}

func cacheType(flag, name string) (quant.Type, error) {
	types := []quant.Type{quant.F32, quant.F16, quant.Q8_0}
	for _, t := range types {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
	}
	return 0, usageError("f32, f16 and q8_0 are possible", "flag --%s: unknown cache format %q", flag, name)
}

func deviceOptions(o compute) device.Options {
	return device.Options{ISA: os.Getenv("DROVER_CPU"), Threads: o.Threads, Raw: o.NoRepack}
}

// checkPlacement holds the placement flags against the devices found; noGPU says
// that a wish wants one.
func checkPlacement(c *cli.Context, devices []backend.Device, noGPU func(wish string) error) error {
	gpus := 0
	for _, d := range devices {
		if d.Info().Kind != "cpu" {
			gpus++
		}
	}
	if c.Bool("strict") && gpus == 0 {
		return &failure{exit: exitMemory, code: "memory", device: "cpu", hint: "leave --strict out to run on the CPU",
			err: noGPU("--strict allows nothing on the CPU")}
	}
	switch v := c.String("gpu-layers"); v {
	case "auto", "0":
	default:
		if n, err := strconv.Atoi(v); v != "all" && (err != nil || n < 0) {
			return usageError("a number, auto or all", "flag --gpu-layers: unknown value %q", v)
		}
		if gpus == 0 {
			return &failure{exit: exitDevice, code: "device", hint: "leave --gpu-layers out to run on the CPU",
				err: noGPU("--gpu-layers " + v + " wants a GPU")}
		}
	}
	if n := c.Int("n-cpu-moe"); n < 0 {
		return usageError("", "flag --n-cpu-moe: %d is not a number of layers", n)
	}
	return checkSplit(c.String("split"), len(devices))
}

// noGPU is the error of a wish for a GPU where the CPU alone may be used; it
// says why.
func noGPU(wish string) error {
	reasons := []string{"--device allows the CPU only"}
	if found, absent, err := device.All(device.Options{}); err == nil && len(found) == 1 {
		reasons = nil
		for _, a := range absent {
			reasons = append(reasons, fmt.Sprintf("%s: %v", a.Kind, a.Reason))
		}
	}
	return fmt.Errorf("%s, and there is none to use (%s)", wish, strings.Join(reasons, "; "))
}

// checkSplit wants one share a device, none negative, not all zero.
func checkSplit(split string, devices int) error {
	if split == "" {
		return nil
	}
	shares, sum := strings.Split(split, ","), 0.0
	for _, s := range shares {
		x, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil || !(x >= 0) || x > 1e9 {
			return usageError("--split 3,1", "flag --split: %q is not a share", s)
		}
		sum += x
	}
	if len(shares) != devices || sum == 0 {
		return usageError("name the devices with --device", "flag --split: %d shares for %d device(s)", len(shares), devices)
	}
	return nil
}
