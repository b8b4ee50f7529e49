package cpu

import (
	"context"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
)

// TestProfile counts what a batch of two sequences, in two tiles, must read and
// multiply, and holds the profile's ops to it.
func TestProfile(t *testing.T) {
	const one, two = passRows + 40, 3 // rows of each sequence
	const rows, pages = one + two, (one + backend.PageRows - 1) / backend.PageRows
	for _, c := range []struct {
		experts, window, threads int
		typ                      quant.Type
	}{{0, 0, 1, quant.Q4_0}, {0, 100, 2, quant.F16}, {3, 0, 2, quant.Q4_K}, {0, 0, 2, quant.Q4_K}} {
		m := backendtest.Llama(c.typ, 2, 256, 4, 2, 512, 50, c.experts)
		m.Config.Window = c.window
		s := load(t, Options{Threads: c.threads}, m, backend.Limits{Pages: pages + 1, Rows: rows, Seqs: 2, Context: one, Outs: 2, K: quant.F16, V: quant.Q8_0}).(*stage)
		b := &backend.Batch{Seqs: []backend.Seq{{Rows: one}, {Rows: two, Pages: []int32{pages}}}, Out: []int32{one - 1, rows - 1}, Logits: make([]float32, 2*50)}
		for p := range pages {
			b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(p))
		}
		for i := range rows {
			b.Tokens, b.Pos = append(b.Tokens, int32(i%50)), append(b.Pos, int32(i%one))
		}
		s.Profile(true)
		for range 2 {
			if err := s.Forward(context.Background(), 0, b); err != nil {
				t.Fatal(err)
			}
		}
		got := map[string]backend.OpTime{}
		for _, o := range s.Profiled() {
			got[o.Block+" "+o.Op] = o
			if o.Time < 0 || o.Activations == 0 && o.Op != "places" || c.threads == 1 && o.Barriers > 0 {
				t.Errorf("%+v: op without time or activations, or a barrier of one worker", o)
			}
		}
		s.Profile(false)
		if err := s.Forward(context.Background(), 0, b); err != nil || s.Profiled() != nil {
			t.Errorf("a profile that is off has %v, %v", s.Profiled(), err)
		}

		// what each row sees, and what each tile's part of a sequence sees
		seen := func(lo, hi int) (sum, span int) {
			first := 0
			for pos := lo; pos < hi; pos++ {
				n := pos + 1
				if c.window > 0 {
					n = min(n, c.window)
				}
				if sum += n; pos == lo {
					first = pos + 1 - n
				}
			}
			return sum, hi - first
		}
		sum0, span0 := seen(0, passRows)
		sum1, span1 := seen(passRows, one)
		sum2, span2 := seen(0, two)
		const passes, layers, tiles, heads = 2, 2, 2, 4 * 64
		matrix := func(w *backend.Tensor) uint64 { return w.Bytes() }
		l := &m.Layers[0]
		want := map[string]backend.OpTime{
			"attention attend": {Calls: passes * layers * tiles, Bytes: passes * layers * uint64(span0+span1+span2) * 2 * (128 + 68),
				FloatOps: passes * layers * uint64(sum0+sum1+sum2) * 4 * heads},
			"attention q k v": {Calls: passes * layers * tiles, Bytes: passes * layers * tiles * (matrix(l.Q) + matrix(l.K) + matrix(l.V)),
				Ops: passes * layers * rows * 2 * 256 * 512},
			"attention output": {Calls: passes * layers * tiles, Bytes: passes * layers * tiles * matrix(l.O), Ops: passes * layers * rows * 2 * 256 * 256},
			"head logits":      {Calls: passes, Bytes: passes * matrix(m.Output), Ops: passes * 2 * 2 * 256 * 50},
			"embed rows":       {Calls: passes, Bytes: passes * rows * matrix(m.Embed) / 50},
		}
		ffn := backend.OpTime{Calls: passes * layers * tiles, Bytes: passes * layers * tiles * (matrix(l.Gate) + matrix(l.Up)), Ops: passes * layers * rows * 2 * 2 * 256 * 512}
		if c.experts > 0 { // every expert is chosen by some row of a tile, and each row chooses two
			ffn.Calls, ffn.Ops = 3*ffn.Calls, 2*ffn.Ops
			want["feed-forward router"] = backend.OpTime{Calls: passes * layers * tiles, Bytes: passes * layers * tiles * matrix(l.Router), FloatOps: passes * layers * rows * 2 * 3 * 256}
		}
		want["feed-forward gate up"] = ffn
		if c.experts == 0 { // tiles of many rows make silu(gate)*up too
			g, more := got["feed-forward gate up"], got["feed-forward gate up silu+quantise"]
			got["feed-forward gate up"] = backend.OpTime{Calls: g.Calls + more.Calls, Bytes: g.Bytes + more.Bytes, Ops: g.Ops + more.Ops, FloatOps: g.FloatOps + more.FloatOps}
		}
		for name, w := range want {
			if c.typ == quant.F16 {
				w.Ops, w.FloatOps = 0, w.Ops+w.FloatOps
			}
			g := got[name]
			if g.Calls != w.Calls || g.Bytes != w.Bytes || g.Ops != w.Ops || g.FloatOps != w.FloatOps {
				t.Errorf("%v, %d experts, window %d: %s is %d calls, %d bytes, %d and %d operations, want %d, %d, %d and %d", c.typ, c.experts, c.window,
					name, g.Calls, g.Bytes, g.Ops, g.FloatOps, w.Calls, w.Bytes, w.Ops, w.FloatOps)
			}
		}
		if a := got["attention attend"]; c.threads > 1 && a.Barriers != a.Calls {
			t.Errorf("attend: %d barriers of %d calls", a.Barriers, a.Calls)
		}
	}
}

// TestProfileExperts counts the experts of a few rows, all of which run at once.
func TestProfileExperts(t *testing.T) {
	const rows, used, dim, ffn, experts = oneByOneRows, 2, 256, 512, 6
	m := backendtest.Llama(quant.Q4_0, 1, dim, 4, 2, ffn, 50, experts)
	s := load(t, Options{Threads: 2}, m, backend.Limits{Pages: 2, Rows: rows, Seqs: 1, Context: 128, Outs: 1, K: quant.F16, V: quant.F16}).(*stage)
	s.Profile(true)
	if err := s.Forward(context.Background(), 0, decodeBatch(m, rows)); err != nil {
		t.Fatal(err)
	}
	chosen := uint64(0)
	for _, ids := range s.moe.rows {
		if len(ids) > 0 {
			chosen++
		}
	}
	l := &m.Layers[0]
	for _, c := range []struct {
		o          op
		bytes, ops uint64
	}{
		{opGateUp, chosen * (l.Gate.Bytes() + l.Up.Bytes()) / experts, rows * used * 2 * 2 * dim * ffn},
		{opDown, chosen * l.Down.Bytes() / experts, rows * used * 2 * dim * ffn},
	} {
		if g := s.profile.ops[c.o]; g.Calls != 1 || g.Bytes != c.bytes || g.Ops != c.ops {
			t.Errorf("%v: %d calls, %d bytes, %d operations, want 1, %d, %d", opNames[c.o], g.Calls, g.Bytes, g.Ops, c.bytes, c.ops)
		}
	}
}
