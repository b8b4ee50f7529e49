package rates

import (
	"math"

	"drover/internal/quant"
)

// Runs of fewer than least tokens say too little. One run moves a speed by the
// damping-th root of what it showed, and by no more than a factor of two is
// believed; all of them together stay between slowest and fastest.
const (
	least            = 32
	damping          = 4
	slowest, fastest = 0.25, 4
)

// Learn lets a run of so many decoded tokens correct the speed of a weight format:
// predicted and measured are a token's milliseconds, predicted with the speed that
// the entry has. Others' work beside a run, and what is not the reading of weights,
// show in it too; therefore one run moves the speed by the fourth root of the ratio
// alone. It reports whether there was something to learn.
func (e *Entry) Learn(t quant.Type, tokens int, predicted, measured float64) bool {
	ratio := predicted / measured
	if tokens < least || !(predicted > 0) || !(measured > 0) || math.IsInf(ratio, 0) {
		return false
	}
	speed, known := e.Speed[t]
	if !known {
		speed = 1
	}
	ratio = min(max(ratio, 0.5), 2)
	if e.Speed == nil {
		e.Speed = map[quant.Type]float64{}
	}
	e.Speed[t] = min(max(speed*math.Pow(ratio, 1./damping), slowest), fastest)
	return true
}
