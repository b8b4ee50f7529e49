package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"drover/backend"
	"drover/internal/sample"
)

// The fake device computes, instead of attention, a hash over everything that
// a row sees, from what was written into the pages. One wrong page, position
// or visible row changes every later token. It also holds the engine to the
// contract: limits, order, and that nobody writes what others hold.

const fakeVocab = 60

func fakeModel(layers, window, context int) *backend.Model {
	return &backend.Model{
		Config: backend.Config{Arch: "fake", Dim: 2, Layers: layers, Vocab: fakeVocab, Context: context, Window: window},
		Layers: make([]backend.Layer, layers),
	}
}

func mix(a, b uint32) uint32 {
	h := uint64(a)<<32 | uint64(b)
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>29) * 0xc4ceb9fe1a85ec53
	return uint32(h >> 32)
}

// see folds one visible cell into the hash of what a row sees.
func see(acc uint32, pos int, cell uint32) uint32 {
	return (acc ^ cell ^ uint32(pos)*0x9e3779b9) * 0x01000193
}

func fakeLogits(dst []float32, h uint32) {
	for i := range dst {
		dst[i] = float32(mix(h, uint32(i))%8192)/1024 - 4
	}
}

// oracle is the same model over plain slices: no pages, no batches.
type oracle struct {
	layers, window int
	cells          [][]uint32 // (layers, positions)
}

func newOracle(m *backend.Model) *oracle {
	return &oracle{m.Config.Layers, m.Config.Window, make([][]uint32, m.Config.Layers)}
}

func (o *oracle) push(id int32) []float32 {
	h := mix(uint32(id), 1)
	for l := range o.layers {
		o.cells[l] = append(o.cells[l], h)
		pos, acc := len(o.cells[l])-1, uint32(0)
		lo := 0
		if o.window > 0 {
			lo = max(0, pos-o.window+1)
		}
		for p := lo; p <= pos; p++ {
			acc = see(acc, p, o.cells[l][p])
		}
		h = mix(mix(h, acc), uint32(l))
	}
	logits := make([]float32, fakeVocab)
	fakeLogits(logits, h)
	return logits
}

// text is what a request alone must give.
func (o *oracle) text(prompt []int32, max int, p sample.Params) (ids []int32) {
	s := sample.New(p)
	var logits []float32
	for _, id := range prompt {
		s.Accept(id)
		logits = o.push(id)
	}
	for range max {
		id := s.Sample(logits)
		s.Accept(id)
		ids = append(ids, id)
		logits = o.push(id)
	}
	return ids
}

type fakeDevice struct {
	id       string
	free     uint64
	perPage  uint64
	perBlock uint64
	kind     string
	failure  error                        // of Load
	loading  func(context.Context) error  // called by Load
	before   func(context.Context) error  // called at the start of every Forward
	cost     func(rows int) time.Duration // how long a Forward takes, on a virtual clock

	lostAt      int32        // the Forward at which it is lost for good; 0: never
	passes      atomic.Int32 // Forwards so far
	loads, open atomic.Int32
	most        atomic.Int32 // most sequences in a batch
	mu          sync.Mutex
	faults      []string
}

func (d *fakeDevice) Info() backend.Info {
	return backend.Info{ID: d.id, Kind: d.kind, ISA: "fake", Total: d.free, Free: d.free}
}
func (d *fakeDevice) Measure(context.Context) (backend.Rates, error) { return backend.Rates{}, nil }
func (d *fakeDevice) Sensors() backend.Sensors                       { return backend.Sensors{} }

func (d *fakeDevice) Need(_ *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	blocks := 0
	for _, r := range runs {
		blocks += r.Hi - r.Lo
	}
	return backend.Need{Weights: 1000 + d.perBlock*uint64(blocks), Cache: uint64(l.Pages) * d.perPage, Scratch: 24}, nil
}

func (d *fakeDevice) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	d.loads.Add(1)
	if d.isLost() {
		return nil, fmt.Errorf("load: %w", backend.ErrLost)
	}
	if d.failure != nil {
		err := d.failure
		d.failure = nil
		return nil, err
	}
	if d.loading != nil {
		if err := d.loading(ctx); err != nil {
			return nil, err
		}
	}
	if progress != nil {
		progress(500, 1000)
		progress(1000, 1000)
	}
	d.open.Add(1)
	s := &fakeStage{dev: d, config: m.Config, runs: runs, l: l, scratch: make([]float32, 2*l.Rows), cells: make([][]uint32, m.Config.Layers)}
	for i := range s.cells {
		s.cells[i] = make([]uint32, l.Pages*backend.PageRows)
	}
	return s, nil
}

