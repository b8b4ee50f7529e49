package sample

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// off is a chain in which nothing but the draw is on.
func off() Params { return Params{Temp: 1, TopP: 1, Typical: 1, RepeatPenalty: 1} }

// logs gives logits whose softmax is p.
func logs(p ...float64) []float32 {
	l := make([]float32, len(p))
	for i := range p {
		l[i] = float32(math.Log(p[i]))
	}
	return l
}

// left runs the chain once and gives what was in the draw: ids ascending, and
// their probabilities.
func left(s *Sampler, logits []float32) (ids []int32, p []float64) {
	s.Sample(logits)
	c := slices.Clone(s.cand)
	slices.SortFunc(c, func(a, b candidate) int { return cmp.Compare(a.id, b.id) })
	sum := 0.0
	for _, x := range c {
		sum += x.p
	}
	for _, x := range c {
		ids, p = append(ids, x.id), append(p, x.p/sum)
	}
	return ids, p
}

func TestDistributions(t *testing.T) {
	four := logs(0.1, 0.5, 0.15, 0.25)
	for _, c := range []struct {
		name   string
		set    func(*Params)
		logits []float32
		accept []int32
		ids    []int32
		p      []float64
	}{
		{"all", func(p *Params) {}, four, nil, []int32{0, 1, 2, 3}, []float64{0.1, 0.5, 0.15, 0.25}},
		{"top-k 2", func(p *Params) { p.TopK = 2 }, four, nil, []int32{1, 3}, []float64{2. / 3, 1. / 3}},
		{"top-k ties: lower id", func(p *Params) { p.TopK = 2 }, []float32{1, 2, 2, 2}, nil, []int32{1, 2}, []float64{0.5, 0.5}},
		{"top-k past the end", func(p *Params) { p.TopK = 9 }, four, nil, []int32{0, 1, 2, 3}, []float64{0.1, 0.5, 0.15, 0.25}},
		{"top-p 0.7", func(p *Params) { p.TopP = 0.7 }, four, nil, []int32{1, 3}, []float64{2. / 3, 1. / 3}},
		{"top-p 0.76", func(p *Params) { p.TopP = 0.76 }, four, nil, []int32{1, 2, 3}, []float64{5. / 9, 1.5 / 9, 2.5 / 9}},
		{"top-p 0 keeps one", func(p *Params) { p.TopP = 0 }, four, nil, []int32{1}, []float64{1}},
		{"min-p 0.25", func(p *Params) { p.MinP = 0.25 }, four, nil, []int32{1, 2, 3}, []float64{5. / 9, 1.5 / 9, 2.5 / 9}},
		{"min-p 1 keeps the ties", func(p *Params) { p.MinP = 1 }, []float32{3, 1, 3}, nil, []int32{0, 2}, []float64{0.5, 0.5}},
		// entropy 1.208 nats; surprises 2.303 0.693 1.897 1.386: nearest is 3 (0.18), then 1 (0.51), then 2 (0.69)
		{"typical 0.2", func(p *Params) { p.Typical = 0.2 }, four, nil, []int32{3}, []float64{1}},
		{"typical 0.7", func(p *Params) { p.Typical = 0.7 }, four, nil, []int32{1, 3}, []float64{2. / 3, 1. / 3}},
		{"typical 0.8", func(p *Params) { p.Typical = 0.8 }, four, nil, []int32{1, 2, 3}, []float64{5. / 9, 1.5 / 9, 2.5 / 9}},
		// top-p sees what top-k left, renormalised: 0.5/0.9 < 0.8 <= 0.75/0.9
		{"top-k 3, top-p 0.8", func(p *Params) { p.TopK, p.TopP = 3, 0.8 }, four, nil, []int32{1, 3}, []float64{2. / 3, 1. / 3}},
		// temperature comes last: it does not change what top-p keeps; 0.5² : 0.25² = 4 : 1
		{"top-p before temp", func(p *Params) { p.TopP, p.Temp = 0.7, 0.5 }, four, nil, []int32{1, 3}, []float64{0.8, 0.2}},
		{"temp 2", func(p *Params) { p.Temp = 2 }, logs(0.64, 0.36), nil, []int32{0, 1}, []float64{8. / 14, 6. / 14}},
		{"repeat 2", func(p *Params) { p.RepeatPenalty, p.RepeatLastN = 2, 8 }, []float32{2, -1, 1, -2}, []int32{0, 1, 1}, []int32{0, 1, 2, 3}, ratio(math.E, math.Exp(-2), math.E, math.Exp(-2))},
		{"presence and frequency", func(p *Params) { p.Presence, p.Frequency, p.RepeatLastN = 1, 0.5, 8 }, []float32{2, 2, 2}, []int32{1, 1, 2}, []int32{0, 1, 2}, ratio(math.Exp(2), 1, math.Exp(0.5))},
		{"penalties forget", func(p *Params) { p.Frequency, p.RepeatLastN = 1, 2 }, []float32{0, 0}, []int32{0, 0, 0, 1, 1}, []int32{0, 1}, ratio(1, math.Exp(-2))},
		{"penalties forget nothing", func(p *Params) { p.Frequency, p.RepeatLastN = 1, -1 }, []float32{0, 0}, []int32{0, 0, 0, 1, 1}, []int32{0, 1}, ratio(math.Exp(-3), math.Exp(-2))},
		{"penalties off", func(p *Params) { p.Frequency, p.RepeatLastN = 1, 0 }, []float32{0, 0}, []int32{0, 0, 0}, []int32{0, 1}, []float64{0.5, 0.5}},
		{"penalties before top-k", func(p *Params) { p.Presence, p.RepeatLastN, p.TopK = 9, 4, 1 }, []float32{3, 1}, []int32{0}, []int32{1}, []float64{1}},
		{"NaN and -Inf are out", func(p *Params) {}, []float32{float32(math.NaN()), 0, float32(math.Inf(-1)), 0}, nil, []int32{1, 3}, []float64{0.5, 0.5}},
		{"unknown ids are not penalised", func(p *Params) { p.Presence, p.RepeatLastN = 1, 4 }, []float32{0, 0}, []int32{-1, 7}, []int32{0, 1}, []float64{0.5, 0.5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := off()
			c.set(&p)
			s := New(p)
			for _, id := range c.accept {
				s.Accept(id)
			}
			ids, got := left(s, c.logits)
			if !slices.Equal(ids, c.ids) {
				t.Fatalf("kept %v, want %v", ids, c.ids)
			}
			for i := range got {
				if math.Abs(got[i]-c.p[i]) > 1e-6 {
					t.Errorf("p(%d) = %.7f, want %.7f", ids[i], got[i], c.p[i])
				}
			}
		})
	}
}

