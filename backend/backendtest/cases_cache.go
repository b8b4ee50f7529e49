package backendtest

import (
	"context"
	"errors"
	"fmt"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

var background = context.Background()

const page = backend.PageRows

// sharedPrefix: two sequences that name the same full page go their own ways.
func sharedPrefix(x *env) {
	prefix, endA, endB := x.random(14, page), x.random(15, 5), x.random(16, 5)
	l := x.whole(x.dev)
	l.feed(part{[]int32{7}, 0, prefix}, page)
	a, b := part{[]int32{7, 2}, page, endA}, part{[]int32{7, 5}, page, endB}
	var gotA, gotB result
	for i := range endA { // row by row in the same batches
		r := l.logits(part{a.pages, page + i, endA[i : i+1]}, part{b.pages, page + i, endB[i : i+1]})
		gotA, gotB = result{append(gotA.logits, r.rows(0, 1).logits...), r.classes}, result{append(gotB.logits, r.rows(1, 2).logits...), r.classes}
	}
	alone := x.whole(x.dev)
	alone.feed(part{[]int32{1}, 0, prefix}, page)
	x.same("first sequence", gotA, alone.feed(part{[]int32{1, 0}, page, endA}, 1))
	alone.feed(part{[]int32{3}, 0, prefix}, page)
	x.same("second sequence", gotB, alone.feed(part{[]int32{3, 4}, page, endB}, 1))
}

// rewind: earlier positions sent again, with other tokens, in batches of other
// sizes.
func rewind(x *env) {
	first, other := x.random(17, 12), x.random(18, 8)
	l := x.whole(x.dev)
	l.feed(part{[]int32{3}, 0, first}, 12)
	got := l.feed(part{[]int32{3}, 4, other}, 2, 1, 5)
	fresh := x.whole(x.dev)
	fresh.feed(part{[]int32{3}, 0, first[:4]}, 4)
	x.same("other tokens from position 4", got, fresh.feed(part{[]int32{3}, 4, other}, 2, 1, 5))
	again := l.feed(part{[]int32{3}, 0, first[:3]}, 3)
	x.same("the beginning again", again, x.whole(x.dev).feed(part{[]int32{3}, 0, first[:3]}, 3))
}

// releasedPages: pages wholly before every window are taken away and used for
// later positions.
func releasedPages(x *env) {
	tokens := x.random(19, 2*page+30)
	keep, release := x.whole(x.dev), x.whole(x.dev)
	kept, pages := []int32{5, 0, 6}, []int32{1, 2, 4}
	free := []int32{}
	for pos := 0; pos < len(tokens); {
		n := min(page-pos%page, 38, len(tokens)-pos)
		for i := range pages {
			// the first row of the batch sees positions after pos-window
			if pages[i] >= 0 && (i+1)*page <= pos-x.m.Config.Window+1 {
				free = append(free, pages[i])
				pages[i] = -1
			}
		}
		if i := pos / page; pos%page == 0 && len(free) > 0 {
			pages[i], free = free[0], free[1:]
		}
		p := part{kept, pos, tokens[pos : pos+n]}
		want := keep.logits(p)
		p.pages = pages
		x.same(fmt.Sprintf("positions %d to %d with pages %v", pos, pos+n-1, pages), release.logits(p), want)
		pos += n
	}
	if x.m.Config.Window < page && pages[0] >= 0 {
		x.t.Errorf("BUG in the case: no page was released")
	}
}

// fullContext: to the last position of the context, which is no multiple of a
// page, over pages out of order.
func fullContext(x *env) {
	n := page + 11
	x.lim.Context = n
	p := part{[]int32{6, 1}, 0, x.clear(n)}
	got := x.whole(x.dev).feed(p, 40, 34, 1)
	x.near("the last rows", got.rows(n-30, n).logits, x.reference().feed(p, n).rows(n-30, n).logits)
	x.same("in other batches", x.whole(x.dev).feed(p, 25).rows(n-30, n), got.rows(n-30, n))
}

// longContext: the first attention block alone, past position 256, and with
// float weights 512: devices cut long contexts.
func longContext(x *env) {
	n, last := 4*page+11, 11
	if x.typ.BlockElems() == 1 {
		n = 8*page + 11
	}
	x.lim.Context, x.lim.Pages = n, 12
	runs := []backend.Range{{Lo: 1, Hi: 2}}
	pages := []int32{11, 0, 7, 3, 9, 1, 8, 10, 2}
	dim := x.m.Config.Dim
	hidden := floats(random("hidden", quant.F32, n, dim, 1, 1))
	send := func(l *line, lo, hi int) []float32 {
		b := x.batch(part{pages, lo, make([]int32, hi-lo)})
		b.Out, b.Logits = nil, nil
		b.Hidden = append([]float32(nil), hidden[lo*dim:hi*dim]...)
		if x.o.Class != nil {
			l.classes[x.o.Class(hi-lo)] = true
		}
		if err := l.stages[0].Forward(background, 0, b); err != nil {
			x.t.Fatalf("forward: %v", err)
		}
		return b.Hidden
	}
	dev, reference := x.load(x.dev, runs), x.load(ref.New(), runs)
	var got, want []float32
	for lo := 0; lo < n; lo += 128 {
		hi := min(lo+128, n)
		got, want = send(dev, lo, hi), send(reference, lo, hi)
		x.near("what attention adds", added(hidden[lo*dim:hi*dim], got), added(hidden[lo*dim:hi*dim], want))
	}
	got = got[len(got)-last*dim:]
	for i := range last {
		one := send(dev, n-last+i, n-last+i+1)
		x.same("a row alone", result{one, dev.classes}, result{got[i*dim : (i+1)*dim], dev.classes})
	}
}

// added is what a block added to the hidden state.
func added(before, after []float32) []float32 {
	d := make([]float32, len(after))
	for i := range d {
		d[i] = after[i] - before[i]
	}
	return d
}

// cacheFormats: every pair of formats, against the reference with the same
// rounding.
func cacheFormats(x *env) {
	formats := []quant.Type{quant.F32, quant.F16, quant.Q8_0}
	for _, k := range formats {
		for _, v := range formats {
			x.lim.K, x.lim.V = k, v
			if x.sh.headDim%32 != 0 && (k == quant.Q8_0 || v == quant.Q8_0) {
				_, err := x.dev.Load(background, x.m, x.all(), x.lim, nil)
				if !errors.Is(err, backend.ErrUnsupported) {
					x.t.Errorf("load with caches %v and %v and heads of %d: %v, want ErrUnsupported", k, v, x.sh.headDim, err)
				}
				continue
			}
			p := part{[]int32{2}, 0, x.clear(9)}
			x.near("logits", x.whole(x.dev).feed(p, 6, 1).logits, x.reference().feed(p, 9).logits)
			x.closeLines()
		}
	}
}

// cancellation: ctx ends at each of the first blocks; the same rows sent again
// give what they would have given.
func cancellation(x *env) {
	tokens := x.random(20, 6)
	p := part{[]int32{1}, 3, tokens[3:]}
	l := x.whole(x.dev)
	first := part{p.pages, 0, tokens[:3]}
	want := x.whole(x.dev).feed(part{p.pages, 0, tokens}, 3).rows(3, 6)
	l.logits(first)

	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := l.forward(ctx, x.batch(p)); !errors.Is(err, context.Canceled) {
		x.t.Errorf("forward with a cancelled context: %v, want context.Canceled", err)
	}
	for at := 0; at < 2*x.m.Config.Layers; at++ {
		ctx, cancel := context.WithCancel(background)
		b, passed := x.batch(p), 0
		b.Trace = func(layer int, op backend.Op, _ []float32) {
			switch op {
			case backend.OpEmbed, backend.OpAttnOut, backend.OpFFNOut:
				if passed == at {
					cancel()
				}
				passed++
			case backend.OpLogits:
				x.t.Errorf("logits after a cancellation at block %d", at)
			}
		}
		if err := l.forward(ctx, b); !errors.Is(err, context.Canceled) {
			x.t.Errorf("forward cancelled at block %d: %v, want context.Canceled", at, err)
		}
		cancel()
	}
	x.same("the same rows again", l.logits(p), want)
}
