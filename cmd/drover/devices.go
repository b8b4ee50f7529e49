package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/rates"
)

func devicesCommand() *cli.Command {
	return &cli.Command{
		Name:  "devices",
		Usage: "show what is here to compute on, and why a backend is absent",
		Flags: []cli.Flag{
			boolFlag("", "", "measure", false, "measure bandwidth and matrix rate anew, about a second a device; plans use what was measured last"),
			intFlag(catDevice, "", "threads", 0, "CPU threads (0: one a core)", "t"),
		},
		Action: devices,
	}
}

// deviceDoc is a device in JSON. Memory in bytes; rates per second.
type deviceDoc struct {
	ID          string     `json:"id"`
	Kind        string     `json:"kind"`
	Name        string     `json:"name"`
	UUID        string     `json:"uuid,omitempty"`
	ISA         string     `json:"isa"`
	Driver      string     `json:"driver,omitempty"`
	Link        string     `json:"link,omitempty"`
	Cores       int        `json:"cores"`
	MemoryTotal uint64     `json:"memory_total"`
	MemoryFree  uint64     `json:"memory_free"`
	Watts       *float64   `json:"watts,omitempty"`
	Celsius     *float64   `json:"celsius,omitempty"`
	MHz         *float64   `json:"mhz,omitempty"`
	Rates       *rates.Doc `json:"rates"` // null unless measured
}

// absentDoc is a backend without devices, or with an ID a card that cannot be
// used.
type absentDoc struct {
	Kind   string `json:"kind"`
	ID     string `json:"id,omitempty"`
	Reason string `json:"reason"`
}

func devices(c *cli.Context) error {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	if n := c.Int("threads"); n < 0 {
		return usageError("0 means one thread a core", "flag --threads: %d is not a number of threads", n)
	}
	found, absent, err := device.All(device.Options{ISA: os.Getenv("DROVER_CPU"), Threads: c.Int("threads")})
	if err != nil {
		return err
	}
	known := newSpeeds(compute{Threads: c.Int("threads")}, c.App.ErrWriter, true)
	docs, none := []deviceDoc{}, []absentDoc{}
	for _, d := range found {
		doc := describe(d)
		if c.Bool("measure") {
			if doc.Rates, err = measureAnew(c, d, known); err != nil {
				return err
			}
		}
		docs = append(docs, doc)
	}
	for _, a := range absent {
		none = append(none, absentDoc{a.Kind, a.ID, a.Reason.Error()})
	}
	if wantJSON(c) {
		return writeJSON(c.App.Writer, map[string]any{"schema": 1, "devices": docs, "absent": none})
	}
	return printDevices(c, docs, none)
}

// measureAnew measures a device for this and later commands. One that cannot be
// measured, as a card that is full, is told and has no rates.
func measureAnew(c *cli.Context, d backend.Device, known *speeds) (*rates.Doc, error) {
	i := d.Info()
	r, err := d.Measure(c.Context)
	if c.Context.Err() != nil {
		return nil, err
	}
	if err != nil {
		fmt.Fprintf(c.App.ErrWriter, "%s cannot be measured: %v\n", i.ID, err)
		return nil, nil
	}
	if !i.Simulated {
		known.measured(known.key(d, i), i.ID, r)
	}
	return rates.NewDoc(r), nil
}

func describe(d backend.Device) deviceDoc {
	i, s := d.Info(), d.Sensors()
	return deviceDoc{ID: i.ID, Kind: i.Kind, Name: i.Name, UUID: i.UUID, ISA: i.ISA, Driver: i.Driver, Link: i.Link, Cores: i.Cores,
		MemoryTotal: i.Total, MemoryFree: i.Free, Watts: s.Watts, Celsius: s.Celsius, MHz: s.MHz}
}

func printDevices(c *cli.Context, docs []deviceDoc, none []absentDoc) error {
	w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tNAME\tISA\tCORES\tMEMORY\tFREE\tBANDWIDTH\tDRIVER\tLINK")
	for _, d := range docs {
		bandwidth := "-"
		if d.Rates != nil {
			bandwidth = fmt.Sprintf("%.1f GB/s", d.Rates.Read/1e9)
		}
		fmt.Fprintln(w, strings.Join([]string{d.ID, d.Name, d.ISA, fmt.Sprint(d.Cores), byteSize(d.MemoryTotal), byteSize(d.MemoryFree),
			bandwidth, orDash(d.Driver), orDash(d.Link)}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, d := range docs {
		if d.Rates == nil {
			continue
		}
		var formats []string
		for _, name := range slices.Sorted(maps.Keys(d.Rates.Format)) {
			formats = append(formats, fmt.Sprintf("%s %.1f GB/s", name, d.Rates.Format[name]/1e9))
		}
		line := fmt.Sprintf("%s: read %.1f GB/s, copy %.1f GB/s, matrix %.0f Gop/s", d.ID, d.Rates.Read/1e9, d.Rates.Copy/1e9, d.Rates.Matrix/1e9)
		if d.Rates.Float > 0 {
			line += fmt.Sprintf(", float32 %.0f Gop/s", d.Rates.Float/1e9)
		}
		line += fmt.Sprintf(", launch %.1f us", d.Rates.Launch*1e6)
		if d.Rates.Link > 0 {
			line += fmt.Sprintf(", link %.1f GB/s", d.Rates.Link/1e9)
		}
		if len(formats) > 0 {
			line += "; decode: " + strings.Join(formats, ", ")
		}
		if _, err := fmt.Fprintln(c.App.Writer, line); err != nil {
			return err
		}
	}
	for _, a := range none {
		if _, err := fmt.Fprintf(c.App.Writer, "no %s: %s\n", cmp.Or(a.ID, a.Kind), a.Reason); err != nil {
			return err
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
