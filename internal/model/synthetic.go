package model

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/token"
)

// spec is a synthetic model's description, read.
type spec struct {
	text  string // SHAPE[:TYPE][:SEED]
	shape shape
	mix   mix
	seed  uint64
}

// specError is an ErrSpec.
type specError struct{ err error }

func (e *specError) Error() string        { return e.err.Error() }
func (e *specError) Unwrap() error        { return e.err }
func (e *specError) Is(target error) bool { return target == ErrSpec }

func badSpec(format string, args ...any) error { return &specError{fmt.Errorf(format, args...)} }

// openSynthetic makes the model that SHAPE[:TYPE][:SEED] describes. Its weights
// are generated when they are read.
func openSynthetic(text string) (*File, error) {
	s, err := parseSpec(text)
	if err != nil {
		return nil, err
	}
	c := s.shape.config()
	if err := checkConfig(&c); err != nil {
		return nil, badSpec("synthetic model %q: %w", text, err)
	}
	w := &random{spec: s, config: &c}
	m, err := assemble(&c, w)
	if err != nil {
		return nil, badSpec("synthetic model %q: %w", text, err)
	}
	f := &File{Model: m, Path: "synthetic:" + text, TypeName: s.mix.name, spec: s}
	f.vocab = func() token.Config { return words(c.Vocab) }
	f.count()
	return f, nil
}

// parseSpec reads SHAPE[:TYPE][:SEED].
func parseSpec(text string) (*spec, error) {
	fields := strings.Split(text, ":")
	if len(fields) > 3 {
		return nil, badSpec("synthetic model %q: more than SHAPE:TYPE:SEED", text)
	}
	s := &spec{text: text, mix: mix{name: "Q4_0", base: quant.Q4_0}}
	var err error
	if strings.Contains(fields[0], "=") {
		s.shape, err = parseShape(fields[0])
	} else {
		s.shape, err = findShape(fields[0])
	}
	if err != nil {
		return nil, err
	}
	for i, field := range fields[1:] {
		if n, err := strconv.ParseUint(field, 10, 64); err == nil && i == len(fields)-2 {
			s.seed = n
			return s, nil
		}
		if i > 0 {
			return nil, badSpec("synthetic model %q: the seed %q must be a whole number below 2^64", text, field)
		}
		if s.mix, err = parseMix(field); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func findShape(name string) (shape, error) {
	var names []string
	for _, s := range shapes() {
		if strings.EqualFold(s.name, name) {
			return s, nil
		}
		names = append(names, s.name)
	}
	return shape{}, badSpec("no synthetic model %q%s; there are %s, or dim=..,layers=..,heads=..,kv=..,ffn=..,vocab=..",
		name, suggest(name, names), strings.Join(names, ", "))
}

// parseShape reads dim=..,layers=.. and so on.
func parseShape(text string) (shape, error) {
	s := shape{name: "model", eps: 1e-5, base: 1e4}
	fields := []struct {
		name        string
		at          *int
		least, most int
		missing     int // the value where it is not given; 0: it must be
	}{
		{"dim", &s.dim, 1, maxDim, 0}, {"layers", &s.layers, 1, maxLayers, 0}, {"heads", &s.heads, 1, maxHeads, 0},
		{"kv", &s.kv, 1, maxHeads, -1}, {"ffn", &s.ffn, 1, maxFFN, 0}, {"vocab", &s.vocab, leastVocab, maxVocab, 0},
		{"head_dim", &s.headDim, 2, maxHeadDim, -1}, {"experts", &s.experts, 1, maxExperts, -1},
		{"used", &s.used, 1, maxExperts, -1}, {"ctx", &s.context, 1, maxContext, 2048},
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	given := map[string]bool{}
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		i := slices.Index(names, name)
		if i < 0 {
			return s, badSpec("a synthetic model has no %q%s; it has %s", name, suggest(name, names), strings.Join(names, ", "))
		}
		f := fields[i]
		n, err := strconv.Atoi(value)
		if err != nil || n < f.least || n > f.most {
			return s, badSpec("synthetic model: %s=%q must be a whole number from %d to %d", name, value, f.least, f.most)
		}
		if given[name] {
			return s, badSpec("synthetic model: %s is given twice", name)
		}
		*f.at, given[name] = n, true
	}
	for _, f := range fields {
		if !given[f.name] && f.missing == 0 {
			return s, badSpec("synthetic model %q: %s is missing; needed are dim, layers, heads, ffn, vocab", text, f.name)
		}
		if !given[f.name] {
			*f.at = max(0, f.missing)
		}
	}
	return s, s.complete(text)
}

// complete derives what was not given.
func (s *shape) complete(text string) error {
	if s.kv == 0 {
		s.kv = s.heads
	}
	if s.headDim == 0 && s.dim%s.heads != 0 {
		return badSpec("synthetic model %q: dim %d is not a multiple of %d heads: give head_dim", text, s.dim, s.heads)
	}
	if s.experts > 0 && s.used == 0 {
		s.used = min(2, s.experts)
	}
	if s.used > s.experts {
		return badSpec("synthetic model %q: %d of %d experts used", text, s.used, s.experts)
	}
	return nil
}

// suggest names the nearest name, where one is near.
func suggest(name string, names []string) string {
	best, least := "", 1+len(name)/3
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d <= least {
			best, least = n, d-1
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (is it %s?)", best)
}

// distance is the number of letters to change, add or remove (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}

// llama3Factors are the divisors of the frequencies by which Llama 3.1 and
// later stretch the rope: waves longer than the original context are divided by
// factor, those that fit into it four times are not, with a ramp between
// (config.json: low_freq_factor 1, high_freq_factor 4,
// original_max_position_embeddings 8192).
func llama3Factors(r *backend.Rope, factor float64) []float32 {
	const low, high, original = 1, 4, 8192
	out := make([]float32, r.Dims/2)
	for i := range out {
		turns := original * math.Pow(r.Base, -2*float64(i)/float64(r.Dims)) / (2 * math.Pi)
		smooth := min(1, max(0, (turns-low)/(high-low)))
		out[i] = float32(1 / ((1-smooth)/factor + smooth))
	}
	return out
}
