package rates

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"drover/backend"
	"drover/internal/quant"
)

// size is a shape of layers that are timed; experts 0: dense ones.
type size struct{ dim, heads, kvHeads, headDim, ffn, experts, used int }

// sizes are those of a 1B, 8B and 65B model.
var sizes = [...]size{{2048, 16, 4, 128, 5632, 0, 0}, {4096, 32, 8, 128, 14336, 0, 0}, {8192, 64, 8, 128, 22016, 0, 0}}

// A stage's layers take about coldBytes, so that a CPU's last cache holds little of
// them, where the device has four times that free. Rows of a prompt are promptRows; a
// size after two, of which the last one's prompt took longest a layer, is not timed:
// beyond it time is proportional. So it is after the first where that took four times
// as long.
const (
	coldBytes  = 768 << 20
	promptRows = 512
	fewRows    = 192
	longest    = 20 * time.Millisecond
)

// Layers times layers of several sizes, every matrix in format t, through stages of
// the device: the same path that a model's layers take. About a second. Sizes for
// which there is no memory are left out. Errors: those of Load and Forward.
func Layers(ctx context.Context, d backend.Device, t quant.Type) ([]backend.LayerTime, error) {
	var times []backend.LayerTime
	for _, s := range sizes {
		l, err := layers(ctx, d, t, s)
		if errors.Is(err, backend.ErrMemory) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("time a layer in %v: %w", t, err)
		}
		times = append(times, l)
		if enough(times) {
			break
		}
	}
	return times, nil
}

// Mixture times layers of the shape's width and experts, every matrix but the router in
// format t. A second or two on a GPU, and as long as a few prompts take a CPU. Errors:
// those of Load and Forward; backend.ErrMemory where there is no room.
func Mixture(ctx context.Context, d backend.Device, t quant.Type, c *backend.Config) (backend.MixtureTime, error) {
	l, err := layers(ctx, d, t, size{c.Dim, c.Heads, c.KVHeads, c.HeadDim, c.FFN, c.Experts, c.ExpertsUsed})
	if err != nil {
		return backend.MixtureTime{}, fmt.Errorf("time a layer of experts in %v: %w", t, err)
	}
	return backend.MixtureTime{Mixture: backend.MixtureOf(c, t), LayerTime: l}, nil
}

// enough says that larger layers take time in proportion.
func enough(times []backend.LayerTime) bool {
	last := times[len(times)-1].Prompt
	return last > 4*longest.Seconds() || last > longest.Seconds() && len(times) > 1
}

// Formats is those of a model's matrices that a twentieth of its weights or more are in.
func Formats(m *backend.Model) []quant.Type {
	in, all := map[quant.Type]float64{}, 0.0
	for _, t := range m.Tensors(backend.Range{Lo: 1, Hi: m.Config.Blocks()}) {
		if t.Rows > 1 {
			n := float64(t.Rows) * float64(t.Cols)
			in[t.Type] += n
			all += n
		}
	}
	var formats []quant.Type
	for t, n := range in {
		if n >= all/20 {
			formats = append(formats, t)
		}
	}
	slices.Sort(formats)
	return formats
}

// ExpertFormats is those of Formats that the model's experts are in and a whole layer
// could be: none for a dense model.
func ExpertFormats(m *backend.Model) []quant.Type {
	c := &m.Config
	if c.Experts == 0 {
		return nil
	}
	return slices.DeleteFunc(Formats(m), func(t quant.Type) bool {
		whole := c.Dim%t.BlockElems() == 0 && c.FFN%t.BlockElems() == 0 && c.Heads*c.HeadDim%t.BlockElems() == 0
		return !whole || !slices.ContainsFunc(m.Layers, func(l backend.Layer) bool { return l.Gate.Type == t || l.Up.Type == t || l.Down.Type == t })
	})
}

