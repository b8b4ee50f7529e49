// Package sample chooses the next token from a row of logits. It knows nothing
// of models or text: ids and numbers in, an id out.
//
// The order is llama.cpp's default chain (its tools/main/README.md, "Sampling
// parameters") without the members that drover has no flag for (DRY, XTC,
// top-n-sigma): penalties, top-k, typical, top-p, min-p, temperature, draw.
//
// The same seed gives the same ids on every run and every platform, given the
// same logits: arithmetic is float64 with every product rounded (no fused
// multiply-add), sums are taken in a fixed order, ties go to the lower id, and
// the draw is PCG-DXSM (math/rand/v2), one 53-bit number a token.
package sample

import (
	"fmt"
	"math"
)

// Params are the sampling flags of `run`, by the same names.
type Params struct {
	Seed          uint64
	Temp          float64 // 0: greedy, the largest logit after penalties
	TopK          int     // keep the k largest; <= 0: all
	TopP          float64 // keep the smallest set of at least this probability; 1: all
	MinP          float64 // keep what has at least this share of the largest probability; 0: all
	Typical       float64 // locally typical sampling (Meister et al. 2022, arXiv 2202.00666); 1: off
	RepeatPenalty float64 // divides positive and multiplies negative logits of seen tokens (Keskar et al. 2019, arXiv 1909.05858); 1: off
	RepeatLastN   int     // how many tokens back the three penalties look; 0: off, -1: all
	Presence      float64 // subtracted once from seen tokens
	Frequency     float64 // subtracted for each time that a token was seen
}

// Defaults are the values that the flags have when they are not given.
func Defaults() Params {
	return Params{Temp: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, Typical: 1, RepeatPenalty: 1, RepeatLastN: 64}
}

// Greedy always takes the largest logit.
func Greedy() Params { return Params{TopP: 1, Typical: 1, RepeatPenalty: 1} }

// Validate names the first parameter that is out of its range.
func (p Params) Validate() error {
	inUnit := func(x float64) bool { return x >= 0 && x <= 1 }
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	switch {
	case !finite(p.Temp) || p.Temp < 0:
		return fmt.Errorf("temp %v: want 0 (greedy) or a positive number", p.Temp)
	case !inUnit(p.TopP):
		return fmt.Errorf("top-p %v: want 0 to 1 (1 turns it off)", p.TopP)
	case !inUnit(p.MinP):
		return fmt.Errorf("min-p %v: want 0 to 1 (0 turns it off)", p.MinP)
	case !inUnit(p.Typical):
		return fmt.Errorf("typical %v: want 0 to 1 (1 turns it off)", p.Typical)
	case !finite(p.RepeatPenalty) || p.RepeatPenalty <= 0:
		return fmt.Errorf("repeat-penalty %v: want a positive number (1 turns it off)", p.RepeatPenalty)
	case p.RepeatLastN < -1:
		return fmt.Errorf("repeat-last-n %d: want 0 (off), a number of tokens, or -1 (all)", p.RepeatLastN)
	case !finite(p.Presence):
		return fmt.Errorf("presence-penalty %v: want a number", p.Presence)
	case !finite(p.Frequency):
		return fmt.Errorf("frequency-penalty %v: want a number", p.Frequency)
	}
	return nil
}

// penalties reports whether any of the three has an effect.
func (p Params) penalties() bool {
	return p.RepeatLastN != 0 && (p.RepeatPenalty != 1 || p.Presence != 0 || p.Frequency != 0)
}
