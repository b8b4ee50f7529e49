//go:build slowdown

package bench

import (
	"context"
	"os"
	"strconv"
	"time"

	"drover/backend"
)

// slowed makes every Forward take so many times as long as DROVER_SLOWDOWN says,
// 1.05 for 5 %: what a benchmark must find.
func slowed(s backend.Stage) backend.Stage {
	factor, err := strconv.ParseFloat(os.Getenv("DROVER_SLOWDOWN"), 64)
	if err != nil || factor <= 1 {
		return s
	}
	return &slow{s, factor}
}

type slow struct {
	backend.Stage
	factor float64
}

func (s *slow) Forward(ctx context.Context, run int, b *backend.Batch) error {
	began := time.Now()
	err := s.Stage.Forward(ctx, run, b)
	end := began.Add(time.Duration(float64(time.Since(began)) * s.factor))
	for time.Now().Before(end) {
	}
	return err
}
