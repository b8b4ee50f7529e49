package sched

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"drover/backend"
	"drover/internal/model"
	"drover/internal/quant"
)

// open is a synthetic model, of which nothing is read.
func open(t *testing.T, spec string) *backend.Model {
	t.Helper()
	f, err := model.Open("synthetic:" + spec)
	if err != nil {
		t.Fatal(err)
	}
	return f.Model
}

// fake is a device whose needs have every feature of the real ones: packed
// weights, tied matrices once, scratch by what is there, rounding, memory beside.
type fake struct {
	packed                       float64 // bytes for a byte of the file's weights
	base, attention, ffn, head   uint64  // scratch
	granule, aside               uint64
	keepsTable, refusesQ6, alone bool // the embedding costs nothing; formats; whole models take nothing aside
}

func (f *fake) need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	c := &m.Config
	n := backend.Need{Scratch: f.base, Host: f.aside}
	if f.alone && len(runs) == 1 && runs[0] == (backend.Range{Hi: c.Blocks()}) {
		n.Host = 0
	}
	seen := map[*backend.Tensor]bool{}
	var attention, ffn bool
	for _, r := range runs {
		for b := r.Lo; b < r.Hi; b++ {
			for _, t := range m.Tensors(backend.Range{Lo: b, Hi: b + 1}) {
				if f.refusesQ6 && t.Type == quant.Q6_K {
					return n, fmt.Errorf("fake: %w: Q6_K", backend.ErrUnsupported)
				}
				if !seen[t] && !(f.keepsTable && b == 0) {
					n.Weights += uint64(f.packed * float64(t.Bytes()))
				}
				seen[t] = !(f.keepsTable && b == 0)
			}
			switch {
			case b == 0:
			case b == c.Blocks()-1:
				n.Scratch += f.head
			case b%2 == 1:
				attention = true
				n.Cache += uint64(l.Pages * backend.PageRows * c.KVHeads * (l.K.RowBytes(c.HeadDim) + l.V.RowBytes(c.HeadDim)))
			default:
				ffn = true
			}
		}
	}
	if attention {
		n.Scratch += f.attention
	}
	if ffn {
		n.Scratch += f.ffn
	}
	n.Scratch += (f.granule - n.Total()%f.granule) % f.granule
	return n, nil
}

// randomModel has blocks of several kinds.
func randomModel(t *testing.T, r *rand.Rand, layers int) *backend.Model {
	extra, types := "", []string{"Q4_0", "Q8_0", "Q4_K_M", "F16"}
	if r.IntN(3) == 0 {
		extra = ",experts=8,used=2"
	}
	m := open(t, fmt.Sprintf("dim=1024,layers=%d,heads=8,kv=%d,ffn=2816,vocab=%d,ctx=4096%s:%s",
		layers, 1<<r.IntN(4), []int{1000, 32000}[r.IntN(2)], extra, types[r.IntN(len(types))]))
	for i := range m.Layers {
		if l := &m.Layers[i]; r.IntN(4) == 0 { // now and then a layer unlike the others
			down := *l.Down
			down.Type = quant.Q6_K
			l.Down = &down
		}
	}
	if r.IntN(4) == 0 {
		m.Output = m.Embed
	}
	return m
}

// randomMachine has devices with about the memory that the model takes together.
func randomMachine(r *rand.Rand, m *backend.Model, n int, l backend.Limits) []Device {
	var devices []Device
	mib := func(most int) uint64 { return uint64(r.IntN(most)) << 20 }
	for i := range n {
		if i > 0 && devices[i-1].Info.Kind == "cuda" && r.IntN(3) == 0 { // its like
			d := devices[i-1]
			d.Info.ID = fmt.Sprintf("cuda:%d", i)
			devices = append(devices, d)
			continue
		}
		f := &fake{packed: 1 + r.Float64()/4, base: mib(2), attention: mib(8), ffn: mib(8), head: mib(6), granule: 64 << r.IntN(16), aside: mib(2), alone: r.IntN(2) == 0}
		speed := math.Pow(10, 9+2*r.Float64())
		d := Device{Info: backend.Info{ID: fmt.Sprintf("cuda:%d", i), Kind: "cuda", Total: 1 << 40}, Need: f.need,
			Rates: backend.Rates{Read: speed, Matrix: 1e12 * (1 + 50*r.Float64()), Launch: 1e-6, Link: 1e9 * (0.5 + 20*r.Float64())}}
		if i == n-1 && r.IntN(4) > 0 {
			d.Info.ID, d.Info.Kind, d.Rates.Link, d.Rates.Matrix, f.keepsTable = "cpu", "cpu", 0, 1e12, true
			f.refusesQ6 = r.IntN(8) == 0
			f.aside = 0
		} else if r.IntN(8) == 0 {
			d.Info.Kind, d.Rates.Link = "metal", 0
		}
		whole, _ := f.need(m, []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}}, l)
		d.Info.Free = uint64(float64(whole.Total()) * (0.2 + 2.2*r.Float64()) / float64(1+r.IntN(n)))
		devices = append(devices, d)
	}
	return devices
}

