package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/engine"
	"drover/internal/sched"
)

func planCommand() *cli.Command {
	machine := stringFlag(catDevice, "", "machine", "", "plan for the machine that a JSON `FILE` describes (-: the standard input), as `drover devices --measure --json` prints it")
	machine.TakesFile = true
	usual := sched.Usual()
	return &cli.Command{
		Name:      "plan",
		Usage:     "show where layers would go, why, and how fast that would be, without loading",
		UsageText: "drover plan [flags]",
		Description: "Without --machine the devices of this machine are measured, about a second each, unless that was done before.\n" +
			"The plan is the fastest for a prompt and the tokens after it: -p and -n.",
		Flags: append([]cli.Flag{
			modelFlag(), deviceFlag(), machine,
			intFlag(catModel, "", "ctx-size", 0, "most positions of a text (0: the model's, shrunk to fit)", "c"),
			boolFlag(catModel, "", "fit", true, "shrink the context where it does not fit"),
			intFlag(catModel, "", "sequences", 1, "texts at once, each with its own context"),
			intFlag(catPrompt, "", "n-prompt", usual.Prompt, "tokens of the prompt to plan for", "p"),
			intFlag(catPrompt, "", "n-gen", usual.Generate, "tokens after it", "n"),
			intFlag(catPrompt, "", "depth", usual.Depth, "tokens before it, in the cache already", "d"),
		}, computeFlags("")...),
		Action: plan,
	}
}

// planDoc is plan's JSON object.
type planDoc struct {
	Schema  int         `json:"schema"`
	Model   modelDoc    `json:"model"`
	Machine string      `json:"machine"` // the description's name; empty: this one
	Plan    *sched.Plan `json:"plan"`
}

func plan(c *cli.Context) (err error) {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	asked, err := readPlanFlags(c)
	if err != nil {
		return err
	}
	var found *workstation
	var here *machine
	if path := c.String("machine"); path != "" {
		found, err = asked.described(c, path)
	} else {
		here, err = findMachine(c, c.String("device"), asked.compute, c.App.ErrWriter, false)
	}
	if err != nil {
		return err
	}
	file, err := openModel(c, c.String("model"), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if here != nil {
		if found, err = here.now(c.Context, true, file.Model); err != nil {
			return err
		}
	}
	p, err := place(found, file.Model, asked, asked.wishes(c, file.Model))
	if err != nil {
		return err
	}
	p.Explain()
	if wantJSON(c) {
		return writeJSON(c.App.Writer, planDoc{1, describeModel(file), found.name, p})
	}
	machine := "this machine"
	if found.name != "" {
		machine = found.name
	}
	fmt.Fprintf(c.App.Writer, "%s: %s, %.2f G weights, %s; on %s\n", file.Path, file.TypeName, float64(file.Params)/1e9, byteSize(file.Bytes), machine)
	return p.Write(c.App.Writer)
}

// planning is what plan's flags say.
type planning struct {
	compute   compute
	context   int
	fit       bool
	sequences int
	pages     int // of the cache; 0: what the context takes
	request   sched.Request
}

func readPlanFlags(c *cli.Context) (*planning, error) {
	a := &planning{context: c.Int("ctx-size"), fit: c.Bool("fit"), sequences: c.Int("sequences"),
		request: sched.Request{Depth: c.Int("depth"), Prompt: c.Int("n-prompt"), Generate: c.Int("n-gen")}}
	var err error
	if a.compute, err = readCompute(c); err != nil {
		return nil, err
	}
	const most = math.MaxInt32
	for _, f := range []struct {
		name         string
		value, least int
	}{{"ctx-size", a.context, 0}, {"sequences", a.sequences, 1}, {"n-prompt", a.request.Prompt, 0}, {"n-gen", a.request.Generate, 1}, {"depth", a.request.Depth, 0}} {
		if f.value < f.least || f.value > most {
			return nil, usageError(helpHint(c.Command), "flag --%s: %d is not a number from %d to %d", f.name, f.value, f.least, most)
		}
	}
	return a, nil
}

// limits is what the model is asked to carry. host: see sched.Limits.
func (a *planning) limits(m *backend.Model, host uint64) sched.Limits {
	o := engine.Options{Batch: a.compute.Batch, Sequences: a.sequences, Pages: a.pages, K: a.compute.K, V: a.compute.V}
	l := sched.Limits{Context: a.context, Least: a.context, Asked: "flag", Host: host,
		At: func(context int) backend.Limits { return o.Limits(&m.Config, context) }}
	if a.context == 0 {
		l.Context, l.Least, l.Asked = m.Config.Context, m.Config.Context, "model"
		if a.fit {
			l.Least = min(l.Context, 4*backend.PageRows)
		}
	}
	return l
}

// wishes is what the placement flags say, once checkPlacement has passed them.
func (a *planning) wishes(c *cli.Context, m *backend.Model) sched.Wishes {
	w := sched.Wishes{GPULayers: -1, ExpertsOnCPU: c.Int("n-cpu-moe"), Strict: c.Bool("strict"), Request: a.request}
	if layers := c.String("gpu-layers"); layers == "all" {
		w.GPULayers = m.Config.Layers
	} else if n, err := strconv.Atoi(layers); err == nil {
		w.GPULayers = n
	}
	if split := c.String("split"); split != "" {
		for s := range strings.SplitSeq(split, ",") {
			x, _ := strconv.ParseFloat(strings.TrimSpace(s), 64)
			w.Split = append(w.Split, x)
		}
	}
	return w
}

// workstation is the devices that may be used, of this machine or another.
type workstation struct {
	name    string
	devices []sched.Device
	absent  []sched.LeftOut
	host    uint64 // free memory of the computer in bytes, where the CPU is not among the devices
}

// described reads a machine from a file.
func (a *planning) described(c *cli.Context, path string) (*workstation, error) {
	m, err := readMachine(c, path)
	if err != nil {
		return nil, err
	}
	w := &workstation{name: m.Name}
	if w.name == "" {
		w.name = path
	}
	rates := map[backend.Device]backend.Rates{}
	var all []backend.Device
	for _, d := range m.Devices {
		dev, err := device.Described(d.Info, device.Options{Threads: a.compute.Threads, Raw: a.compute.NoRepack})
		if err != nil {
			w.absent = append(w.absent, sched.LeftOut{Device: d.Info.ID, Reason: err.Error()})
			continue
		}
		all = append(all, dev)
		rates[dev] = d.Rates
	}
	found, err := w.choose(c, all)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		switch {
		case slices.Contains(found, d):
		case d.Info().Kind == "cpu":
			w.host = d.Info().Free
		}
	}
	for _, d := range found {
		w.add(d, rates[d])
	}
	return w, nil
}