func ratio(x ...float64) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	for i := range x {
		x[i] /= sum
	}
	return x
}

func TestGreedy(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		logits []float32
		want   int32
	}{
		{[]float32{1, 3, 2}, 1},
		{[]float32{1, 3, 3}, 1},
		{[]float32{nan, -5, nan}, 1},
		{[]float32{1, inf, inf}, 1},
		{[]float32{-inf, -inf}, -1},
		{[]float32{nan}, -1},
		{nil, -1},
	} {
		if got := New(Greedy()).Sample(c.logits); got != c.want {
			t.Errorf("greedy of %v: %d, want %d", c.logits, got, c.want)
		}
		p := Defaults()
		if got := New(p).Sample(c.logits); (got < 0) != (c.want < 0) {
			t.Errorf("draw from %v: %d", c.logits, got)
		}
	}
	p := Greedy()
	p.RepeatLastN, p.RepeatPenalty = 4, 2
	s := New(p)
	s.Accept(1)
	if got := s.Sample([]float32{2, 3, 1}); got != 0 {
		t.Errorf("greedy after penalties: %d, want 0", got)
	}
}

// The draw's frequencies: Pearson's chi-square over 100,000 draws with a fixed
// seed, 7 degrees of freedom; 24.3 is the 0.1 % point.
func TestFrequencies(t *testing.T) {
	want := []float64{0.3, 0.02, 0.2, 0.08, 0.15, 0.05, 0.12, 0.08}
	logits := logs(want...)
	for _, k := range []int{0, 8} { // unsorted and sorted draws
		p := off()
		p.Seed, p.TopK = 11, k
		s := New(p)
		const n = 100_000
		counts := make([]float64, len(want))
		for range n {
			counts[s.Sample(logits)]++
		}
		chi := 0.0
		for i, w := range want {
			chi += (counts[i] - n*w) * (counts[i] - n*w) / (n * w)
		}
		if chi > 24.3 {
			t.Errorf("top-k %d: chi-square %.1f > 24.3: %v", k, chi, counts)
		}
	}
}

