package sched

import "drover/backend"

// timed is what a block takes by times of whole layers: decode of one row, and a
// prompt's first 512 rows. A layer's time is divided among its matrices by their
// weights; that of a layer with experts, less what attention takes in a dense one, is
// the experts'. False where a format was not timed, or experts of this shape were not.
func (p *pricer) timed(b int) (l backend.LayerTime, ok bool) {
	c := &p.m.Config
	if b == 0 || p.r.Layers == nil {
		return l, false
	}
	head := b == c.Blocks()-1
	attention, feed := 0.0, 0.0
	if !head {
		first := (b-1)/2*2 + 1
		attention, feed = p.active(first), p.active(first+1)
	}
	for _, t := range p.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		if t.Rows == 1 || p.router(b, t) {
			continue
		}
		times := p.r.Layers[t.Type]
		if len(times) == 0 {
			return l, false
		}
		n := p.weightsOf(b, t)
		one := atSize(times, attention+feed)
		share := n / (attention + feed)
		switch {
		case head: // one matrix: what a layer's launches cost is not in it
			one, share = slope(times), n
		case p.expert(b, t):
			mixture := p.r.Mixture(c, t.Type)
			if mixture == nil {
				return l, false
			}
			one, share = rest(mixture, &one, attention/(attention+feed)), n/feed
		}
		speed := 1.0
		if s := p.speed[t.Type]; s > 0 {
			speed = s
		}
		l.Weights += n
		l.Decode += share * one.Decode / speed
		l.Prompt += share * one.Prompt
	}
	return l, true
}

// rest is what a layer with experts takes less a part of a dense one as large, and no
// less than its own other part.
func rest(mixture, dense *backend.LayerTime, part float64) backend.LayerTime {
	less := func(all, other float64) float64 { return max(all-part*other, (1-part)*min(all, other)) }
	return backend.LayerTime{Weights: (1 - part) * mixture.Weights, Decode: less(mixture.Decode, dense.Decode), Prompt: less(mixture.Prompt, dense.Prompt)}
}

// weightsOf is how many weights of a matrix a row is multiplied by.
func (p *pricer) weightsOf(b int, t *backend.Tensor) float64 {
	n := float64(t.Rows) * float64(t.Cols)
	if p.expert(b, t) {
		n *= float64(p.m.Config.ExpertsUsed) / float64(p.m.Config.Experts)
	}
	return n
}

// active is how many weights of a block's a row is multiplied by, the router's apart.
func (p *pricer) active(b int) float64 {
	n := 0.0
	for _, t := range p.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		if t.Rows > 1 && !p.router(b, t) {
			n += p.weightsOf(b, t)
		}
	}
	return n
}

// router says whether a matrix chooses experts: that is in the time of a layer of them.
func (p *pricer) router(b int, t *backend.Tensor) bool {
	return b > 0 && b%2 == 0 && t == p.m.Layers[(b-1)/2].Router
}

// atSize is the time of a layer of n weights: on the line through the timed sizes
// beside it, or the last two, and below the smallest no less than its share of that.
func atSize(times []backend.LayerTime, n float64) backend.LayerTime {
	i := 0
	for i+2 < len(times) && n > times[i+1].Weights {
		i++
	}
	a := times[i]
	if len(times) == 1 {
		return backend.LayerTime{Weights: n, Decode: a.Decode * n / a.Weights, Prompt: a.Prompt * n / a.Weights}
	}
	z := times[i+1]
	at := func(lo, hi float64) float64 {
		t := lo + (hi-lo)*(n-a.Weights)/(z.Weights-a.Weights)
		if n < a.Weights {
			return max(t, lo*n/a.Weights)
		}
		return max(t, lo)
	}
	return backend.LayerTime{Weights: n, Decode: at(a.Decode, z.Decode), Prompt: at(a.Prompt, z.Prompt)}
}

// slope is the time of one more weight in a large layer.
func slope(times []backend.LayerTime) backend.LayerTime {
	z := times[len(times)-1]
	whole := backend.LayerTime{Weights: 1, Decode: z.Decode / z.Weights, Prompt: z.Prompt / z.Weights}
	if len(times) == 1 {
		return whole
	}
	a := times[len(times)-2]
	part := func(lo, hi, most float64) float64 {
		if hi <= lo {
			return most
		}
		return min((hi-lo)/(z.Weights-a.Weights), most)
	}
	return backend.LayerTime{Weights: 1, Decode: part(a.Decode, z.Decode, whole.Decode), Prompt: part(a.Prompt, z.Prompt, whole.Prompt)}
}
