package backendtest

import (
	"slices"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

func windowed(s *shape) bool { return s.window > 0 }
func mixture(s *shape) bool  { return s.experts > 0 }

// cases are the suite, in the order of docs/conformance.txt. The first runs on
// every pair of shape and format.
var cases = []check{
	{name: "nmse against the reference", run: nmse},
	{name: "arithmetic", possible: func(o *Options) bool { return o.Round != nil }, run: arithmetic},
	{name: "rows at once = one by one", run: oneByOne},
	{name: "cut at every block = whole", run: cuts},
	{name: "several runs on one stage", run: severalRuns},
	{name: "two sequences interleaved = apart", run: interleaved},
	{name: "rows = whatever else is in the batch", run: company},
	{name: "other instances give the same bits", possible: func(o *Options) bool { return len(o.Same) > 0 }, run: otherInstances},
	{name: "stages at the same time", run: sameTime},
	{name: "shared prefix pages", run: sharedPrefix},
	{name: "rewind", run: rewind},
	{name: "released pages", applies: windowed, run: releasedPages},
	{name: "full context", run: fullContext},
	{name: "long context", run: longContext},
	{name: "empty and partial Out", run: partialOut},
	{name: "Top and LogSum against Logits", run: topAgainstLogits},
	{name: "Norm", run: normAgainstReference},
	{name: "router ties", applies: mixture, run: routerTies},
	{name: "trace against the reference", run: traceAgainstReference},
	{name: "cancellation, then rewind", run: cancellation},
	{name: "cache formats", run: cacheFormats},
	{name: "Need equals what is used", run: needIsUsed},
	{name: "MemoryError leaks nothing", run: memoryError},
	{name: "a load that fails leaks nothing", run: failedLoad},
	{name: "progress", run: progress},
}

// nmse: a prompt, single rows and rows again, against the reference; of a
// device with row classes also all rows at once.
func nmse(x *env) {
	p := part{[]int32{3}, 0, x.clear(10)}
	want := x.reference().feed(p, 10).logits
	x.near("logits", x.whole(x.dev).feed(p, 5, 1, 1, 3).logits, want)
	if x.o.Class != nil {
		x.near("logits of one batch", x.whole(x.dev).feed(p, 10).logits, want)
	}
}

// arithmetic: with the reference rounding activations as the device does, what
// is left is float32 arithmetic, but where a value falls on the other side of a
// rounding, which then spreads. So twelve sequences of two rows stand alone,
// and the third best counts.
func arithmetic(x *env) {
	x.lim.K, x.lim.V = quant.F32, quant.F32
	reference := ref.New()
	if x.typ.BlockElems() > 1 {
		reference.Round = x.o.Round
	}
	dev, want := x.whole(x.dev), x.whole(reference)
	var errs []float64
	for i := range 12 {
		p := part{[]int32{int32(i % 8)}, 0, x.random(100+i, 2)}
		errs = append(errs, ref.NMSE(dev.logits(p).logits, want.logits(p).logits))
	}
	slices.Sort(errs)
	if limit := ToleranceOf(quant.F32, quant.F32, quant.F32).NMSE; !(errs[2] <= limit) {
		x.t.Errorf("NMSE of twelve sequences %.1e: the third best is above %.0e", errs, limit)
	}
}

// oneByOne: however a sequence's rows are grouped into batches.
func oneByOne(x *env) {
	p := part{[]int32{1}, 0, x.clear(13)}
	want := x.whole(x.dev).feed(p, 1)
	for _, sizes := range [][]int{{13}, {2}, {5, 3, 4, 1}, {9, 4}} {
		x.same("in batches", x.whole(x.dev).feed(p, sizes...), want)
	}
}

// cuts: the model cut at each block, and at all, the hidden state going from
// stage to stage.
func cuts(x *env) {
	p := part{[]int32{2}, 0, x.random(2, 6)}
	want := x.whole(x.dev).feed(p, 4, 1)
	last := x.m.Config.Blocks()
	var every [][]backend.Range
	for b := range last {
		every = append(every, []backend.Range{{Lo: b, Hi: b + 1}})
		if b > 0 {
			l := x.load(x.dev, []backend.Range{{Lo: 0, Hi: b}}, []backend.Range{{Lo: b, Hi: last}})
			x.same("cut in two", l.feed(p, 4, 1), want)
			x.closeLines()
		}
	}
	x.same("cut at every block", x.load(x.dev, every...).feed(p, 4, 1), want)
}

// severalRuns: stages of several runs, listed in any order, as when experts
// lie elsewhere than attention.
func severalRuns(x *env) {
	p := part{[]int32{0}, 0, x.random(3, 7)}
	want := x.whole(x.dev).feed(p, 5, 1)
	last := x.m.Config.Blocks()
	one := x.load(x.dev, []backend.Range{{Lo: 3, Hi: last}, {Lo: 0, Hi: 2}, {Lo: 2, Hi: 3}})
	x.same("three runs on one stage", one.feed(p, 5, 1), want)
	var even, odd []backend.Range
	for b := range last {
		if b%2 == 0 {
			even = append(even, backend.Range{Lo: b, Hi: b + 1})
		} else {
			odd = append(odd, backend.Range{Lo: b, Hi: b + 1})
		}
	}
	x.same("attention and feed-forward on two stages", x.load(x.dev, even, odd).feed(p, 5, 1), want)
}

// interleaved: two sequences in turn, then in the same batch.
func interleaved(x *env) {
	a, b := part{[]int32{4}, 0, x.random(4, 12)}, part{[]int32{6}, 0, x.random(5, 12)}
	wantA, wantB := x.whole(x.dev).feed(a, 3), x.whole(x.dev).feed(b, 3)
	turns, both := x.whole(x.dev), x.whole(x.dev)
	for i := 0; i < 12; i += 3 {
		a3, b3 := part{a.pages, i, a.tokens[i : i+3]}, part{b.pages, i, b.tokens[i : i+3]}
		x.same("first sequence, in turn", turns.logits(a3), wantA.rows(i, i+3))
		x.same("second sequence, in turn", turns.logits(b3), wantB.rows(i, i+3))
		r := both.logits(a3, b3)
		x.same("first sequence, in one batch", r.rows(0, 3), wantA.rows(i, i+3))
		x.same("second sequence, in one batch", r.rows(3, 6), wantB.rows(i, i+3))
	}
}

// company: a row and a prompt of one sequence beside others, first, between
// and last.
func company(x *env) {
	l := x.whole(x.dev)
	tokens := x.clear(6)
	prompt, next := part{[]int32{0}, 0, tokens[:5]}, part{[]int32{0}, 5, tokens[5:]}
	others := []part{{[]int32{1}, 0, x.random(8, 1)}, {[]int32{2}, 0, x.random(9, 9)}, {[]int32{3}, 0, x.random(10, 2)}}
	want := l.logits(prompt)
	wantNext := l.logits(next)
	for _, p := range []part{prompt, next} {
		want, n := want, len(p.tokens)
		if n == 1 {
			want = wantNext
		}
		x.same("before one row", l.logits(p, others[0]).rows(0, n), want)
		x.same("after nine rows", l.logits(others[1], p).rows(9, 9+n), want)
		x.same("between", l.logits(others[0], p, others[1], others[2]).rows(1, 1+n), want)
		x.same("last of four", l.logits(others[0], others[1], others[2], p).rows(12, 12+n), want)
	}
}

// otherInstances: the same bits from the same device again, and from its other
// instances.
func otherInstances(x *env) {
	p := part{[]int32{5}, 0, x.random(11, 21)}
	want := x.whole(x.dev).feed(p, 17, 1)
	for _, dev := range append([]backend.Device{x.dev}, x.o.Same...) {
		x.same("another instance", x.whole(dev).feed(p, 17, 1), want)
	}
}

// sameTime: two stages of one device, used at once by two goroutines.
func sameTime(x *env) {
	a, b := part{[]int32{4}, 0, x.random(12, 12)}, part{[]int32{4}, 0, x.random(13, 12)}
	wantA, wantB := x.whole(x.dev).feed(a, 12), x.whole(x.dev).feed(b, 12)
	la, lb := x.whole(x.dev), x.whole(x.dev)
	ba, bb := x.batch(a), x.batch(b)
	errs := make(chan error, 2)
	go func() { errs <- la.forward(background, ba) }()
	go func() { errs <- lb.forward(background, bb) }()
	for range 2 {
		if err := <-errs; err != nil {
			x.t.Errorf("forward: %v", err)
		}
	}
	x.same("first stage", result{ba.Logits, la.classes}, wantA)
	x.same("second stage", result{bb.Logits, lb.classes}, wantB)
}
