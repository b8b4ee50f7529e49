package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"drover/backend"
	"drover/internal/quant"
)

// Plan says what lies where, in the form that --json prints.
type Plan struct {
	Context   int         `json:"ctx"`                    // most positions of a sequence
	Limit     string      `json:"limit"`                  // what bounds the context: "model", "flag" or "memory"
	Predicted *float64    `json:"predicted_tokens_per_s"` // decode of one sequence; null until Predict
	Stages    []StagePlan `json:"stages"`

	// Wanted is the context that was asked for; above Context it did not fit.
	Wanted int            `json:"-"`
	Limits backend.Limits `json:"-"`
	Places []Placement    `json:"-"` // where each of Stages lies
}

// StagePlan is one device's part. Sizes are in bytes.
type StagePlan struct {
	Device      string   `json:"device"`
	ISA         string   `json:"isa"`
	Blocks      [][2]int `json:"blocks"`
	Layers      [2]int   `json:"layers"` // [lo, hi) of the layers that have a block here
	Weights     uint64   `json:"weights"`
	Cache       uint64   `json:"cache"`
	Scratch     uint64   `json:"scratch"`
	Host        uint64   `json:"host"`
	PredictedMS *float64 `json:"predicted_ms"`        // a token's time here; null until Predict
	Converted   []string `json:"converted,omitempty"` // weight formats that the device has no kernels for: int8 with a scale per 16, exactly

	reads map[quant.Type]uint64 // bytes of weights that decoding a token reads
}

// smallest is the context below which shrinking gives up.
const smallest = 4 * backend.PageRows

// Fixed plans for a placement that is given. A memory error bounds the free memory
// of the plan after it.
func Fixed(m *backend.Model, places []Placement, o Options) Planner {
	return func(_ context.Context, why error) (*Plan, error) {
		if _, err := order(m, places); err != nil {
			return nil, err
		}
		var short *backend.MemoryError
		switch {
		case why == nil:
			return plan(m, places, o, 0)
		case errors.As(why, &short) && short.Free > 0 && o.Context == 0 && !o.FitOff:
			return plan(m, places, o, short.Free)
		}
		return nil, why
	}
}

// plan finds the context, and what every stage needs for it. free, if not 0,
// is a bound on every device's free memory that a failed Load has shown.
func plan(m *backend.Model, places []Placement, o Options, free uint64) (*Plan, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	wanted, limit := o.Context, "flag"
	if wanted == 0 {
		wanted, limit = m.Config.Context, "model"
	}
	p, err := planContext(m, places, o, wanted, free, 0)
	if err == nil {
		p.Limit = limit
	}
	short := errors.Is(err, backend.ErrMemory)
	if !short || o.FitOff || o.Context != 0 || wanted <= smallest {
		return p, err
	}
	// The most whole pages that fit. A sixteenth is left to the rest of the
	// system, since nobody asked for exactly this size.
	lo, hi := smallest/backend.PageRows, pagesOf(wanted)
	best, err := planContext(m, places, o, smallest, free, 16)
	if err != nil {
		return nil, err
	}
	for lo+1 < hi {
		mid := (lo + hi) / 2
		p, err := planContext(m, places, o, mid*backend.PageRows, free, 16)
		switch {
		case err == nil:
			lo, best = mid, p
		case errors.Is(err, backend.ErrMemory):
			hi = mid
		default:
			return nil, err
		}
	}
	best.Limit, best.Wanted = "memory", wanted
	return best, nil
}

// planContext is the plan for one context; a *backend.MemoryError if it does
// not fit. spare keeps 1/spare of the free memory unused.
func planContext(m *backend.Model, places []Placement, o Options, context int, free uint64, spare uint64) (*Plan, error) {
	l := o.Limits(&m.Config, context)
	p := &Plan{Context: l.Context, Wanted: context, Limits: l, Places: places}
	needs := map[string]uint64{} // two stages on one device share its memory
	for _, place := range places {
		info := place.Device.Info()
		need, err := place.Device.Need(m, place.Runs, l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.ID, err)
		}
		if free > 0 {
			info.Free = min(info.Free, free)
		}
		if spare > 0 {
			info.Free -= info.Free / spare
		}
		needs[info.ID] += need.Total()
		if info.Total > 0 && needs[info.ID] > info.Free { // a Total of 0: the device does not know
			return nil, &backend.MemoryError{Device: info.ID, Need: needs[info.ID], Free: info.Free}
		}
		p.Stages = append(p.Stages, stagePlan(m, place, info, need))
	}
	return p, nil
}

// converter is a device that rewrites weights of some formats as int8 with a
// float32 scale per 16, exactly, which takes 10 bits a weight.
type converter interface{ Converts(t quant.Type) bool }

func stagePlan(m *backend.Model, place Placement, info backend.Info, need backend.Need) StagePlan {
	s := StagePlan{Device: info.ID, ISA: info.ISA, Weights: need.Weights, Cache: need.Cache, Scratch: need.Scratch, Host: need.Host,
		reads: map[quant.Type]uint64{}}
	device, _ := place.Device.(converter)
	layers := &m.Config.Layers
	lo, hi := *layers, 0
	for _, r := range place.Runs {
		s.Blocks = append(s.Blocks, [2]int{r.Lo, r.Hi})
		for b := max(r.Lo, 1); b < min(r.Hi, m.Config.Blocks()-1); b++ {
			lo, hi = min(lo, (b-1)/2), max(hi, (b-1)/2+1)
		}
		for _, t := range m.Tensors(backend.Range{Lo: max(r.Lo, 1), Hi: r.Hi}) { // the embedding gives one row
			s.reads[t.Type] += t.Bytes()
		}
		for _, t := range m.Tensors(r) {
			if name := t.Type.String(); device != nil && device.Converts(t.Type) && !slices.Contains(s.Converted, name) {
				s.Converted = append(s.Converted, name)
			}
		}
		s.skipExperts(m, r)
	}
	s.Layers = [2]int{min(lo, hi), hi}
	return s
}

// skipExperts takes off the experts that a token does not go to.
func (s *StagePlan) skipExperts(m *backend.Model, r backend.Range) {
	c := &m.Config
	if c.Experts == 0 {
		return
	}
	for b := max(r.Lo, 2); b < min(r.Hi, c.Blocks()-1); b++ {
		if b%2 == 0 {
			l := &m.Layers[(b-1)/2]
			for _, t := range []*backend.Tensor{l.Gate, l.Up, l.Down} {
				s.reads[t.Type] -= t.Bytes() / uint64(c.Experts) * uint64(c.Experts-c.ExpertsUsed)
			}
		}
	}
}

// Predict fills in the predicted times from measured rates, one for each
// stage: reading the weights, and one launch a block.
func (p *Plan) Predict(rates []backend.Rates) {
	total := 0.0
	for i := range p.Stages {
		s, r := &p.Stages[i], &rates[i]
		seconds := 0.0
		for t, bytes := range s.reads {
			rate := r.Format[t]
			if rate == 0 {
				rate = r.Read
			}
			if rate == 0 {
				return
			}
			seconds += float64(bytes) / rate
		}
		for _, b := range s.Blocks {
			seconds += float64(b[1]-b[0]) * r.Launch
		}
		ms := seconds * 1000
		s.PredictedMS = &ms
		total += seconds
	}
	if total > 0 {
		perSecond := 1 / total
		p.Predicted = &perSecond
	}
}
