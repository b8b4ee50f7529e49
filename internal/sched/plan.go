package sched

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"drover/backend"
	"drover/internal/quant"
)

// Plan says what lies where, how fast that will be, and why it is not faster.
// Its JSON is PLAN in the contract of the command line.
type Plan struct {
	Context   int       `json:"ctx"`                    // most positions of a sequence
	Limit     string    `json:"limit"`                  // what bounds the context: Limits.Asked, or "memory"
	Predicted Figure    `json:"predicted_tokens_per_s"` // decode of one sequence
	Prompt    Figure    `json:"predicted_prompt_tokens_per_s"`
	Stages    []Stage   `json:"stages"` // in the order of their first blocks
	Wanted    int       `json:"ctx_wanted"`
	Binding   *Binding  `json:"binding"`  // nil until Explain
	Advice    []Advice  `json:"advice"`   // what would change the speed or the context; nil until Explain
	LeftOut   []LeftOut `json:"left_out"` // devices that carry nothing
	Request   Request   `json:"-"`        // what Predicted and Prompt are of
	At        int       `json:"predicted_at"`

	Limits backend.Limits `json:"-"`
	task   *task
	cost   float64 // seconds of the request
	where  []int   // by block: which device
}

// Figure is a prediction; 0, which is null in JSON, where nothing is known.
type Figure float64

