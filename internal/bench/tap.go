package bench

import (
	"context"

	"drover/backend"
)

// tap is a device whose stage the benchmark can reach beside the engine: for
// profiles, between passes.
type tap struct {
	backend.Device
	stage backend.Stage // after Load
}

func (t *tap) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	stage, err := t.Device.Load(ctx, m, runs, l, progress)
	if err != nil {
		return nil, err
	}
	t.stage = stage
	return slowed(stage), nil
}