func (d *fakeDevice) isLost() bool { return d.lostAt > 0 && d.passes.Load() >= d.lostAt }

func (d *fakeDevice) fault(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.faults) < 5 {
		d.faults = append(d.faults, fmt.Sprintf(format, args...))
	}
}

type fakeStage struct {
	dev     *fakeDevice
	config  backend.Config
	runs    []backend.Range
	l       backend.Limits
	cells   [][]uint32 // (layers, pages*PageRows)
	scratch []float32  // (rows, 2)
	busy    atomic.Bool
}

func (s *fakeStage) Close() error {
	s.dev.open.Add(-1)
	if s.dev.isLost() {
		return fmt.Errorf("close: %w", backend.ErrLost)
	}
	return nil
}

func (s *fakeStage) Forward(ctx context.Context, run int, b *backend.Batch) error {
	if s.busy.Swap(true) {
		s.dev.fault("two goroutines in one stage")
	}
	defer s.busy.Store(false)
	if n := int32(len(b.Seqs)); n > s.dev.most.Load() {
		s.dev.most.Store(n)
	}
	s.check(b)
	if s.dev.before != nil {
		if err := s.dev.before(ctx); err != nil {
			s.poison(b)
			return err
		}
	}
	if s.dev.passes.Add(1); s.dev.isLost() {
		s.poison(b)
		return fmt.Errorf("xid 79: %w", backend.ErrLost)
	}
	if s.dev.cost != nil {
		select {
		case <-time.After(s.dev.cost(len(b.Tokens))):
		case <-ctx.Done(): // seen below
		}
	}
	r, hidden := s.runs[run], b.Hidden
	if r.Lo == 0 && r.Hi == s.config.Blocks() {
		hidden = s.scratch[:2*len(b.Tokens)]
	}
	for blk := r.Lo; blk < r.Hi; blk++ {
		if ctx.Err() != nil {
			s.poison(b)
			return ctx.Err()
		}
		s.block(blk, hidden, b)
	}
	return nil
}

// block computes one block. The hidden state is a hash, 16 bits a float.
func (s *fakeStage) block(blk int, hidden []float32, b *backend.Batch) {
	get := func(row int) uint32 { return uint32(hidden[2*row])<<16 | uint32(hidden[2*row+1]) }
	set := func(row int, h uint32) { hidden[2*row], hidden[2*row+1] = float32(h>>16), float32(h&0xffff) }
	switch layer := (blk - 1) / 2; {
	case blk == 0:
		for i, id := range b.Tokens {
			set(i, mix(uint32(id), 1))
		}
	case blk == s.config.Blocks()-1:
		for i, row := range b.Out {
			fakeLogits(b.Logits[i*fakeVocab:(i+1)*fakeVocab], get(int(row)))
		}
	case blk%2 == 1:
		row := 0
		for _, seq := range b.Seqs {
			for range seq.Rows {
				set(row, mix(get(row), s.attend(layer, seq.Pages, int(b.Pos[row]), get(row))))
				row++
			}
		}
	default:
		for i := range b.Tokens {
			set(i, mix(get(i), uint32(layer)))
		}
	}
}

func (s *fakeStage) attend(layer int, pages []int32, pos int, h uint32) (acc uint32) {
	cell := func(p int) *uint32 {
		page := pages[p/backend.PageRows]
		return &s.cells[layer][int(page)*backend.PageRows+p%backend.PageRows]
	}
	*cell(pos) = h
	for p := s.lowest(pos); p <= pos; p++ {
		acc = see(acc, p, *cell(p))
	}
	return acc
}

func (s *fakeStage) lowest(pos int) int {
	if s.config.Window == 0 {
		return 0
	}
	return max(0, pos-s.config.Window+1)
}

// poison makes the batch's rows what the contract calls undefined.
func (s *fakeStage) poison(b *backend.Batch) {
	row := 0
	for _, seq := range b.Seqs {
		for range seq.Rows {
			pos := int(b.Pos[row])
			for l := range s.cells {
				s.cells[l][int(seq.Pages[pos/backend.PageRows])*backend.PageRows+pos%backend.PageRows] = rand.Uint32()
			}
			row++
		}
	}
}

