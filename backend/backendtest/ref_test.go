package backendtest

import (
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

func refOptions() Options {
	return Options{
		Same:  []backend.Device{ref.New()},
		Small: func(memory uint64) backend.Device { return &ref.Device{Memory: memory} },
	}
}

func TestReference(t *testing.T) {
	o := refOptions()
	if testing.Short() { // formats differ in how a row is read, which quant's own tests ask of each
		o.Types = []quant.Type{quant.F32, quant.F16, quant.Q8_0, quant.Q4_K, quant.IQ3_S}
	}
	Run(t, ref.New(), o)
}
