package backendtest

import (
	"context"
	"errors"
	"sync/atomic"

	"drover/backend"
	"drover/internal/quant"
)

// needIsUsed: Need says what a stage then holds, and grows with every limit.
func needIsUsed(x *env) {
	last := x.m.Config.Blocks()
	places := [][]backend.Range{x.all(), {{Lo: 0, Hi: 1}}, {{Lo: last - 1, Hi: last}, {Lo: 0, Hi: 1}}, {{Lo: 1, Hi: 2}, {Lo: 3, Hi: last}}}
	for i, runs := range places {
		lim := x.lim
		lim.Pages, lim.Rows, lim.Outs = lim.Pages-i, lim.Rows-7*i, lim.Outs-30*i
		need, err := x.dev.Need(x.m, runs, lim)
		if err != nil {
			x.t.Fatalf("need of %v: %v", runs, err)
		}
		s, err := x.dev.Load(background, x.m, runs, lim, nil)
		if err != nil {
			x.t.Fatalf("load %v: %v", runs, err)
		}
		used := x.used(s)
		if x.o.Card {
			if need.Total() < used.Total() || need.Total() > used.Total()+used.Total()/100+64<<20 {
				x.t.Errorf("runs %v: need %+v, used %+v", runs, need, used)
			}
		} else if need != used {
			x.t.Errorf("runs %v: need %+v, used %+v", runs, need, used)
		}
		if err := s.Close(); err != nil {
			x.t.Errorf("close: %v", err)
		}
	}
	base := x.need(x.all(), x.lim)
	for name, more := range map[string]func(l *backend.Limits){
		"pages": func(l *backend.Limits) { l.Pages += 3 }, "rows": func(l *backend.Limits) { l.Rows += 64 }, "outs": func(l *backend.Limits) { l.Outs += 64 },
		"context": func(l *backend.Limits) { l.Context += 256 }, "seqs": func(l *backend.Limits) { l.Seqs += 8 },
		"K to F32": func(l *backend.Limits) { l.K = quant.F32 }, "V to F32": func(l *backend.Limits) { l.V = quant.F32 },
	} {
		lim := x.lim
		more(&lim)
		if n := x.need(x.all(), lim); n.Total() < base.Total() || n.Cache < base.Cache || name == "pages" && n.Cache <= base.Cache {
			x.t.Errorf("need %+v with more %s, %+v before", n, name, base)
		}
	}
	if n := x.need([]backend.Range{{Lo: 0, Hi: last - 1}}, x.lim); n.Weights > base.Weights || n.Total() > base.Total() {
		x.t.Errorf("need %+v without the head, %+v with it", n, base)
	}
}

func (x *env) need(runs []backend.Range, lim backend.Limits) backend.Need {
	x.t.Helper()
	n, err := x.dev.Need(x.m, runs, lim)
	if err != nil {
		x.t.Fatalf("need of %v: %v", runs, err)
	}
	return n
}

func (x *env) used(s backend.Stage) backend.Need {
	x.t.Helper()
	if u, ok := s.(interface{ Used() backend.Need }); ok {
		return u.Used()
	}
	if x.o.Used == nil {
		x.t.Fatalf("nothing says what a stage holds: give it Used() backend.Need, or set Options.Used")
	}
	return x.o.Used(s)
}

// memoryError: a model that does not fit is refused with the figures, and what
// fits is then loaded.
func memoryError(x *env) {
	if x.o.Small == nil {
		x.tooManyPages()
		return
	}
	need := x.need(x.all(), x.lim).Total()
	small := x.o.Small(need - 1)
	x.refused(small, x.lim, need)
	lim := x.lim
	lim.Pages--
	s, err := small.Load(background, x.m, x.all(), lim, nil)
	if err != nil {
		x.t.Fatalf("load with a page less after ErrMemory: %v", err)
	}
	if err := s.Close(); err != nil {
		x.t.Errorf("close: %v", err)
	}

	exact := x.o.Small(need)
	free := exact.Info().Free
	for range 2 {
		s, err := exact.Load(background, x.m, x.all(), x.lim, nil)
		if err != nil {
			x.t.Fatalf("load of %d bytes with %d free: %v", need, exact.Info().Free, err)
		}
		if got := exact.Info().Free; !x.o.Card && got != free-need {
			x.t.Errorf("%d bytes free after a load of %d with %d free", got, need, free)
		}
		x.refused(exact, x.lim, need)
		if err := s.Close(); err != nil {
			x.t.Errorf("close: %v", err)
		}
		if got := exact.Info().Free; !x.o.Card && got != free {
			x.t.Errorf("%d bytes free after Close, %d before Load", got, free)
		}
	}
}