// layers times layers of one size. A stage has one layer as its first run and more as
// its second: what a pass costs beside its layers is not in the difference.
func layers(ctx context.Context, d backend.Device, t quant.Type, s size) (backend.LayerTime, error) {
	info := d.Info()
	cold := uint64(coldBytes)
	if info.Total > 0 {
		cold = min(cold, info.Free/4)
	}
	m := s.model(t, cold)
	n := m.Config.Layers
	if err := room(info, m); err != nil {
		return backend.LayerTime{}, err
	}
	limits := backend.Limits{Pages: promptRows/backend.PageRows + 1, Rows: promptRows, Seqs: 1, Context: promptRows + backend.PageRows, Outs: 1, K: quant.F16, V: quant.F16}
	stage, err := d.Load(ctx, m, []backend.Range{{Lo: 1, Hi: 3}, {Lo: 3, Hi: 1 + 2*n}}, limits, nil)
	if err != nil {
		return backend.LayerTime{}, err
	}
	c := clock{ctx: ctx, stage: stage, dim: m.Config.Dim, hidden: hidden(promptRows * m.Config.Dim), pages: limits.Pages, more: n - 2, spread: s.experts > 0}
	l := backend.LayerTime{Weights: s.weights()}
	l.Prompt = c.prompt()
	l.Decode = c.decode()
	return l, errors.Join(c.err, stage.Close())
}

// room asks for the memory before any of it is taken.
func room(info backend.Info, m *backend.Model) error {
	need := uint64(0)
	for _, t := range m.Tensors(backend.Range{Lo: 1, Hi: m.Config.Blocks() - 1}) {
		need += t.Bytes()
	}
	if need *= 2; info.Total > 0 && need > info.Free {
		return &backend.MemoryError{Device: info.ID, Need: need, Free: info.Free}
	}
	return nil
}

// clock times passes of a stage.
type clock struct {
	ctx    context.Context
	stage  backend.Stage
	dim    int
	hidden []float32 // what layers begin with
	pages  int
	more   int  // layers of the second run beyond one
	spread bool // rows are shared among experts: fewer do not take time in proportion
	err    error
}

// hidden is n values from -3 to 3, so that rows go to experts of their own.
func hidden(n int) []float32 {
	x, state := make([]float32, n), uint64(1)
	for i := range x {
		state = state*6364136223846793005 + 1442695040888963407 // Knuth's MMIX generator
		x[i] = float32(state>>33%7) - 3
	}
	return x
}

// decode is the seconds of a layer for one row.
func (c *clock) decode() float64 {
	b := c.batch(1)
	c.pass(1, b)
	return c.layer(b, c.pass(0, b) > longest.Seconds())
}

// prompt is the seconds of a layer for promptRows rows: of fewRows in proportion where
// those take long enough.
func (c *clock) prompt() float64 {
	b := c.batch(fewRows)
	c.pass(0, b) // the first may compile, or wake the device
	slow := c.pass(0, b) > longest.Seconds()
	if slow && !c.spread {
		return c.layer(b, true) * promptRows / fewRows
	}
	b = c.batch(promptRows)
	c.pass(0, b)
	if !slow {
		c.pass(1, b)
	}
	return c.layer(b, slow)
}

// layer is the seconds of a layer where the second run has `more` layers more than the
// first: of passes in turns, what a quarter of them is below, since others' work only ever
// slows them. A slow pass of the first says it alone.
func (c *clock) layer(b *backend.Batch, slow bool) float64 {
	const least, most, enough = 2, 64, 200 * time.Millisecond
	var one, several []float64
	for began := time.Now(); c.err == nil && len(one) < most && (len(one) < least || time.Since(began) < enough); {
		one = append(one, c.pass(0, b))
		if !slow {
			several = append(several, c.pass(1, b))
		}
	}
	if c.err != nil || slow {
		return quartile(one)
	}
	a, z := quartile(one), quartile(several)
	if z <= a { // noise
		return z / float64(c.more+1)
	}
	return (z - a) / float64(c.more)
}

func (c *clock) pass(run int, b *backend.Batch) float64 {
	if c.err != nil {
		return 0
	}
	copy(b.Hidden, c.hidden)
	began := time.Now()
	c.err = c.stage.Forward(c.ctx, run, b)
	return time.Since(began).Seconds()
}

