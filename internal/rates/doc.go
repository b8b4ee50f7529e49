// Package rates keeps how fast devices are: what Measure found, until the device,
// its driver or its power limit is another, and what runs showed since. It says
// how rates look in JSON, and guesses them where nothing can be measured.
package rates

import (
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/quant"
)

// Doc is rates in JSON: in `drover devices --measure --json`, in descriptions of
// machines and in the files of a Store.
type Doc struct {
	Read   float64            `json:"read_bytes_per_s"`
	Copy   float64            `json:"copy_bytes_per_s"`
	Matrix float64            `json:"matrix_ops_per_s"`
	Float  float64            `json:"float_ops_per_s"` // 0: not measured
	Format map[string]float64 `json:"format_bytes_per_s"`
	Launch float64            `json:"launch_s"`
	Link   float64            `json:"link_bytes_per_s"`

	Latency float64 `json:"latency_s"` // of a crossing; 0: not measured

	Layers   map[string][]LayerDoc `json:"layers,omitempty"` // by format
	Mixtures []MixtureDoc          `json:"mixtures,omitempty"`
}

// LayerDoc is how long a layer takes: backend.LayerTime in JSON.
type LayerDoc struct {
	Weights float64 `json:"weights"`
	Decode  float64 `json:"decode_s"`
	Prompt  float64 `json:"prompt_512_s"`
}

// MixtureDoc is how long a layer with experts takes: backend.MixtureTime in JSON.
type MixtureDoc struct {
	Format  string `json:"format"`
	Dim     int    `json:"dim"`
	FFN     int    `json:"ffn"`
	Experts int    `json:"experts"`
	Used    int    `json:"used"`
	LayerDoc
}

// NewDoc is rates as JSON.
func NewDoc(r backend.Rates) *Doc {
	doc := &Doc{Read: r.Read, Copy: r.Copy, Matrix: r.Matrix, Float: r.Float, Format: map[string]float64{}, Launch: r.Launch, Link: r.Link, Latency: r.Latency}
	for t, rate := range r.Format {
		doc.Format[t.String()] = rate
	}
	for t, times := range r.Layers {
		if doc.Layers == nil {
			doc.Layers = map[string][]LayerDoc{}
		}
		for _, l := range times {
			doc.Layers[t.String()] = append(doc.Layers[t.String()], LayerDoc(l))
		}
	}
	for _, m := range r.Mixtures {
		doc.Mixtures = append(doc.Mixtures, MixtureDoc{m.Format.String(), m.Dim, m.FFN, m.Experts, m.Used, LayerDoc(m.LayerTime)})
	}
	return doc
}

// Rates bounds every rate, so that no sum of times is infinite. The error names
// what is wrong.
func (doc *Doc) Rates() (backend.Rates, error) {
	r := backend.Rates{Read: doc.Read, Copy: doc.Copy, Matrix: doc.Matrix, Float: doc.Float, Launch: doc.Launch, Link: doc.Link, Latency: doc.Latency, Format: map[quant.Type]float64{}}
	for _, c := range []struct {
		name        string
		value       float64
		least, most float64
		optional    bool // 0 is possible
	}{
		{"read_bytes_per_s", r.Read, 1e6, 1e18, false}, {"matrix_ops_per_s", r.Matrix, 1e6, 1e21, false}, {"float_ops_per_s", r.Float, 1e6, 1e21, true},
		{"copy_bytes_per_s", r.Copy, 1e6, 1e18, true}, {"launch_s", r.Launch, 0, 1, true}, {"link_bytes_per_s", r.Link, 1e3, 1e18, true}, {"latency_s", r.Latency, 0, 1, true},
	} {
		if (c.value < c.least || c.value > c.most || math.IsNaN(c.value)) && !(c.optional && c.value == 0) {
			return r, fmt.Errorf("%s is %v: from %g to %g is possible", c.name, c.value, c.least, c.most)
		}
	}
	for name, rate := range doc.Format {
		t, err := quant.Parse(name)
		if err != nil || !(rate >= 1e6 && rate <= 1e18) {
			return r, fmt.Errorf("format_bytes_per_s has %.40q at %v: a number format and bytes a second from 1e6 to 1e18 are possible", name, rate)
		}
		r.Format[t] = rate
	}
	for name, times := range doc.Layers {
		t, err := quant.Parse(name)
		if err != nil {
			return r, fmt.Errorf("layers has %.40q, which is no number format", name)
		}
		if r.Layers == nil {
			r.Layers = map[quant.Type][]backend.LayerTime{}
		}
		last := 0.
		for _, l := range times {
			if !(l.Weights > last && l.possible()) {
				return r, fmt.Errorf("layers of %s has %+v: ascending numbers of weights and positive seconds are possible", name, l)
			}
			last = l.Weights
			r.Layers[t] = append(r.Layers[t], backend.LayerTime(l))
		}
	}
	for _, m := range doc.Mixtures {
		t, err := quant.Parse(m.Format)
		if err != nil || m.Dim < 1 || m.FFN < 1 || m.Used < 1 || m.Used > m.Experts || !m.possible() {
			return r, fmt.Errorf("mixtures has %+v: a number format, positive sizes and seconds are possible, and no more experts in use than there are", m)
		}
		r.Mixtures = append(r.Mixtures, backend.MixtureTime{Mixture: backend.Mixture{Format: t, Dim: m.Dim, FFN: m.FFN, Experts: m.Experts, Used: m.Used}, LayerTime: backend.LayerTime(m.LayerDoc)})
	}
	return r, nil
}

// possible says whether a layer may have so many weights and take so long.
func (l LayerDoc) possible() bool {
	return l.Weights > 0 && l.Weights <= 1e12 && l.Decode >= 1e-9 && l.Decode <= 1e3 && l.Prompt >= 1e-9 && l.Prompt <= 1e6
}

// Guess is about how fast a device may be, from its kind and size alone: what a
// multiprocessor or core of common ones does. It is right to a factor of three.
func Guess(i backend.Info) backend.Rates {
	cores := float64(max(i.Cores, 1))
	switch i.Kind {
	case "cuda":
		return backend.Rates{Read: 1e10 * cores, Matrix: 5e11 * cores, Float: 2e11 * cores, Launch: 1e-6, Link: 1e10}
	case "metal":
		return backend.Rates{Read: 1.5e11, Matrix: 5e12, Float: 4e12, Launch: 5e-6}
	}
	return backend.Rates{Read: 3e10, Matrix: 1e11 * cores, Float: 5e10 * cores, Launch: 1e-6}
}
