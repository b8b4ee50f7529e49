package rates

import (
	"math"

	"drover/internal/quant"
)

// A run of fewer than leastTokens says too little, and one of fewer than leastBytes
// of weights read a token shows caches and not memory. One run moves a speed by the
// damping-th root of what it showed, and by no more than a factor of two is believed;
// all of them together stay between slowest and fastest.
const (
	leastTokens      = 32
	leastBytes       = 256 << 20
	damping          = 4
	slowest, fastest = 0.25, 4
)

// Run is what decoding showed on one device, as means over its tokens.
type Run struct {
	Format              quant.Type // of most of the weights
	Tokens              int
	Bytes               uint64  // of weights that a token reads
	Predicted, Measured float64 // milliseconds a token; predicted with the speed that the entry has
}

// Learn lets a run correct the speed of a weight format. Others' work beside a run,
// and what is not the reading of weights, show in it too; therefore one run moves the
// speed by the fourth root of the ratio alone. It reports whether there was something
// to learn.
func (e *Entry) Learn(r Run) bool {
	ratio := r.Predicted / r.Measured
	if r.Tokens < leastTokens || r.Bytes < leastBytes || !(r.Predicted > 0) || !(r.Measured > 0) || math.IsInf(ratio, 0) {
		return false
	}
	speed, known := e.Speed[r.Format]
	if !known {
		speed = 1
	}
	ratio = min(max(ratio, 0.5), 2)
	if e.Speed == nil {
		e.Speed = map[quant.Type]float64{}
	}
	e.Speed[r.Format] = min(max(speed*math.Pow(ratio, 1./damping), slowest), fastest)
	return true
}
