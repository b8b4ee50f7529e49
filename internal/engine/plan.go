package engine

import (
	"context"
	"fmt"

	"drover/backend"
)

// Plan is what an engine loads: which device carries which blocks, within which
// limits.
type Plan struct {
	Limits backend.Limits
	Places []Placement
	Stages []StagePlan // by place
}

// StagePlan is a stage's name in errors, and its part of what is to be loaded.
type StagePlan struct {
	Device  string
	Weights uint64 // bytes
}

// Fixed plans for a placement that is given, with the context that the options
// name, or the model's. A load that fails is not tried again.
func Fixed(m *backend.Model, places []Placement, o Options) Planner {
	return func(_ context.Context, why error) (*Plan, error) {
		if why != nil {
			return nil, why
		}
		if err := o.check(); err != nil {
			return nil, err
		}
		if _, err := order(m, places); err != nil {
			return nil, err
		}
		positions := o.Context
		if positions == 0 {
			positions = m.Config.Context
		}
		p := &Plan{Limits: o.Limits(&m.Config, positions), Places: places}
		for _, place := range places {
			id := place.Device.Info().ID
			need, err := place.Device.Need(m, place.Runs, p.Limits)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", id, err)
			}
			p.Stages = append(p.Stages, StagePlan{Device: id, Weights: need.Weights})
		}
		return p, nil
	}
}
