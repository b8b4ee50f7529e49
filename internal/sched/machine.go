package sched

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"drover/backend"
	"drover/internal/rates"
)

// Machine is a workstation as a file describes it: what `drover devices --measure
// --json` prints of this one, or what somebody wrote of one to buy. JSON, at most
// 1 MiB:
//
//	{"schema": 1,
//	 "name": "one RTX 3090",             for people; may be left out, as all that says so
//	 "devices": [{                       1 to 16
//	   "id": "cuda:0",                   as --device names it; each once
//	   "kind": "cuda",                   cuda, metal, cpu
//	   "name": "NVIDIA GeForce RTX 3090", "uuid": "", "driver": "", "link": "PCIe 4.0 x16",   may be left out
//	   "isa": "sm_80",                   the kernels that it runs
//	   "cores": 82,                      multiprocessors; of a CPU, the threads that will compute
//	   "memory_total": "24 GiB",         bytes, or with KiB, MiB, GiB or TiB
//	   "memory_free": "23.2 GiB",        the same; left out: all of it
//	   "watts": 0, "celsius": 0, "mhz": 0,                                  not used; may be left out
//	   "rates": {
//	     "read_bytes_per_s": 8.7e11,     read from memory by all units together
//	     "matrix_ops_per_s": 6.5e13,     in prompts; a multiply and an add are two
//	     "launch_s": 1e-6,               of one kernel; of a CPU, one barrier
//	     "link_bytes_per_s": 2.4e10,     from the host; 0 where the memory is the computer's own
//	     "latency_s": 2e-5,              of a crossing, beside its bytes; left out: 20 us
//	     "float_ops_per_s": 2e13,        in float32; left out: as matrix_ops_per_s
//	     "copy_bytes_per_s": 8e11,       not used; may be left out
//	     "format_bytes_per_s": {"Q4_0": 7.9e11}   of weights in decode; formats left out: as read_bytes_per_s
//	   }}],
//	 "absent": [...]}                    not used; may be left out
//
// A CPU's memory is the computer's, which metal devices share.
type Machine struct {
	Name    string
	Devices []Described
}

// Described is what a file says of a device.
type Described struct {
	Info  backend.Info
	Rates backend.Rates
}

// maxMachine is the largest description that is read, in bytes.
const maxMachine = 1 << 20

// maxMemory bounds what a device is believed to have, in bytes: 1 PiB.
const maxMemory = 1 << 50

// ErrMachine: the description of a machine is not understood.
var ErrMachine = errors.New("bad machine description")

// ReadMachine reads a description. Errors: ErrMachine, those of r.
func ReadMachine(r io.Reader) (*Machine, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMachine+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxMachine {
		return nil, fmt.Errorf("%w: it is larger than 1 MiB", ErrMachine)
	}
	var doc machineDoc
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%w: %s: `drover devices --measure --json` prints one that is good", ErrMachine, where(data, err))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the JSON object", ErrMachine)
	}
	m, err := doc.machine()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMachine, err)
	}
	return m, nil
}

// where puts the line before an error of package json.
func where(data []byte, err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	at := int64(-1)
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &kind):
		at = kind.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends too early"
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if at < 0 || at > int64(len(data)) {
		return text
	}
	return fmt.Sprintf("line %d: %s", 1+bytes.Count(data[:at], []byte("\n")), text)
}

type machineDoc struct {
	Schema  int             `json:"schema"`
	Name    string          `json:"name"`
	Devices []deviceDoc     `json:"devices"`
	Absent  json.RawMessage `json:"absent"`
}

type deviceDoc struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"`
	Name    string     `json:"name"`
	UUID    string     `json:"uuid"`
	ISA     string     `json:"isa"`
	Driver  string     `json:"driver"`
	Link    string     `json:"link"`
	Cores   int        `json:"cores"`
	Total   bytesDoc   `json:"memory_total"`
	Free    *bytesDoc  `json:"memory_free"`
	Watts   *float64   `json:"watts"`
	Celsius *float64   `json:"celsius"`
	MHz     *float64   `json:"mhz"`
	Rates   *rates.Doc `json:"rates"`
}

// bytesDoc is a size: 1073741824 or "1 GiB".
type bytesDoc uint64

func (b *bytesDoc) UnmarshalJSON(data []byte) error {
	text := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	number, unit, _ := strings.Cut(strings.TrimSpace(text), " ")
	factor, ok := map[string]float64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
	x, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(x*factor >= 0) || x*factor > maxMemory {
		return fmt.Errorf("%.40q is no size of a memory: write bytes, or \"24 GiB\"", text)
	}
	*b = bytesDoc(x * factor)
	return nil
}

func (doc *machineDoc) machine() (*Machine, error) {
	if doc.Schema != 1 {
		return nil, fmt.Errorf("schema %d: this drover reads schema 1", doc.Schema)
	}
	if len(doc.Devices) == 0 || len(doc.Devices) > MaxDevices {
		return nil, fmt.Errorf("%d devices: from 1 to %d are possible", len(doc.Devices), MaxDevices)
	}
	m := &Machine{Name: doc.Name}
	seen := map[string]bool{}
	for i := range doc.Devices {
		d, err := doc.Devices[i].described()
		if err != nil {
			return nil, fmt.Errorf("device %d (%.40q): %w", i, doc.Devices[i].ID, err)
		}
		if seen[d.Info.ID] {
			return nil, fmt.Errorf("two devices have the id %.40q", d.Info.ID)
		}
		seen[d.Info.ID] = true
		m.Devices = append(m.Devices, *d)
	}
	return m, nil
}

// mostCores bounds multiprocessors and threads: Need makes room for each thread.
const mostCores = 4096

func (doc *deviceDoc) described() (*Described, error) {
	kind, number, numbered := strings.Cut(doc.ID, ":")
	if numbered {
		if n, err := strconv.ParseUint(number, 10, 16); err != nil || strconv.FormatUint(n, 10) != number {
			return nil, errors.New("the id must be as --device names it: cpu, cuda:0, metal")
		}
	}
	switch {
	case doc.Kind != "cpu" && doc.Kind != "cuda" && doc.Kind != "metal":
		return nil, fmt.Errorf("kind %.40q: cpu, cuda and metal are possible", doc.Kind)
	case kind != doc.Kind || numbered != (kind == "cuda"):
		return nil, fmt.Errorf("the id does not name a device of kind %s: cpu, cuda:0 and metal do", doc.Kind)
	case doc.Cores < 1 || doc.Cores > mostCores:
		return nil, fmt.Errorf("%d cores: from 1 to %d are possible", doc.Cores, mostCores)
	case doc.Total == 0:
		return nil, errors.New("memory_total is missing")
	case doc.Free != nil && *doc.Free > doc.Total:
		return nil, errors.New("memory_free is more than memory_total")
	case doc.Rates == nil:
		return nil, errors.New("it has no rates: `drover devices --measure --json` prints them")
	}
	free := doc.Total
	if doc.Free != nil {
		free = *doc.Free
	}
	d := &Described{Info: backend.Info{ID: doc.ID, Kind: doc.Kind, Name: doc.Name, UUID: doc.UUID, ISA: doc.ISA, Driver: doc.Driver, Link: doc.Link,
		Cores: doc.Cores, Total: uint64(doc.Total), Free: uint64(free)}}
	var err error
	d.Rates, err = doc.Rates.Rates()
	return d, err
}
