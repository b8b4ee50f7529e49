package engine

import (
	"context"
	"errors"

	"drover/backend"
)

// together is a plan's stages as one.
type together struct {
	stages []backend.Stage
	runs   []run
	hidden []float32 // (Rows, dim), where there is more than one run
	dim    int
}

// Together loads a plan's stages as one with one run, the whole model: a batch goes
// through one stage after the other. It is for who drives a stage and no engine.
func Together(ctx context.Context, m *backend.Model, p *Plan, progress func(done, total uint64)) (backend.Stage, error) {
	runs, err := order(m, p.Places)
	if err != nil {
		return nil, err
	}
	stages, err := loadStages(ctx, m, p, progress)
	if err != nil {
		return nil, err
	}
	t := &together{stages: stages, runs: runs, dim: m.Config.Dim}
	if len(runs) > 1 {
		t.hidden = make([]float32, p.Limits.Rows*t.dim)
	}
	return t, nil
}

func (t *together) Forward(ctx context.Context, _ int, b *backend.Batch) error {
	if t.hidden != nil {
		b.Hidden = t.hidden[:len(b.Tokens)*t.dim]
		defer func() { b.Hidden = nil }()
	}
	for _, r := range t.runs {
		if err := t.stages[r.stage].Forward(ctx, r.index, b); err != nil {
			return err
		}
	}
	return nil
}

func (t *together) Close() error { return errors.Join(closeStages(t.stages)...) }
