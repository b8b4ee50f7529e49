//go:build (linux && cgo) || windows

package cuda

import (
	"context"
	"fmt"

	"drover/backend"
)

func (d *device) Measure(context.Context) (backend.Rates, error) {
	return backend.Rates{}, fmt.Errorf("%s: %w: measuring", d.id, backend.ErrUnsupported)
}

func (d *device) Need(*backend.Model, []backend.Range, backend.Limits) (backend.Need, error) {
	return backend.Need{}, fmt.Errorf("%s: %w: stages", d.id, backend.ErrUnsupported)
}

func (d *device) Load(context.Context, *backend.Model, []backend.Range, backend.Limits, func(done, total uint64)) (backend.Stage, error) {
	return nil, fmt.Errorf("%s: %w: stages", d.id, backend.ErrUnsupported)
}
