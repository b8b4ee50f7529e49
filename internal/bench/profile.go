package bench

import (
	"context"
	"time"

	"drover/backend"
)

// profiler is what a stage may be beside the contract: it tells what its ops took.
type profiler interface {
	Profile(on bool)            // begins a profile, from nothing, or ends it
	Profiled() []backend.OpTime // so far, in the order of the pass
}

// Op is one op of a profiled pass. Times and amounts are the pass's, divided by
// its tokens.
type Op struct {
	Block       string   `json:"block"` // batch, embed, attention, feed-forward, head, or empty for what no op accounts for
	Op          string   `json:"op"`
	Calls       float64  `json:"calls_per_token"`
	Barriers    float64  `json:"barriers_per_token"` // times that all workers started together and were waited for
	US          float64  `json:"us_per_token"`
	Share       float64  `json:"share"`                      // of the pass
	Bytes       float64  `json:"bytes_per_token"`            // of weights and cache, to be read
	Activations float64  `json:"activation_bytes_per_token"` // in and out, cache rows written
	Ops         float64  `json:"ops_per_token"`              // with quantised weights
	FloatOps    float64  `json:"float_ops_per_token"`        // with float weights, and attention's
	LimitUS     *float64 `json:"limit_us"`                   // by the rates measured in this run
	LimitShare  *float64 `json:"limit_share"`                // limit_us / us_per_token
}

// profile runs one more pass of a test and takes its time apart. It is nil where
// the stage does not tell, or there are several. The engine is at rest meanwhile.
func (r *runner) profile(ctx context.Context, t Test) ([]Op, error) {
	p, ok := r.taps[0].stage.(profiler)
	if !ok || len(r.taps) > 1 {
		return nil, nil
	}
	l := newLoop(r.taps[0].stage, &r.subject.Model.Config, r.engine.Plan().Limits, t)
	if err := l.fill(ctx, t); err != nil {
		return nil, err
	}
	p.Profile(true)
	defer p.Profile(false)
	start := time.Now()
	if err := l.pass(ctx, t); err != nil {
		return nil, err
	}
	return perToken(p.Profiled(), time.Since(start), float64(t.tokens()), r.parts[0].rates), nil
}

// perToken divides what the ops of a pass took by its tokens.
func perToken(times []backend.OpTime, pass time.Duration, tokens float64, rates backend.Rates) []Op {
	list := []Op{}
	rest := pass
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / tokens }
	for _, o := range times {
		rest -= o.Time
		op := Op{Block: o.Block, Op: o.Op, US: us(o.Time), Share: float64(o.Time) / float64(pass),
			Calls: float64(o.Calls) / tokens, Barriers: float64(o.Barriers) / tokens,
			Bytes: float64(o.Bytes) / tokens, Activations: float64(o.Activations) / tokens,
			Ops: float64(o.Ops) / tokens, FloatOps: float64(o.FloatOps) / tokens}
		if op.LimitUS = positive(1e6 * op.limit(rates)); op.LimitUS != nil {
			op.LimitShare = positive(*op.LimitUS / op.US)
		}
		list = append(list, op)
	}
	return append(list, Op{Op: "other", US: us(rest), Share: float64(rest) / float64(pass)})
}

// limit is the seconds that the measured rates allow for an op, the slower of
// its memory and its arithmetic; 0 where it needs a rate that was not measured.
func (o *Op) limit(r backend.Rates) float64 {
	var memory, arithmetic float64
	for _, part := range []struct {
		amount, rate float64
		seconds      *float64
	}{{o.Bytes + o.Activations, r.Read, &memory}, {o.Ops, r.Matrix, &arithmetic}, {o.FloatOps, r.Float, &arithmetic}} {
		if part.amount == 0 {
			continue
		}
		if part.rate == 0 {
			return 0
		}
		*part.seconds += part.amount / part.rate
	}
	return max(memory, arithmetic)
}
