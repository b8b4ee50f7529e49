package sched

import (
	"errors"
	"io"
	"strings"
	"testing"

	"drover/internal/quant"
)

const oneCard = `{"schema": 1, "name": "a card", "devices": [{"id": "cuda:0", "kind": "cuda", "name": "C", "isa": "sm_80", "cores": 10,
"memory_total": "8 GiB", "memory_free": 1073741824,
"rates": {"read_bytes_per_s": 4e11, "matrix_ops_per_s": 2e13, "launch_s": 1e-6, "link_bytes_per_s": 2e10, "format_bytes_per_s": {"Q4_0": 3e11}}}], "absent": []}`

func TestReadMachine(t *testing.T) {
	m, err := ReadMachine(strings.NewReader(oneCard))
	if err != nil {
		t.Fatal(err)
	}
	d := &m.Devices[0]
	if m.Name != "a card" || len(m.Devices) != 1 || d.Info.ID != "cuda:0" || d.Info.Total != 8<<30 || d.Info.Free != 1<<30 || d.Info.Cores != 10 ||
		d.Rates.Read != 4e11 || d.Rates.Format[quant.Q4_0] != 3e11 || d.Rates.Launch != 1e-6 {
		t.Errorf("got %+v", m)
	}
	m, err = ReadMachine(strings.NewReader(strings.Replace(oneCard, `"memory_free": 1073741824,`, "", 1)))
	if err != nil || m.Devices[0].Info.Free != 8<<30 {
		t.Errorf("without memory_free: %+v, %v", m, err)
	}
}

// What is wrong is refused with a cause that a person can do something about.
func TestReadMachineRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, say string }{
		{`"schema": 1`, `"schema": 2`, "schema 2"},
		{`"schema"`, `"scheme"`, "scheme"},
		{`"name": "C"`, `"nmae": "C"`, "nmae"},
		{oneCard, ``, "too early"},
		{oneCard, `[]`, "line 1"},
		{`"absent": []}`, `"absent": []} {}`, "follows"},
		{`"cores": 10,` + "\n", `"cores": "ten",` + "\n", "line 1"},
		{`"cores": 10`, `"cores": 1000000000`, "cores"},
		{`"cores": 10`, `"cores": 0`, "cores"},
		{`"id": "cuda:0"`, `"id": "cuda:00"`, "--device"},
		{`"id": "cuda:0"`, `"id": "cpu"`, "does not name"},
		{`"id": "cuda:0"`, `"id": "cuda"`, "does not name"},
		{`"kind": "cuda"`, `"kind": "rocm"`, "rocm"},
		{`"8 GiB"`, `"8 GB"`, "24 GiB"},
		{`"8 GiB"`, `"-8 GiB"`, "24 GiB"},
		{`"8 GiB"`, `"1e300 TiB"`, "24 GiB"},
		{`"8 GiB"`, `"NaN"`, "24 GiB"},
		{`"8 GiB"`, `0`, "memory_total"},
		{`"8 GiB"`, `"1 KiB"`, "memory_free is more"},
		{`4e11`, `0`, "read_bytes_per_s"},
		{`4e11`, `1e308`, "read_bytes_per_s"},
		{`2e13`, `-1`, "matrix_ops_per_s"},
		{`1e-6`, `2`, "launch_s"},
		{`2e10`, `1e-300`, "link_bytes_per_s"},
		{`"Q4_0": 3e11`, `"Q9_9": 3e11`, "Q9_9"},
		{`"Q4_0": 3e11`, `"Q4_0": 0`, "Q4_0"},
		{oneCard[strings.Index(oneCard, `"rates"`):strings.Index(oneCard, `], "absent"`)], `"rates": null}`, "no rates"},
		{`], "absent"`, `, ` + oneCard[strings.Index(oneCard, `{"id"`):strings.Index(oneCard, `], "absent"`)] + `], "absent"`, "two devices"},
		{oneCard, `{"schema": 1, "devices": []}`, "0 devices"},
		{oneCard, `{"schema": 1, "devices": [` + strings.Repeat(`{},`, 16) + `{}]}`, "17 devices"},
		{oneCard, strings.Repeat(" ", 1<<20) + oneCard, "larger than 1 MiB"},
	} {
		text := strings.Replace(oneCard, c.old, c.new, 1)
		if text == oneCard {
			t.Fatalf("%q is not in the description", c.old)
		}
		if _, err := ReadMachine(strings.NewReader(text)); !errors.Is(err, ErrMachine) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%.60q for %.60q: got %v, want %q", c.new, c.old, err, c.say)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadMachine(io.MultiReader(strings.NewReader(oneCard), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a reader's error became %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// No text, however odd, does more than fail.
func FuzzReadMachine(f *testing.F) {
	f.Add(oneCard)
	f.Add(`{"schema":1,"devices":[{"memory_total":"1 KiB"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ReadMachine(strings.NewReader(text))
		if (m == nil) != (err != nil) {
			t.Errorf("got %v and %v", m, err)
		}
		if err == nil {
			for i := range m.Devices {
				d := &m.Devices[i]
				if err := checkRates(&Device{Info: d.Info, Rates: d.Rates}); err != nil || d.Info.Free > d.Info.Total || d.Info.Total > maxMemory {
					t.Errorf("%+v passed: %v", d, err)
				}
			}
		}
	})
}
