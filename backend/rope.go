package backend

import "math"

// Rope is how positions turn queries and keys.
type Rope struct {
	Base   float64
	Dims   int  // how many values of a head are turned; <= HeadDim, even
	Halves bool // pairs are (i, i+Dims/2) as in qwen2; else (2i, 2i+1) as in llama

	Scaling Scaling
	Factor  float64   // context extension; 1: none
	Factors []float32 // (Dims/2) divisors of the frequencies (Llama 3's rope_freqs), or nil

	// YaRN only (Peng et al. 2023, arXiv 2309.00071).
	OrigContext        int // positions of the original training
	BetaFast, BetaSlow float64
	ExtFactor          float64 // share of the YaRN mix; 1 is the paper's
	AttnFactor         float64 // multiplies the magnitude; 1 is the paper's
}

// Scaling is how a rope is stretched to a longer context.
type Scaling uint8

// The ways of scaling.
const (
	ScaleNone Scaling = iota
	ScaleLinear
	ScaleYaRN
)

// Frequencies gives the angle per position of each pair, and the factor that
// multiplies both cosine and sine (1 but for YaRN).
func (r *Rope) Frequencies() (freq []float64, mscale float64) {
	n := r.Dims / 2
	freq, mscale = make([]float64, n), 1
	for i := range freq {
		freq[i] = math.Pow(r.Base, -2*float64(i)/float64(r.Dims))
		if r.Factors != nil {
			freq[i] /= float64(r.Factors[i])
		}
	}
	switch r.Scaling {
	case ScaleLinear:
		for i := range freq {
			freq[i] /= r.Factor
		}
	case ScaleYaRN:
		// pairs that turn more than BetaFast times over the original context stay,
		// those that turn less than BetaSlow times are stretched, with a ramp between
		pair := func(turns float64) float64 {
			return float64(r.Dims) * math.Log(float64(r.OrigContext)/(turns*2*math.Pi)) / (2 * math.Log(r.Base))
		}
		lo := math.Max(0, math.Floor(pair(r.BetaFast)))
		hi := math.Min(float64(r.Dims-1), math.Ceil(pair(r.BetaSlow)))
		for i := range freq {
			ramp := (float64(i) - lo) / math.Max(0.001, hi-lo)
			keep := (1 - math.Min(1, math.Max(0, ramp))) * r.ExtFactor
			freq[i] = freq[i]/r.Factor*(1-keep) + freq[i]*keep
		}
		mscale = r.AttnFactor
		if r.ExtFactor != 0 {
			mscale *= 1 + 0.1*math.Log(r.Factor)
		}
	}
	return freq, mscale
}

// Table fills cos and sin, each (hi-lo, Dims/2), for positions [lo, hi).
func (r *Rope) Table(cos, sin []float32, lo, hi int) {
	freq, mscale := r.Frequencies()
	for p := lo; p < hi; p++ {
		for i, f := range freq {
			s, c := math.Sincos(float64(p) * f)
			cos[(p-lo)*len(freq)+i] = float32(c * mscale)
			sin[(p-lo)*len(freq)+i] = float32(s * mscale)
		}
	}
}
