package sched

import (
	"drover/backend"
	"drover/internal/quant"
)

// Launches of a block's kernels (docs/cuda-counts.txt: 10 a layer, 3 for the
// head); the CPU has a barrier where a GPU has a launch.
const layerLaunches, headLaunches = 5, 3

// usualLatency is what one crossing of a link costs beside its bytes, in
// seconds, where nobody measured it: a submission and a wait.
const usualLatency = 20e-6

// costs are times in seconds: of one decoded token, and of the whole request.
type costs struct {
	decode, request           [][]float64 // (devices, blocks)
	crossDecode, crossRequest [][]float64 // (from, to), 0 from a device to itself
	promptSeconds             [][]float64 // (devices, blocks) of the prompt alone
	crossPrompt               [][]float64
}

func newCosts(devices []Device, ledgers []*ledger, m *backend.Model, l backend.Limits, r Request) *costs {
	k := &costs{}
	n, blocks := len(devices), m.Config.Blocks()
	depth := r.Depth + r.Prompt + r.Generate/2 // in the middle of what is decoded
	table := func(rows, cols int) [][]float64 {
		t := make([][]float64, rows)
		for i := range t {
			t[i] = make([]float64, cols)
		}
		return t
	}
	k.decode, k.request, k.promptSeconds = table(n, blocks), table(n, blocks), table(n, blocks)
	k.crossDecode, k.crossRequest, k.crossPrompt = table(n, n), table(n, n), table(n, n)
	for i := range devices {
		c := pricer{devices[i].Info.Kind, &devices[i].Rates, devices[i].Speed, ledgers[i], m, l}
		for b := range blocks {
			k.decode[i][b] = c.decode(b, depth)
			k.promptSeconds[i][b] = c.prompt(b, r)
			k.request[i][b] = k.promptSeconds[i][b] + float64(r.Generate)*k.decode[i][b]
		}
		for j := range devices {
			if i != j {
				k.crossDecode[i][j] = crossing(&devices[i], m, 1) + crossing(&devices[j], m, 1)
				for rows := range chunks(r.Prompt, l.Rows) {
					k.crossPrompt[i][j] += crossing(&devices[i], m, rows) + crossing(&devices[j], m, rows)
				}
				k.crossRequest[i][j] = k.crossPrompt[i][j] + float64(r.Generate)*k.crossDecode[i][j]
			}
		}
	}
	return k
}

// chunks yields the rows of each forward pass of a prompt.
func chunks(prompt, most int) func(yield func(rows int) bool) {
	return func(yield func(rows int) bool) {
		for at := 0; at < prompt; at += most {
			if !yield(min(most, prompt-at)) {
				return
			}
		}
	}
}

// crossing is the time of rows of the hidden state over a device's link, one way.
func crossing(d *Device, m *backend.Model, rows int) float64 {
	if d.Info.Kind == "cpu" {
		return 0
	}
	seconds := d.Rates.Latency
	if seconds == 0 {
		seconds = usualLatency
	}
	if d.Rates.Link > 0 { // 0: the memory is shared
		seconds += float64(4*m.Config.Dim*rows) / d.Rates.Link
	}
	return seconds
}

// pricer knows what blocks cost on one device.
type pricer struct {
	kind  string // backend.Info.Kind
	r     *backend.Rates
	speed map[quant.Type]float64
	g     *ledger
	m     *backend.Model
	l     backend.Limits
}

// decode is the time of a token at a depth: what is read, and the launches.
func (p *pricer) decode(b, depth int) float64 {
	c, last := &p.m.Config, p.m.Config.Blocks()-1
	if b == 0 {
		return p.r.Launch // a row of the table
	}
	launches := float64(layerLaunches)
	seconds := 0.0
	if layer, ok := p.timed(b); ok {
		seconds, launches = layer.Decode, 0
	} else {
		seconds = p.weights(b)
	}
	if b == last {
		launches = headLaunches
		if p.r.Link > 0 {
			seconds += float64(4*c.Vocab) / p.r.Link // the logits come down
		}
	} else if b%2 == 1 {
		seconds += float64(seen(c, depth)) * float64(p.position()) / p.r.Read
	}
	return seconds + launches*p.r.Launch
}