// The ids of a seed are fixed: a change here changes every user's text.
func TestSeed(t *testing.T) {
	logits := make([]float32, 1000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range logits {
		logits[i] = float32(r.IntN(4000)) / 256
	}
	draw := func(seed uint64) (ids []int32) {
		p := Defaults()
		p.Seed = seed
		s := New(p)
		for range 8 {
			ids = append(ids, s.Sample(logits))
		}
		return ids
	}
	if a, b := draw(1), draw(1); !slices.Equal(a, b) {
		t.Errorf("seed 1 gave %v, then %v", a, b)
	}
	if a, b := draw(1), draw(2); slices.Equal(a, b) {
		t.Errorf("seeds 1 and 2 both gave %v", a)
	}
	want := []int32{119, 269, 737, 629, 925, 477, 471, 618}
	if got := draw(42); !slices.Equal(got, want) {
		t.Errorf("seed 42 gave %v, want %v", got, want)
	}
}

// plain is the chain again, by sorting and math.Exp, without penalties.
func plain(p Params, logits []float32) map[int32]float64 {
	var c []candidate
	for i, l := range logits {
		c = append(c, candidate{id: int32(i), logit: float64(l)})
	}
	byLogit := func(a, b candidate) int {
		return cmp.Or(-cmp.Compare(a.logit, b.logit), cmp.Compare(a.id, b.id))
	}
	soft := func(temp float64) {
		sum := 0.0
		for i := range c {
			c[i].p = math.Exp((c[i].logit - 20) / temp)
			sum += c[i].p
		}
		for i := range c {
			c[i].p /= sum
		}
	}
	slices.SortFunc(c, byLogit)
	if p.TopK > 0 && p.TopK < len(c) {
		c = c[:p.TopK]
	}
	if p.Typical < 1 {
		soft(1)
		h := 0.0
		for _, x := range c {
			h -= x.p * math.Log(x.p)
		}
		slices.SortStableFunc(c, func(a, b candidate) int {
			return cmp.Compare(math.Abs(-math.Log(a.p)-h), math.Abs(-math.Log(b.p)-h))
		})
		sum := 0.0
		for i := range c {
			if sum += c[i].p; sum > p.Typical {
				c = c[:i+1]
				break
			}
		}
		slices.SortFunc(c, byLogit)
	}
	soft(1)
	sum := 0.0
	for i := range c {
		if sum += c[i].p; p.TopP < 1 && sum >= p.TopP {
			c = c[:i+1]
			break
		}
	}
	for i := range c {
		if c[i].p < p.MinP*c[0].p {
			c = c[:i]
			break
		}
	}
	soft(p.Temp)
	kept := map[int32]float64{}
	for _, x := range c {
		kept[x.id] = x.p
	}
	return kept
}

func TestAgainstPlain(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 5))
		logits := make([]float32, 1+r.IntN(300))
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * 3)
		}
		p := off()
		p.Temp = 0.2 + r.Float64()
		if r.IntN(2) == 0 {
			p.TopK = r.IntN(60)
		}
		if r.IntN(2) == 0 {
			p.TopP = r.Float64()
		}
		if r.IntN(2) == 0 {
			p.Typical = r.Float64()
		}
		if r.IntN(2) == 0 {
			p.MinP = r.Float64() / 2
		}
		want := plain(p, logits)
		ids, got := left(New(p), logits)
		if len(ids) != len(want) {
			t.Fatalf("seed %d, %+v: kept %d, want %d", seed, p, len(ids), len(want))
		}
		for i, id := range ids {
			if w, ok := want[id]; !ok || math.Abs(w-got[i]) > 1e-9 {
				t.Fatalf("seed %d, %+v: p(%d) = %v, want %v (kept %v)", seed, p, id, got[i], w, ok)
			}
		}
	}
}

