package backendtest

import (
	"testing"

	"drover/backend"
	"drover/internal/ref"
)

func refOptions() Options {
	return Options{
		Same:  []backend.Device{ref.New()},
		Small: func(memory uint64) backend.Device { return &ref.Device{Memory: memory} },
	}
}

func TestReference(t *testing.T) { Run(t, ref.New(), refOptions()) }