// weights is the time of reading a block's weights once. A format without a
// kernel of its own is read as the bytes that it is packed in.
func (p *pricer) weights(b int) float64 {
	c, seconds := &p.m.Config, 0.0
	var file, unmeasured float64
	for _, t := range p.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		bytes := float64(t.Bytes())
		file += bytes
		if p.expert(b, t) {
			bytes *= float64(c.ExpertsUsed) / float64(c.Experts)
		}
		if speed := p.speed[t.Type]; speed > 0 {
			bytes /= speed
		}
		if rate := p.r.Format[t.Type]; rate > 0 {
			seconds += bytes / rate
		} else {
			unmeasured += bytes / p.r.Read
		}
	}
	cache := float64(0)
	if b%2 == 1 && b < c.Blocks()-1 {
		cache = float64(p.l.Pages) * backend.PageRows * float64(p.position())
	}
	packed := float64(p.g.single[p.g.kinds.of[b]]) - cache
	return seconds + unmeasured*max(1, packed/file)
}

// expert says whether a tensor of block b holds a part for each expert.
func (p *pricer) expert(b int, t *backend.Tensor) bool {
	if p.m.Config.Experts == 0 || b%2 == 1 || b == 0 {
		return false
	}
	l := &p.m.Layers[(b-1)/2]
	return t == l.Gate || t == l.Up || t == l.Down
}

// position is the bytes of a layer's cache for one position.
func (p *pricer) position() int {
	c := &p.m.Config
	return c.KVHeads * (p.l.K.RowBytes(c.HeadDim) + p.l.V.RowBytes(c.HeadDim))
}

// seen is how many positions a token attends to that has depth before it.
func seen(c *backend.Config, depth int) int {
	if c.Window > 0 {
		return min(depth+1, c.Window)
	}
	return depth + 1
}

// prompt is the time of the request's prompt: products at the matrix rate, or
// reading the weights where that takes longer; attention in float32; the head
// for the last row only.
func (p *pricer) prompt(b int, r Request) float64 {
	c := &p.m.Config
	if r.Prompt == 0 {
		return 0
	}
	if b == c.Blocks()-1 {
		return p.decode(b, 0)
	}
	seconds, at := 0.0, r.Depth
	layer, timed := p.timed(b)
	for rows := range chunks(r.Prompt, p.l.Rows) {
		positions := float64(rows) * float64(seen(c, at+rows/2))
		switch {
		case b == 0:
			seconds += p.r.Launch
		case timed: // attention to half of 512 positions is in it
			seconds += max(layer.Prompt*float64(rows)/timedRows, layer.Decode, p.read(b)/p.r.Read)
			positions = max(0, positions-float64(rows)*timedRows/2)
		default:
			seconds += max(p.r.Seconds(p.kind, p.operations(b).Times(float64(rows))), p.read(b)/p.r.Read) + layerLaunches*p.r.Launch
		}
		if b%2 == 1 {
			seconds += p.r.Seconds(p.kind, backend.Work{Attention: 4 * positions * float64(c.Heads*c.HeadDim)})
		}
		at += rows
	}
	return seconds
}

// timedRows is the rows of a prompt that backend.LayerTime is of.
const timedRows = 512

// operations of a row's products with a block's weights.
func (p *pricer) operations(b int) (w backend.Work) {
	c := &p.m.Config
	for _, t := range p.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		if t.Rows == 1 { // a norm or a bias
			continue
		}
		o := 2 * float64(t.Rows) * float64(t.Cols)
		if p.expert(b, t) {
			o *= float64(c.ExpertsUsed) / float64(c.Experts)
		}
		if t.Type.IsFloat() {
			w.Float += o
		} else {
			w.Quantised += o
		}
	}
	return w
}

// read is the bytes of a block's weights: a prompt goes to every expert.
func (p *pricer) read(b int) float64 {
	bytes := 0.0
	for _, t := range p.m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
		bytes += float64(t.Bytes())
	}
	return bytes
}