// check holds the batch to the contract.
func (s *fakeStage) check(b *backend.Batch) {
	if len(b.Tokens) == 0 || len(b.Tokens) > s.l.Rows || len(b.Seqs) > s.l.Seqs || len(b.Out) > s.l.Outs || len(b.Pos) != len(b.Tokens) {
		s.dev.fault("%d rows, %d sequences, %d outs past %+v", len(b.Tokens), len(b.Seqs), len(b.Out), s.l)
	}
	if len(b.Logits) != len(b.Out)*fakeVocab {
		s.dev.fault("%d logits for %d outs", len(b.Logits), len(b.Out))
	}
	for i, row := range b.Out {
		if int(row) >= len(b.Tokens) || i > 0 && row <= b.Out[i-1] {
			s.dev.fault("out %v of %d rows", b.Out, len(b.Tokens))
			break
		}
	}
	holders, writers := map[int32]int{}, map[int32]bool{}
	row := 0
	for _, seq := range b.Seqs {
		if seq.Rows == 0 {
			s.dev.fault("a sequence without rows")
			continue
		}
		first, last := int(b.Pos[row]), int(b.Pos[row+seq.Rows-1])
		if last-first != seq.Rows-1 || last >= s.l.Context {
			s.dev.fault("positions %d to %d in %d rows, context %d", first, last, seq.Rows, s.l.Context)
		}
		for i := s.lowest(first) / backend.PageRows; i <= last/backend.PageRows; i++ {
			if i >= len(seq.Pages) || seq.Pages[i] < 0 || int(seq.Pages[i]) >= s.l.Pages {
				s.dev.fault("positions from %d: no page %d in %v", first, i, seq.Pages)
				panic("BUG: the engine sent a page table that would be read out of bounds")
			}
			holders[seq.Pages[i]]++
			if i >= first/backend.PageRows {
				writers[seq.Pages[i]] = true
			}
		}
		row += seq.Rows
	}
	for page := range writers {
		if holders[page] > 1 {
			s.dev.fault("page %d is written and held by %d sequences", page, holders[page])
		}
	}
	if row != len(b.Tokens) {
		s.dev.fault("%d rows of sequences, %d tokens", row, len(b.Tokens))
	}
}

// open loads m whole on a fake device, and checks at the end of the test that
// nothing was broken or leaked.
func open(t testing.TB, m *backend.Model, d *fakeDevice, o Options) *Engine {
	t.Helper()
	if d.id == "" {
		d.id = "fake"
	}
	e, err := Load(context.Background(), m, Fixed(m, Whole(m, d), o), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { settle(t, e, d) })
	return e
}

// split places runs of blocks that end at the cuts on fake devices, run i on device
// on[i].
func split(m *backend.Model, cuts []int, on []int) ([]Placement, []*fakeDevice) {
	var places []Placement
	var devices []*fakeDevice
	lo := 0
	for i, hi := range append(slices.Clone(cuts), m.Config.Blocks()) {
		for on[i] >= len(devices) {
			d := &fakeDevice{id: fmt.Sprint("fake:", len(devices))}
			devices = append(devices, d)
			places = append(places, Placement{Device: d})
		}
		p := &places[on[i]]
		p.Runs = append(p.Runs, backend.Range{Lo: lo, Hi: hi})
		lo = hi
	}
	return places, devices
}

// settle closes the engine and looks for what is left.
func settle(t testing.TB, e *Engine, devices ...*fakeDevice) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	checkPages(t, e.pages)
	held := 0
	for _, n := range e.pages.refs {
		held += int(n)
	}
	if held != 0 || e.pages.available() != e.limits.Pages || len(e.live)+len(e.waiting) != 0 {
		t.Errorf("at the end %d pages are held, %d of %d available, %d sequences live, %d waiting",
			held, e.pages.available(), e.limits.Pages, len(e.live), len(e.waiting))
	}
	for _, d := range devices {
		for _, f := range d.faults {
			t.Error("contract: " + f)
		}
		if n := d.open.Load(); n != 0 {
			t.Errorf("%d stages still open", n)
		}
	}
}

var errTest = errors.New("planted")
