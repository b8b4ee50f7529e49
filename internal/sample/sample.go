package sample

import (
	"math"
	"math/rand/v2"
)

// stream is the second seed of the generator; drover's own constant, so that
// the ids of a seed never change.
const stream = 0x64726f766572 // "drover"

// huge bounds a logit, so that absurd penalties make no infinity minus infinity.
const huge = math.MaxFloat64 / 4

// Sampler chooses tokens for one sequence. It is used by one goroutine at a
// time. After the first call with a vocabulary, Sample does not allocate.
type Sampler struct {
	p      Params
	source *rand.PCG
	seen   window
	logits []float64   // (vocab) the row after penalties
	cand   []candidate // what is still in the draw
}

type candidate struct {
	id    int32
	logit float64
	p     float64 // probability, not normalised, or the distance from typical
}

// New makes a sampler. Params that Validate refuses are a BUG.
func New(p Params) *Sampler {
	if err := p.Validate(); err != nil {
		panic("BUG: " + err.Error())
	}
	s := &Sampler{p: p, source: rand.NewPCG(p.Seed, stream)}
	if p.penalties() {
		s.seen.last = p.RepeatLastN
	}
	return s
}

// Accept tells the sampler a token of the sequence, of the prompt too: the
// penalties look back at it.
func (s *Sampler) Accept(id int32) { s.seen.add(id) }

// Sample draws an id from one row of logits (vocab), which it only reads. A
// NaN counts as minus infinity and plus infinity as the largest float32. -1:
// no logit was above minus infinity.
func (s *Sampler) Sample(logits []float32) int32 {
	row := s.penalise(logits)
	if s.p.Temp == 0 {
		return argmax(row)
	}
	sorted := s.topK(row)
	if len(s.cand) == 0 {
		return -1
	}
	if s.p.Typical < 1 {
		s.typical()
		sorted = false
	}
	if s.p.TopP < 1 {
		s.topP(sorted)
		sorted = true
	}
	if s.p.MinP > 0 {
		s.minP()
	}
	return s.draw()
}

// penalise gives the row in float64, NaN as -Inf, with the penalties of
// llama_sampler_penalties: logit/r or logit*r by its sign, then minus
// count*frequency + presence.
func (s *Sampler) penalise(logits []float32) []float64 {
	if cap(s.logits) < len(logits) {
		s.logits = make([]float64, len(logits))
	}
	row := s.logits[:len(logits)]
	for i, l := range logits {
		switch {
		case l > math.MaxFloat32:
			l = math.MaxFloat32
		case l != l:
			l = float32(math.Inf(-1))
		}
		row[i] = float64(l)
	}
	s.seen.each(func(id int32, count int) {
		if id < 0 || int(id) >= len(row) {
			return
		}
		l := row[id]
		if l > 0 {
			l = min(l/s.p.RepeatPenalty, huge)
		} else {
			l *= s.p.RepeatPenalty
		}
		l -= float64(float64(count)*s.p.Frequency) + s.p.Presence
		row[id] = min(l, huge)
	})
	return row
}

// argmax is the id of the largest value, the lowest such id; -1 if none is
// above -Inf.
func argmax(row []float64) int32 {
	best, id := math.Inf(-1), int32(-1)
	for i, l := range row {
		if l > best {
			best, id = l, int32(i)
		}
	}
	return id
}

// topK fills cand with the TopK largest, largest first, or with everything in
// order of the ids. It reports whether cand is sorted by logit.
func (s *Sampler) topK(row []float64) (sorted bool) {
	k := s.p.TopK
	c := s.cand[:0]
	if k <= 0 || k >= len(row) {
		for i, l := range row {
			if l > math.Inf(-1) {
				c = append(c, candidate{id: int32(i), logit: l})
			}
		}
		s.cand = c
		return false
	}
	// a heap of the k best with the worst on top: most logits fail the first comparison
	worst := math.Inf(-1)
	for i, l := range row {
		if !(l > worst) {
			continue
		}
		if len(c) < k {
			if c = append(c, candidate{id: int32(i), logit: l}); len(c) == k {
				heapify(c, worse)
				worst = c[0].logit
			}
			continue
		}
		c[0] = candidate{id: int32(i), logit: l}
		siftDown(c, 0, worse)
		worst = c[0].logit
	}
	if len(c) < k {
		heapify(c, worse)
	}
	for n := len(c) - 1; n > 0; n-- {
		c[0], c[n] = c[n], c[0]
		siftDown(c[:n], 0, worse)
	}
	s.cand = c
	return true
}

// typical keeps the candidates whose surprise is nearest to the expected one
// until their probability exceeds Typical. With p = exp(l)/Z the distance
// |-ln p - H| is |E[l] - l|, so that no logarithm is needed.
func (s *Sampler) typical() {
	c := s.cand
	sum := softmax(c, 1)
	mean := 0.0
	for i := range c {
		mean += float64(c[i].p / sum * c[i].logit)
	}
	for i := range c {
		c[i].p = math.Abs(mean - c[i].logit)
	}
	max := maxLogit(c)
	n := prefix(c, nearer, func(kept float64, x candidate) (float64, bool) {
		kept += exp(x.logit-max) / sum
		return kept, kept > s.p.Typical
	})
	s.cand = c[:n]
}

// topP keeps the most probable candidates until their probability reaches
// TopP, largest first.
func (s *Sampler) topP(sorted bool) {
	c := s.cand
	sum := softmax(c, 1)
	reached := func(kept float64, x candidate) (float64, bool) {
		kept += x.p / sum
		return kept, kept >= s.p.TopP
	}
	if !sorted {
		s.cand = c[:prefix(c, better, reached)]
		return
	}
	kept, done := 0.0, false
	for i := range c {
		if kept, done = reached(kept, c[i]); done {
			s.cand = c[:i+1]
			return
		}
	}
}

// minP keeps candidates with at least MinP times the largest probability.
func (s *Sampler) minP() {
	max := maxLogit(s.cand)
	kept := s.cand[:0]
	for _, x := range s.cand {
		if exp(x.logit-max) >= s.p.MinP {
			kept = append(kept, x)
		}
	}
	s.cand = kept
}

// draw applies the temperature and takes one candidate.
func (s *Sampler) draw() int32 {
	sum := softmax(s.cand, s.p.Temp)
	u := float64(s.source.Uint64()>>11) / (1 << 53) // [0, 1)
	target, run := u*sum, 0.0
	last := int32(-1)
	for i := range s.cand {
		if s.cand[i].p == 0 {
			continue
		}
		last = s.cand[i].id
		if run += s.cand[i].p; run > target {
			break
		}
	}
	return last
}