func TestExp(t *testing.T) {
	for i := range 70_000 {
		x := -float64(i) / 101
		if got, want := exp(x), math.Exp(x); math.Abs(got-want) > 1e-15*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if exp(0) != 1 || exp(math.Inf(-1)) != 0 || exp(math.NaN()) != 0 {
		t.Error("exp at its ends")
	}
}

// Whatever the numbers, Sample gives an id of the row or -1.
func FuzzSample(f *testing.F) {
	f.Add(uint64(3), 40, 0.9, 0.1, 0.5, 1.3, 0.5, -0.5, uint32(0x7f800000))
	f.Add(uint64(4), 0, 1.0, 0.0, 1.0, 1e-300, 1e308, 1e308, uint32(0xffc00000))
	f.Fuzz(func(t *testing.T, seed uint64, k int, topP, minP, typical, repeat, presence, frequency float64, bits uint32) {
		p := Params{Seed: seed, Temp: 0.7, TopK: k, TopP: topP, MinP: minP, Typical: typical,
			RepeatPenalty: repeat, RepeatLastN: 5, Presence: presence, Frequency: frequency}
		if p.Validate() != nil {
			return
		}
		s := New(p)
		r := rand.New(rand.NewPCG(seed, 1))
		logits := make([]float32, 50)
		for range 20 {
			for i := range logits {
				logits[i] = math.Float32frombits(r.Uint32())
			}
			logits[r.IntN(50)] = math.Float32frombits(bits)
			logits[7] = 1
			id := s.Sample(logits)
			if id < -1 || int(id) >= len(logits) {
				t.Fatalf("id %d of %d", id, len(logits))
			}
			if id == -1 && (math.Abs(presence)+math.Abs(frequency) < 1e300 && repeat < 1e100) {
				t.Fatal("nothing drawn, though token 7 has a finite logit")
			}
			s.Accept(id)
		}
	})
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	if err := Greedy().Validate(); err != nil {
		t.Error(err)
	}
	nan := math.NaN()
	for name, set := range map[string]func(*Params){
		"temp":              func(p *Params) { p.Temp = -1 },
		"temp NaN":          func(p *Params) { p.Temp = nan },
		"top-p":             func(p *Params) { p.TopP = 1.01 },
		"min-p":             func(p *Params) { p.MinP = -0.1 },
		"typical":           func(p *Params) { p.Typical = nan },
		"repeat-penalty":    func(p *Params) { p.RepeatPenalty = 0 },
		"repeat-last-n":     func(p *Params) { p.RepeatLastN = -2 },
		"presence-penalty":  func(p *Params) { p.Presence = math.Inf(1) },
		"frequency-penalty": func(p *Params) { p.Frequency = nan },
	} {
		p := Defaults()
		set(&p)
		if p.Validate() == nil {
			t.Errorf("%s: %+v passed", name, p)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, p := range []Params{Defaults(), off(), {Temp: 1, TopP: 0.9, Typical: 0.9, RepeatPenalty: 1.1, RepeatLastN: 16, MinP: 0.01}, Greedy()} {
		s := New(p)
		logits := row(3000)
		draw := func() { s.Accept(s.Sample(logits)) }
		for range 100 {
			draw()
		}
		if n := testing.AllocsPerRun(100, draw); n != 0 {
			t.Errorf("%+v: %v allocations a token", p, n)
		}
	}
}

func row(n int) []float32 {
	r := rand.New(rand.NewPCG(9, 9))
	l := make([]float32, n)
	for i := range l {
		l[i] = float32(r.NormFloat64() * 3)
	}
	return l
}

func BenchmarkSample(b *testing.B) {
	for _, c := range []struct {
		name string
		p    Params
	}{
		{"greedy", Greedy()},
		{"default", Defaults()},
		{"penalties", Params{Temp: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, Typical: 1, RepeatPenalty: 1.1, RepeatLastN: 64}},
		{"top-p", Params{Temp: 0.8, TopP: 0.95, Typical: 1, RepeatPenalty: 1}},
		{"typical", Params{Temp: 0.8, TopP: 1, Typical: 0.95, RepeatPenalty: 1}},
	} {
		b.Run(fmt.Sprintf("%s/128256", c.name), func(b *testing.B) {
			b.ReportAllocs()
			s := New(c.p)
			logits := row(128256)
			for b.Loop() {
				s.Accept(s.Sample(logits))
			}
		})
	}
}