// batch is rows of one sequence from position 0 on.
func (c *clock) batch(rows int) *backend.Batch {
	b := &backend.Batch{Tokens: make([]int32, rows), Pos: make([]int32, rows), Seqs: []backend.Seq{{Rows: rows}}, Hidden: make([]float32, rows*c.dim)}
	for i := range b.Pos {
		b.Pos[i] = int32(i)
	}
	for i := range c.pages {
		b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
	}
	return b
}

func quartile(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	slices.Sort(x)
	return x[len(x)/4]
}

// weights is how many of a layer's a row is multiplied by.
func (s size) weights() float64 { return s.attention() + float64(max(1, s.used))*s.expert() }

func (s size) attention() float64 {
	return 2 * float64(s.dim) * float64(s.headDim) * float64(s.heads+s.kvHeads)
}
func (s size) expert() float64 { return 3 * float64(s.dim) * float64(s.ffn) }

// model has layers of this size, one and at least two more, of about cold bytes.
func (s size) model(t quant.Type, cold uint64) *backend.Model {
	experts := max(1, s.experts)
	all, perByte := s.attention()+float64(experts)*s.expert(), float64(t.BlockElems())/float64(t.BlockBytes())
	// what a row reads is to be cold, and all of it in no more than twice that
	n := 1 + min(max(2, int(float64(cold)*perByte*min(1/s.weights(), 2/all))), 40)
	m := &backend.Model{Config: backend.Config{Arch: "llama", Dim: s.dim, Layers: n, Heads: s.heads, KVHeads: s.kvHeads, HeadDim: s.headDim, FFN: s.ffn,
		Experts: s.experts, ExpertsUsed: s.used,
		Vocab: 32, Context: promptRows + backend.PageRows, NormEps: 1e-5, Rope: backend.Rope{Base: 10000, Dims: s.headDim, Factor: 1}}}
	ones := vector(s.dim)
	sources := map[int]*rows{} // by columns
	matrix := func(rows, cols int) *backend.Tensor {
		if sources[cols] == nil {
			sources[cols] = pattern(t, cols, 64)
		}
		return &backend.Tensor{Name: "layer", Type: t, Rows: rows, Cols: cols, Source: sources[cols]}
	}
	q, kv := s.headDim*s.heads, s.headDim*s.kvHeads
	l := backend.Layer{AttnNorm: ones, Q: matrix(q, s.dim), K: matrix(kv, s.dim), V: matrix(kv, s.dim), O: matrix(s.dim, q),
		FFNNorm: ones, Gate: matrix(experts*s.ffn, s.dim), Up: matrix(experts*s.ffn, s.dim), Down: matrix(experts*s.dim, s.ffn)}
	if s.experts > 0 {
		l.Router = &backend.Tensor{Name: "router", Type: quant.F32, Rows: s.experts, Cols: s.dim, Source: pattern(quant.F32, s.dim, s.experts)}
	}
	for range n {
		m.Layers = append(m.Layers, l)
	}
	m.Embed, m.Norm = matrix(m.Config.Vocab, s.dim), ones
	m.Output = m.Embed
	return m
}

// rows is a source that gives the same random rows again and again.
type rows struct {
	data []byte
	row  int // bytes of one
}

func pattern(t quant.Type, cols, n int) *rows {
	r := &rows{make([]byte, n*t.RowBytes(cols)), t.RowBytes(cols)}
	quant.Random(t, r.data, 1, 0.02)
	return r
}

func vector(n int) *backend.Tensor {
	r := &rows{make([]byte, 4*n), 4 * n}
	for i := range n {
		r.data[4*i+2], r.data[4*i+3] = 0x80, 0x3f // 1
	}
	return &backend.Tensor{Name: "norm", Type: quant.F32, Rows: 1, Cols: n, Source: r}
}

// Rows implements backend.Source.
func (r *rows) Rows(dst []byte, lo, _ int) error {
	at := lo * r.row % len(r.data)
	for len(dst) > 0 {
		n := copy(dst, r.data[at:])
		dst, at = dst[n:], 0
	}
	return nil
}

// Mapped implements backend.Source.
func (r *rows) Mapped() []byte { return nil }

// Drop implements backend.Source.
func (r *rows) Drop(int, int) {}