func limitsAt(c *backend.Config) func(context int) backend.Limits {
	return func(context int) backend.Limits {
		pages := (context + backend.PageRows - 1) / backend.PageRows
		return backend.Limits{Pages: pages, Rows: min(512, pages*backend.PageRows), Seqs: 1, Context: context, Outs: 1, K: quant.F16, V: quant.F16}
	}
}

// brute tries every assignment of blocks to devices, but for what follows a
// beginning that is too large or no faster than best.
type brute struct {
	s     *search
	togo  [][]float64         // (blocks+1, devices): the shortest way from there if memory were endless
	needs []map[uint32]weight // by device and set of blocks
	sets  []uint32            // by device: its blocks, a bit each
	best  float64
	nodes int
	most  int // gives up after so many nodes
}

// weight is what a set of blocks takes.
type weight struct {
	fits   bool
	shared uint64 // of the computer's memory
}

func newBrute(s *search) *brute {
	blocks, n := len(s.t.allowed), len(s.devices)
	b := &brute{s: s, best: math.Inf(1), most: math.MaxInt, togo: make([][]float64, blocks+1), sets: make([]uint32, n)}
	for range n {
		b.needs = append(b.needs, map[uint32]weight{0: {fits: true}})
	}
	b.togo[blocks] = make([]float64, n)
	for at := blocks - 1; at > 0; at-- {
		b.togo[at] = make([]float64, n)
		for last := range n {
			b.togo[at][last] = math.Inf(1)
			for d := range n {
				if s.t.allowed[at]>>d&1 == 1 {
					b.togo[at][last] = min(b.togo[at][last], s.costs.request[d][at]+s.costs.crossRequest[last][d]+b.togo[at+1][d])
				}
			}
		}
	}
	return b
}

// weigh asks the device itself.
func (b *brute) weigh(d int) weight {
	if w, ok := b.needs[d][b.sets[d]]; ok {
		return w
	}
	dev, in := &b.s.devices[d], make([]bool, len(b.s.t.allowed))
	for i := range in {
		in[i] = b.sets[d]>>i&1 == 1
	}
	need, err := dev.Need(b.s.t.m, runsOf(in), b.s.limits)
	w := weight{err == nil && need.Total() <= dev.Info.Free, need.Host}
	if dev.Info.Kind != "cuda" {
		w.shared += need.Total()
	}
	b.needs[d][b.sets[d]] = w
	return w
}

// memory says whether what is placed fits. Before the end the computer's memory
// does not count: less lies beside a device that carries everything.
func (b *brute) memory(end bool) bool {
	var shared uint64
	for d := range b.sets {
		w := b.weigh(d)
		if !w.fits {
			return false
		}
		shared += w.shared
	}
	return !end || shared <= b.s.host
}

func (b *brute) try(at, last int, cost float64) {
	if b.nodes++; b.nodes > b.most {
		return
	}
	if at == len(b.s.t.allowed) {
		b.best = min(b.best, cost)
		return
	}
	for d := range b.s.devices {
		c := cost + b.s.costs.request[d][at]
		if at > 0 {
			c += b.s.costs.crossRequest[last][d]
		}
		if b.s.t.allowed[at]>>d&1 == 0 || c+b.togo[at+1][d] >= b.best {
			continue
		}
		b.sets[d] |= 1 << at
		if b.memory(at+1 == len(b.s.t.allowed)) {
			b.try(at+1, d, c)
		}
		b.sets[d] &^= 1 << at
	}
}