func (f Figure) MarshalJSON() ([]byte, error) {
	if f == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// Stage is one device's part. Sizes are in bytes.
type Stage struct {
	Device  string   `json:"device"`
	ISA     string   `json:"isa"`
	Blocks  [][2]int `json:"blocks"`
	Layers  [2]int   `json:"layers"` // [lo, hi) of the layers that have a block here
	Weights uint64   `json:"weights"`
	Cache   uint64   `json:"cache"`
	Scratch uint64   `json:"scratch"`
	Host    uint64   `json:"host"`         // of the computer's memory
	MS      Figure   `json:"predicted_ms"` // a decoded token's time here, with the way to here
	Free    uint64   `json:"free"`         // before
	Left    uint64   `json:"left"`         // after
	Share   Figure   `json:"share"`        // of a decoded token's time

	// Converted are the weight formats for which the device has no kernels: it
	// makes them int8 with a scale per 16, exactly, 10 bits a weight.
	Converted []string `json:"converted,omitempty"`

	Index int             `json:"-"` // which of Place's devices
	Name  string          `json:"-"`
	Runs  []backend.Range `json:"-"`
	Kind  string          `json:"-"`
	What  string          `json:"-"` // the blocks in words
}

// LeftOut is a device that carries nothing, and why.
type LeftOut struct {
	Device string `json:"device"`
	Reason string `json:"reason"`
}

// plan makes the plan of a placement.
func (s *search) plan(where []int) (*Plan, error) {
	c, r := &s.t.m.Config, s.t.w.Request
	p := &Plan{Context: s.limits.Context, Wanted: s.t.l.Context, Limit: s.t.l.Asked, Limits: s.limits, Request: r, task: s.t,
		At: r.Depth + r.Prompt + r.Generate/2, cost: s.seconds(where), where: where, LeftOut: []LeftOut{}}
	if p.Context < p.Wanted {
		p.Limit = "memory"
	}
	seconds := total(where, s.costs.decode, s.costs.crossDecode)
	prompt := total(where, s.costs.promptSeconds, s.costs.crossPrompt)
	if !s.t.blind {
		p.Predicted = Figure(1 / seconds)
		if prompt > 0 {
			p.Prompt = Figure(float64(r.Prompt) / prompt)
		}
	}
	shared := uint64(0)
	for b, d := range where {
		if first(where, d) != b {
			continue
		}
		st, need, err := s.stage(c, where, d)
		if err != nil {
			return nil, err
		}
		if st.Share = st.MS / 1000 / Figure(seconds); s.t.blind {
			st.MS, st.Share = 0, 0
		}
		shared += need.Host
		if st.Kind == "cpu" || st.Kind == "metal" {
			shared += need.Total()
		}
		p.Stages = append(p.Stages, *st)
	}
	if shared > s.host {
		panic(fmt.Sprintf("BUG: sched: a plan takes %d bytes of the computer's memory, of %d", shared, s.host))
	}
	for i := range p.Stages {
		if st := &p.Stages[i]; st.Kind == "cpu" { // what others take beside them is the computer's too
			st.Left = st.Free - min(st.Free, shared)
		}
	}
	for d := range s.devices {
		if first(where, d) < 0 {
			p.LeftOut = append(p.LeftOut, LeftOut{s.devices[d].Info.ID, s.reason(d)})
		}
	}
	return p, nil
}

// carriers are the devices with more than the embedding, a bit each.
func (p *Plan) carriers() (devices uint32) {
	for _, d := range p.where[1:] {
		devices |= 1 << d
	}
	return devices
}

// first is the first block on device d, or -1.
func first(where []int, d int) int {
	for b := range where {
		if where[b] == d {
			return b
		}
	}
	return -1
}

// stage is the part of device d. Its need is that of the very blocks.
func (s *search) stage(c *backend.Config, where []int, d int) (*Stage, backend.Need, error) {
	dev, g := &s.devices[d], s.ledgers[d]
	in := make([]bool, len(where))
	seconds := 0.0
	for b := range where {
		if in[b] = where[b] == d; in[b] {
			seconds += s.costs.decode[d][b]
			if b > 0 && where[b-1] != d {
				seconds += s.costs.crossDecode[where[b-1]][d]
			}
		}
	}
	runs := runsOf(in)
	need, err := dev.Need(s.t.m, runs, s.limits)
	if err != nil {
		return nil, need, fmt.Errorf("%s: %w", dev.Info.ID, err)
	}
	if dev.Info.Total > 0 && need.Total() > g.free {
		panic(fmt.Sprintf("BUG: sched: %s needs %d bytes for blocks %v, of %d", dev.Info.ID, need.Total(), runs, g.free))
	}
	st := &Stage{Index: d, Device: dev.Info.ID, ISA: dev.Info.ISA, Name: dev.Info.Name, Kind: dev.Info.Kind, Runs: runs, Weights: need.Weights, Cache: need.Cache,
		Scratch: need.Scratch, Host: need.Host, MS: Figure(1000 * seconds), Free: dev.Info.Free, Left: dev.Info.Free - min(dev.Info.Free, need.Total()), What: inWords(c, in)}
	lo, hi := c.Layers, 0
	for _, r := range runs {
		st.Blocks = append(st.Blocks, [2]int{r.Lo, r.Hi})
		for b := max(r.Lo, 1); b < min(r.Hi, c.Blocks()-1); b++ {
			lo, hi = min(lo, (b-1)/2), max(hi, (b-1)/2+1)
		}
	}
	st.Layers = [2]int{min(lo, hi), hi}
	st.Converted = dev.converted(s.t.m, runs)
	return st, need, nil
}

// converted names the formats among the weights of runs that a device converts.
func (d *Device) converted(m *backend.Model, runs []backend.Range) []string {
	var names []string
	if d.Converts == nil {
		return nil
	}
	for _, r := range runs {
		for _, t := range m.Tensors(r) {
			if name := t.Type.String(); d.Converts(t.Type) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// reason is why device d carries nothing.
func (s *search) reason(d int) string {
	g := s.ledgers[d]
	if g.why != nil {
		return g.why.Error()
	}
	any := false
	for kind, n := range g.empty.next {
		if k := s.t.blocks.blocks[kind][0]; k > 0 {
			any = any || n.fits
		}
	}
	switch {
	case !s.t.carries(d):
		return "the flags leave nothing for it"
	case !any:
		return fmt.Sprintf("%s free: not enough for any block", size(s.devices[d].Info.Free))
	}
	return "not needed: without it is faster"
}

// inWords names blocks: "embed, layers 0-11, attention of 12-31, head".
func inWords(c *backend.Config, in []bool) string {
	feed := "feed-forward"
	if c.Experts > 0 {
		feed = "experts"
	}
	var parts []string
	if in[0] {
		parts = append(parts, "embed")
	}
	for lo := 0; lo < c.Layers; {
		attention, ffn := in[1+2*lo], in[2+2*lo]
		hi := lo + 1
		for hi < c.Layers && in[1+2*hi] == attention && in[2+2*hi] == ffn {
			hi++
		}
		name := "layer"
		switch {
		case attention && !ffn:
			name = "attention"
		case ffn && !attention:
			name = feed
		}
		switch {
		case !attention && !ffn:
		case hi == lo+1:
			parts = append(parts, fmt.Sprintf("%s %d", name, lo))
		case name == "layer":
			parts = append(parts, fmt.Sprintf("layers %d-%d", lo, hi-1))
		default:
			parts = append(parts, fmt.Sprintf("%s %d-%d", name, lo, hi-1))
		}
		lo = hi
	}
	if in[c.Blocks()-1] {
		parts = append(parts, "head")
	}
	return strings.Join(parts, ", ")
}

// size is a number of bytes for people.
func size(n uint64) string {
	if n == 0 {
		return "-"
	}
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

// Binding is what keeps the plan from being faster.
type Binding struct {
	What   string `json:"what"`                   // "memory", "bandwidth" or "wishes"
	Device string `json:"device"`                 // whose memory, or bandwidth; empty for wishes
	Fast   Figure `json:"unlimited_tokens_per_s"` // without it
	Prompt Figure `json:"unlimited_prompt_tokens_per_s"`
}

// Advice is a change, and the plan that it would make.
type Advice struct {
	Change    string `json:"change"`
	Context   int    `json:"ctx"`
	Predicted Figure `json:"predicted_tokens_per_s"`
	Prompt    Figure `json:"predicted_prompt_tokens_per_s"`
}

// For is the same placement for another request: its predictions.
func (p *Plan) For(r Request) (*Plan, error) {
	t := *p.task
	t.w.Request = r
	s, err := newSearch(&t, p.Limits, 0)
	if err != nil {
		return nil, err
	}
	q, err := s.plan(p.where)
	if err != nil {
		return nil, err
	}
	q.Limit, q.Wanted = p.Limit, p.Wanted
	return q, nil
}

// Explain finds what binds, and what a little more would buy. Without rates there
// is nothing to say.
func (p *Plan) Explain() {
	t := p.task
	if t.blind {
		return
	}
	t.bind(p)
	p.Advice = []Advice{}
	if p.Binding.What != "memory" {
		return
	}
	try := func(change string, u *task) {
		q, err := u.choose()
		if err == nil && (q.cost < 0.995*p.cost || q.Context > p.Context) {
			p.Advice = append(p.Advice, Advice{change, q.Context, q.Predicted, q.Prompt})
		}
	}
	for i := range t.devices {
		if t.devices[i].Info.ID == p.Binding.Device {
			try("1 GiB more on "+p.Binding.Device, t.with(i, 1<<30))
		}
	}
	if half := p.Context / 2 / backend.PageRows * backend.PageRows; half >= 4*backend.PageRows {
		u := *t
		u.l.Context, u.l.Least = half, half
		try(fmt.Sprintf("a context of %d", half), &u)
	}
	small := t.l.At
	if l := small(p.Context); (l.K != quant.Q8_0 || l.V != quant.Q8_0) && t.m.Config.HeadDim%quant.Q8_0.BlockElems() == 0 {
		u := *t
		u.l.At = func(context int) backend.Limits {
			l := small(context)
			l.K, l.V = quant.Q8_0, quant.Q8_0
			return l
		}
		try("a q8_0 cache", &u)
	}
}

// with is the task with more free memory on a device.
func (t *task) with(device int, more uint64) *task {
	u := *t
	u.devices = append([]Device(nil), t.devices...)
	i := &u.devices[device].Info
	i.Free += more
	i.Total = max(i.Total, i.Free)
	return &u
}

// bind finds what the plan would gain from memory without end: nothing, and it
// is bandwidth that binds, or the device whose memory counts most.
func (t *task) bind(p *Plan) {
	const endless = 1 << 46
	slowest := 0
	for i := range p.Stages {
		if p.Stages[i].MS > p.Stages[slowest].MS {
			slowest = i
		}
	}
	p.Binding = &Binding{"bandwidth", p.Stages[slowest].Device, p.Predicted, p.Prompt}
	least := 0.995 * p.cost
	shrunk := p.Context < p.Wanted
	for i := range t.devices {
		if t.devices[i].Info.Total == 0 {
			continue
		}
		u := t.with(i, endless)
		u.l.Context, u.l.Least = p.Context, p.Context
		if shrunk {
			u.l.Context, u.l.Least = p.Wanted, p.Wanted
		}
		q, err := u.at(u.l.Context, 0)
		if err == nil && (q.cost < least || shrunk && (p.Binding.What != "memory" || q.cost < least)) {
			p.Binding, least = &Binding{"memory", t.devices[i].Info.ID, q.Predicted, q.Prompt}, q.cost
		}
	}
	if p.Binding.What == "bandwidth" && t.w.binds() {
		u := *t
		u.w = Wishes{GPULayers: -1, Strict: t.w.Strict, Request: t.w.Request}
		if v, err := newTask(u.devices, u.m, u.l, u.w); err == nil {
			if q, err := v.at(p.Context, 0); err == nil && q.cost < least {
				p.Binding = &Binding{"wishes", "", q.Predicted, q.Prompt}
			}
		}
	}
}

// binds says whether a wish decides where layers go.
func (w *Wishes) binds() bool { return w.Split != nil || w.GPULayers >= 0 || w.ExpertsOnCPU > 0 }
