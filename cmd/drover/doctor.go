package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/doctor"
)

func doctorCommand() *cli.Command {
	f := deviceFlag().(*cli.StringFlag)
	f.Value, f.Usage = "all", "`DEVICE` or list to check: all, cpu, cuda, cuda:N, cuda:UUID, metal"
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check each device by running kernels, and say what to do where it fails",
		UsageText: "drover doctor [--device LIST]",
		Description: "Writes and reads memory, then runs a prompt and decodes with small models in several formats,\n" +
			"and compares with the reference. Exit status 6: a check failed; 4: a device that is named is not here.",
		Flags:  []cli.Flag{f, intFlag(catDevice, "", "threads", 0, "CPU threads (0: one a core)", "t")},
		Action: runDoctor,
	}
}

// checkDoc is a check in JSON. ok is false for those that fail alone.
type checkDoc struct {
	Device string `json:"device"`
	Kind   string `json:"kind"`
	Check  string `json:"check"`
	Status string `json:"status"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`

	NMSE  *float64 `json:"nmse,omitempty"`       // of results: against the reference; absent where it is no number
	Limit float64  `json:"nmse_limit,omitempty"` // the largest that is right
}

// patient is a device to examine.
type patient struct {
	id, kind string
	dev      backend.Device
}

func runDoctor(c *cli.Context) error {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	if n := c.Int("threads"); n < 0 || n > 4096 {
		return usageError("0 means one thread a core", "flag --threads: %d is not a number of threads", n)
	}
	o := device.Options{ISA: os.Getenv("DROVER_CPU"), Threads: c.Int("threads")}
	found, missing, wanted, err := findPatients(c.String("device"), o)
	if err != nil {
		return err
	}
	p := newVerdicts(c)
	p.add(missing...)
	if len(found) > 0 {
		d, err := doctor.New(c.Context)
		if err != nil {
			return err
		}
		for _, f := range found {
			p.add(d.Examine(c.Context, f.id, f.kind, f.dev)...)
			if err := c.Context.Err(); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(found, func(f patient) bool { return f.kind == "cpu" }) {
		p.add(doctor.Advise("/")...)
	}
	return p.end(wanted)
}

// findPatients gives the devices to examine, and checks of what is not here or
// cannot be used; wanted are those of these that were named.
func findPatients(spec string, o device.Options) (found []patient, missing []doctor.Check, wanted []string, err error) {
	if spec == "auto" || spec == "all" {
		devices, absent, err := device.All(o)
		if errors.Is(err, device.ErrUnavailable) { // the CPU's kernels; the GPUs are here all the same
			wanted = append(wanted, "cpu")
			missing = append(missing, doctor.Check{Device: "cpu", Kind: "cpu", Name: "find", Status: doctor.Fail, Detail: err.Error(), Hint: device.Remedy(err)})
			o.ISA = ""
			devices, absent, err = device.All(o)
			devices = devices[:max(0, len(devices)-1)]
		}
		if err != nil {
			return nil, nil, nil, err
		}
		for _, d := range devices {
			found = append(found, newPatient(d))
		}
		for _, a := range absent {
			missing = append(missing, notFound(a))
		}
		return found, missing, wanted, nil
	}
	seen := map[string]bool{}
	for _, name := range strings.Split(spec, ",") {
		name = strings.TrimSpace(name)
		devices, err := device.Find(name, o)
		if errors.Is(err, device.ErrUnavailable) {
			kind, _, _ := strings.Cut(name, ":")
			missing = append(missing, doctor.Check{Device: name, Kind: kind, Name: "find", Status: doctor.Fail, Detail: err.Error(), Hint: device.Remedy(err)})
			wanted = append(wanted, name)
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		for _, d := range devices {
			if p := newPatient(d); !seen[p.id] {
				seen[p.id] = true
				found = append(found, p)
			}
		}
	}
	return found, missing, wanted, nil
}

func newPatient(d backend.Device) patient {
	id := device.ID(d)
	kind, _, _ := strings.Cut(id, ":")
	return patient{id, kind, d}
}

func notFound(a device.Absent) doctor.Check {
	c := doctor.Check{Device: a.ID, Kind: a.Kind, Name: "find", Status: doctor.Absent, Detail: a.Cause, Hint: a.Remedy}
	if c.Device == "" {
		c.Device = a.Kind
	}
	if a.Broken {
		c.Status = doctor.Fail
	}
	return c
}

// verdicts collects checks, and writes those of a device as they come unless it is
// for JSON.
type verdicts struct {
	c      *cli.Context
	w      io.Writer // nil: JSON at the end
	colour bool
	docs   []checkDoc
	failed []string // devices, each once
	err    error
}

func newVerdicts(c *cli.Context) *verdicts {
	v := &verdicts{c: c, docs: []checkDoc{}}
	if !wantJSON(c) {
		v.w, v.colour = c.App.Writer, isTerminal(c.App.Writer) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return v
}

// add takes checks; those of one device come together.
func (v *verdicts) add(checks ...doctor.Check) {
	for i := 0; i < len(checks); {
		last := i
		for last < len(checks) && checks[last].Device == checks[i].Device && checks[last].Status != doctor.Advice {
			last++
		}
		last = max(last, i+1)
		v.device(checks[i:last])
		i = last
	}
}

// device writes what failed of one device's checks, or in one line that all is
// right.
func (v *verdicts) device(checks []doctor.Check) {
	var failed []doctor.Check
	for _, c := range checks {
		doc := checkDoc{Device: c.Device, Kind: c.Kind, Check: c.Name, Status: string(c.Status), OK: c.Status != doctor.Fail, Detail: c.Detail, Hint: c.Hint, Limit: c.Limit}
		if c.Limit > 0 && !math.IsNaN(c.NMSE) && !math.IsInf(c.NMSE, 0) {
			doc.NMSE = &c.NMSE
		}
		v.docs = append(v.docs, doc)
		if c.Status == doctor.Fail {
			failed = append(failed, c)
		}
	}
	switch {
	case len(failed) > 0:
		v.failed = append(v.failed, checks[0].Device)
		for i, c := range failed {
			text := c.Detail
			if i+1 < len(failed) && failed[i+1].Hint == c.Hint {
				c.Hint = "" // it follows the last that it is for
			}
			if c.Name != "find" {
				text = c.Name + ": " + text
			}
			v.line("FAIL", "31", c.Device, text, c.Hint)
		}
	case checks[0].Status == doctor.Pass:
		v.line("PASS", "32", checks[0].Device, doctor.Summary(checks), "")
	default:
		v.line(string(checks[0].Status), "33", checks[0].Device, checks[0].Detail, checks[0].Hint)
	}
}

func (v *verdicts) line(word, colour, device, text, hint string) {
	if v.w == nil || v.err != nil {
		return
	}
	mark := fmt.Sprintf("%-6s", word)
	if v.colour {
		mark = "\x1b[" + colour + "m" + mark + "\x1b[0m"
	}
	if first, _, more := strings.Cut(text, "\n"); more { // a compiler's log, say; JSON has all of it
		text = first + " ..."
	}
	indent := 8 + max(8, utf8.RuneCountInString(device)+2)
	out := fmt.Sprintf("%s  %-*s%s\n", mark, indent-8, device, text)
	if hint != "" {
		out += strings.Repeat(" ", indent) + hint + "\n"
	}
	_, v.err = io.WriteString(v.w, out)
}

// end gives the verdict: JSON, and the error of what failed. wanted are devices
// that were named and cannot be used.
func (v *verdicts) end(wanted []string) error {
	if v.err != nil {
		return v.err
	}
	if len(v.failed) == 0 {
		if v.w != nil {
			return nil
		}
		return writeJSON(v.c.App.Writer, map[string]any{"schema": 1, "checks": v.docs, "ok": true})
	}
	f := &failure{exit: exitVerify, code: "verify", device: v.failed[0], partly: map[string]any{"checks": v.docs, "ok": false},
		err: fmt.Errorf("checks failed: %s", strings.Join(v.failed, ", "))}
	if slices.Equal(v.failed, wanted) {
		f.exit, f.code = exitDevice, "device"
	}
	for _, d := range v.docs {
		if !d.OK && f.hint == "" {
			f.hint = d.Hint
		}
	}
	if v.w != nil {
		f.hint = "" // it stands above
	}
	return f
}