func readMachine(c *cli.Context, path string) (m *sched.Machine, err error) {
	in := io.Reader(newStdin(c))
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usageError("--machine names a file that `drover devices --measure --json` has printed", "%w", err)
		}
		defer f.Close()
		in = f
	}
	if m, err = sched.ReadMachine(in); errors.Is(err, sched.ErrMachine) {
		return nil, usageError("docs/machines.md describes the format", "%s: %w", path, err)
	} else if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

// choose gives the described devices that --device names.
func (w *workstation) choose(c *cli.Context, all []backend.Device) ([]backend.Device, error) {
	spec := c.String("device")
	found, err := device.Choose(all, spec)
	if err != nil {
		f := *classify(err)
		f.device = spec
		for _, a := range w.absent {
			f.hint = a.Device + ": " + a.Reason
		}
		return nil, &f
	}
	if len(found) == 0 {
		return nil, &failure{exit: exitDevice, code: "device", device: spec, err: fmt.Errorf("%s has no device that can be planned for: %s: %s", w.name, w.absent[0].Device, w.absent[0].Reason)}
	}
	gpus := slices.DeleteFunc(slices.Clone(found), func(d backend.Device) bool { return d.Info().Kind == "cpu" })
	if spec == "auto" && c.String("split") != "" && len(gpus) > 0 {
		found = gpus
	}
	return found, checkPlacement(c, found, func(wish string) error {
		return fmt.Errorf("%s, and %s has none that may be used", wish, w.name)
	})
}

func (w *workstation) add(d backend.Device, r backend.Rates) {
	w.devices = append(w.devices, sched.Device{Info: d.Info(), Rates: r, Need: d.Need, Converts: device.Converts(d)})
}

func (w *workstation) has(kind string) bool {
	return slices.ContainsFunc(w.devices, func(d sched.Device) bool { return d.Info.Kind == kind })
}