// refused wants dev to say ErrMemory, and to be as it was.
func (x *env) refused(dev backend.Device, lim backend.Limits, need uint64) {
	x.t.Helper()
	free := dev.Info().Free
	s, err := dev.Load(background, x.m, x.all(), lim, nil)
	if err == nil {
		x.t.Errorf("load of %d bytes with %d free succeeds", need, free)
		s.Close()
		return
	}
	var m *backend.MemoryError
	if !errors.As(err, &m) || !errors.Is(err, backend.ErrMemory) {
		x.t.Errorf("load of %d bytes with %d free: %v, want a MemoryError", need, free, err)
		return
	}
	if m.Need != need || m.Free >= m.Need || x.o.Small != nil && !x.o.Card && m.Free != free {
		x.t.Errorf("MemoryError with need %d and free %d; it needs %d with %d free", m.Need, m.Free, need, free)
	}
	if got := dev.Info().Free; x.o.Small != nil && !x.o.Card && got != free {
		x.t.Errorf("%d bytes free after ErrMemory, %d before", got, free)
	}
}

// tooManyPages asks a device that cannot pretend for more than it has.
func (x *env) tooManyPages() {
	lim := x.lim
	for x.need(x.all(), lim).Total() < 2*x.dev.Info().Total { // a page alone may vanish in what memory is rounded to
		lim.Pages *= 2
	}
	x.refused(x.dev, lim, x.need(x.all(), lim).Total())
	p := part{[]int32{0}, 0, x.random(24, 3)}
	x.same("after ErrMemory", x.whole(x.dev).feed(p, 3), x.whole(x.dev).feed(p, 3))
}

var errBroken = errors.New("broken source")

// broken is a tensor whose source fails once left reads are done.
type broken struct {
	backend.Source
	left *atomic.Int64
}

func (b broken) Rows(dst []byte, lo, hi int) error {
	if b.left.Add(-1) < 0 {
		return errBroken
	}
	return b.Source.Rows(dst, lo, hi)
}

// failedLoad: a source that fails, and a context that ends, in the middle of a
// load. Where the device can pretend, it has room for one model only.
func failedLoad(x *env) {
	dev := x.dev
	if x.o.Small != nil {
		dev = x.o.Small(x.need(x.all(), x.lim).Total())
	}
	whole := x.m
	defer func() { x.m = whole }()
	for _, after := range []int64{0, 1, 11} {
		var left atomic.Int64
		left.Store(after)
		m := *whole
		x.m = &m
		m.Layers = append([]backend.Layer(nil), whole.Layers...)
		for i := range m.Layers {
			for _, t := range []**backend.Tensor{&m.Layers[i].Q, &m.Layers[i].O, &m.Layers[i].FFNNorm, &m.Layers[i].Up, &m.Layers[i].Down} {
				copied := **t
				copied.Source = broken{copied.Source, &left}
				*t = &copied
			}
		}
		// sources are read in pieces of any size: fail at the last read at the latest
		s, err := dev.Load(background, x.m, x.all(), x.lim, nil)
		if err == nil && left.Load() < 0 {
			x.t.Errorf("load with a source that fails after %d reads succeeds", after)
		}
		if err != nil && !errors.Is(err, errBroken) {
			x.t.Errorf("load with a source that fails after %d reads: %v, want the source's error", after, err)
		}
		if err == nil {
			s.Close()
		}
	}
	x.m = whole
	ctx, cancel := context.WithCancel(background)
	cancel()
	if _, err := dev.Load(ctx, x.m, x.all(), x.lim, nil); !errors.Is(err, context.Canceled) {
		x.t.Errorf("load with a cancelled context: %v, want context.Canceled", err)
	}
	ctx, cancel = context.WithCancel(background)
	defer cancel()
	s, err := dev.Load(ctx, x.m, x.all(), x.lim, func(done, total uint64) { cancel() })
	if err == nil {
		s.Close()
	} else if !errors.Is(err, context.Canceled) {
		x.t.Errorf("load cancelled at its first progress: %v, want context.Canceled", err)
	}
	p := part{[]int32{0}, 0, x.random(25, 3)}
	x.same("after loads that failed", x.whole(dev).feed(p, 3), x.whole(x.dev).feed(p, 3))
}

// progress: it grows from the first call to the total.
func progress(x *env) {
	var last, total uint64
	calls := 0
	s, err := x.dev.Load(background, x.m, x.all(), x.lim, func(done, all uint64) {
		if done < last || done > all || calls > 0 && all != total {
			x.t.Errorf("progress %d of %d after %d of %d", done, all, last, total)
		}
		last, total = done, all
		calls++
	})
	if err != nil {
		x.t.Fatalf("load: %v", err)
	}
	if calls == 0 || last != total || total == 0 {
		x.t.Errorf("progress ended at %d of %d after %d calls", last, total, calls)
	}
	if err := s.Close(); err != nil {
		x.t.Errorf("close: %v", err)
	}
}