// Place finds what trying everything finds, on machines of up to 4 devices and
// models of up to 16 blocks, and never takes a byte too much. Of the largest cases,
// 4^16 assignments, some are more than can be tried: of these Place's plan is only
// held against those that were.
func TestPlaceEqualsBruteForce(t *testing.T) {
	cases, most := 2500, 66_000
	if testing.Short() {
		cases = 300
	}
	const seed = 20
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var planned, refused, pieces, nodes, large, gaveUp int
	for n := range cases {
		devices, layers := 1+r.IntN(4), 1+r.IntN(7)
		if devices > 2 && r.IntN(4) > 0 { // most with few enough assignments to try them all
			layers = min(layers, 9-2*devices)
		}
		m := randomModel(t, r, layers)
		at := limitsAt(&m.Config)
		context := 256 + r.IntN(4096-256)
		machine := randomMachine(r, m, devices, at(context))
		w := Wishes{GPULayers: -1, Strict: r.IntN(10) == 0}
		if r.IntN(10) == 0 {
			w.GPULayers = r.IntN(layers + 2)
		} else if m.Config.Experts > 0 && r.IntN(4) == 0 {
			w.ExpertsOnCPU = 1 + r.IntN(layers)
		}
		k, err := newTask(machine, m, Limits{Context: context, Least: context, At: at}, w)
		if errors.Is(err, ErrWish) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		s, err := newSearch(k, at(context), 0)
		if err != nil {
			t.Fatal(err)
		}
		where, err := s.solve()
		b := newBrute(s)
		all := math.Pow(float64(devices), float64(len(s.t.allowed)))
		if all > float64(most) {
			large++
			b.most = most
			if err == nil { // only what is better is looked for
				b.best = s.seconds(where) * (1 - 1e-9)
			}
		}
		floor := b.best
		b.try(0, 0, 0)
		nodes += b.nodes
		if b.nodes > b.most {
			gaveUp++
		}
		if err != nil {
			if refused++; !math.IsInf(b.best, 1) {
				t.Fatalf("case %d: %d devices, %d blocks: %v, want a plan of %v s", n, devices, len(s.t.allowed), err, b.best)
			}
			continue
		}
		planned++
		if got := s.seconds(where); b.best < floor && math.Abs(got-b.best) > 1e-9*b.best || math.IsInf(b.best, 1) {
			t.Errorf("case %d: %d devices, %d blocks: %v takes %v s, the best %v s", n, devices, len(where), where, got, b.best)
		}
		clear(b.sets)
		for i, d := range where {
			b.sets[d] |= 1 << i
		}
		if !b.memory(true) {
			t.Errorf("case %d: %v does not fit", n, where)
		}
		if _, err := s.plan(where); err != nil {
			t.Errorf("case %d: %v", n, err)
		}
		for i := 1; i < len(where); i++ {
			if where[i] != where[i-1] {
				pieces++
			}
		}
	}
	t.Logf("%d plans with %d borders, %d refused; %d nodes by force; %d cases of more than %d assignments, %d not tried to the end", planned, pieces, refused, nodes, large, most, gaveUp)
	if planned < cases/4 || refused < cases/50 || pieces < planned/2 || large < cases/40 || gaveUp > cases/10 {
		t.Errorf("%d plans with %d borders and %d refused of %d: the machines are too easy or too hard", planned, pieces, refused, cases)
	}
}

// A shortfall is exact: with what it names there is a plan, with 1 MiB less there
// is none.
func TestShortfall(t *testing.T) {
	const seed = 21
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	tried := 0
	for tried < 30 {
		m := randomModel(t, r, 1+r.IntN(7))
		at := limitsAt(&m.Config)
		l := Limits{Context: 2048, Least: 2048, At: at}
		machine := randomMachine(r, m, 1+r.IntN(3), at(2048))
		for i := range machine {
			machine[i].Info.Free /= 4
		}
		w := Wishes{GPULayers: -1}
		_, err := Place(machine, m, l, w)
		var short *backend.MemoryError
		if !errors.As(err, &short) {
			continue
		}
		tried++
		for i := range machine {
			if machine[i].Info.ID != short.Device {
				continue
			}
			if machine[i].Info.Free != short.Free {
				t.Errorf("%v: %d bytes are free", err, machine[i].Info.Free)
			}
			machine[i].Info.Free = short.Need
			if _, err := Place(machine, m, l, w); err != nil {
				t.Errorf("with %d bytes: %v", short.Need, err)
			}
			machine[i].Info.Free = short.Need - 1<<20
			if _, err := Place(machine, m, l, w); err == nil {
				t.Errorf("%v: a MiB less is enough", short)
			}
		}
	}
}

// The same question has the same answer.
func TestDeterministic(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 1))
	for range 6 {
		m := randomModel(t, r, 12)
		at := limitsAt(&m.Config)
		l := Limits{Context: 4096, Least: 256, At: at}
		machine := randomMachine(r, m, 3, at(4096))
		first, err := Place(machine, m, l, Wishes{GPULayers: -1})
		again, err2 := Place(machine, m, l, Wishes{GPULayers: -1})
		if fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("%v, then %v", err, err2)
		}
		if err != nil {
			continue
		}
		for _, p := range []*Plan{first, again} {
			p.Explain()
			p.task = nil // it holds functions, which are never equal
		}
		if !reflect.DeepEqual(first, again) {
			t.Errorf("%+v, then %+v", first, again)
		}
	}
}
