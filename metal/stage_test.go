//go:build linux && amd64 && metalsim

package metal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
	"drover/internal/ref"
)

// The software device reads its options once a process: what some options do is
// asked of processes of this test's own.
func TestMain(m *testing.M) {
	if os.Getenv("DROVER_METAL_CHILD") != "" {
		fmt.Println(child())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs a prompt and a token, and says what came out.
func child() string {
	found, err := Devices()
	if err != nil {
		return err.Error()
	}
	m := backendtest.Llama(quant.Q4_0, 2, 64, 4, 2, 96, 100, 4)
	s, err := found[0].Load(context.Background(), m, whole(m), tinyLimits(), nil)
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	sum := sha256.New()
	for pos, rows := range []int{0: 12, 12: 1} {
		if rows == 0 {
			continue
		}
		b := rowsBatch(m, pos, rows)
		if err := s.Forward(context.Background(), 0, b); err != nil {
			return fmt.Sprintf("%v memory=%v lost=%v", err, errors.Is(err, backend.ErrMemory), errors.Is(err, backend.ErrLost))
		}
		fmt.Fprint(sum, b.Logits)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:8])
}

// inChild runs child with more of an environment.
func inChild(t *testing.T, env ...string) string {
	t.Helper()
	devices(t, 1) // so that DROVER_METAL_LIBRARY is set
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "DROVER_METAL_CHILD=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", env, err, out)
	}
	return strings.TrimSpace(string(out))
}

func tinyLimits() backend.Limits {
	return backend.Limits{Pages: 4, Rows: 64, Seqs: 4, Context: 256, Outs: 64, K: quant.F16, V: quant.F16}
}

func whole(m *backend.Model) []backend.Range { return []backend.Range{{Lo: 0, Hi: m.Config.Blocks()}} }

func loadStage(t testing.TB, d *device, m *backend.Model, l backend.Limits) *stage {
	t.Helper()
	s, err := d.Load(context.Background(), m, whole(m), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*stage)
}

// rowsBatch is rows of one sequence from position pos on, with logits of the last.
func rowsBatch(m *backend.Model, pos, rows int) *backend.Batch {
	b := &backend.Batch{Seqs: []backend.Seq{{Rows: rows}}, Out: []int32{int32(rows - 1)}, Logits: make([]float32, m.Config.Vocab)}
	for i := range (pos+rows)/backend.PageRows + 1 {
		b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
	}
	for i := range rows {
		b.Tokens, b.Pos = append(b.Tokens, int32(i%7)), append(b.Pos, int32(pos+i))
	}
	return b
}

func forward(t testing.TB, s backend.Stage, b *backend.Batch) {
	t.Helper()
	if err := s.Forward(context.Background(), 0, b); err != nil {
		t.Fatal(err)
	}
}

// Need is what Metal then says is gone, to the byte, and Forward takes no more.
func TestNeedIsTaken(t *testing.T) {
	d := devices(t, 1)[0]
	for _, experts := range []int{0, 4} {
		m := backendtest.Llama(quant.Q4_K, 2, 256, 4, 2, 256, 300, experts)
		need, err := d.Need(m, whole(m), tinyLimits())
		if err != nil {
			t.Fatal(err)
		}
		before := d.Info().Free
		s, err := d.Load(context.Background(), m, whole(m), tinyLimits(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range []int{20, 1, 3} {
			forward(t, s, rowsBatch(m, 0, rows))
		}
		if taken := before - d.Info().Free; taken != need.Total() {
			t.Errorf("%d experts: need %d (%+v), Metal says %d", experts, need.Total(), need, taken)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if free := d.Info().Free; free != before {
			t.Errorf("%d bytes free after Close, %d before", free, before)
		}
	}
}

// Need of a Mac that is only described counts its larger pages.
func TestNeedOfDescription(t *testing.T) {
	m := backendtest.Llama(quant.Q4_0, 2, 512, 8, 4, 768, 300, 0)
	here, err := Need(backend.Info{ISA: "apple8", Simulated: true}, m, whole(m), tinyLimits())
	if err != nil {
		t.Fatal(err)
	}
	there, err := Need(backend.Info{ISA: "apple8"}, m, whole(m), tinyLimits())
	if err != nil {
		t.Fatal(err)
	}
	const most = 2 * macPage * 16 // both ends of each tensor
	if here.Cache != there.Cache || here.Scratch != there.Scratch || there.Weights < here.Weights-most || there.Weights > here.Weights+most {
		t.Errorf("%+v with small pages, %+v with a Mac's", here, there)
	}
}

// Weights that lie in mapped memory are used there, and what is not as kernels want
// it is copied.
func TestInPlace(t *testing.T) {
	d := devices(t, 1)[0]
	for _, c := range []struct {
		typ    quant.Type
		copied bool
	}{{quant.Q8_0, false}, {quant.Q4_K, false}, {quant.F32, false}, {quant.IQ3_S, true}} {
		m := backendtest.Llama(c.typ, 1, 256, 4, 2, 256, 300, 0)
		s := loadStage(t, d, m, tinyLimits())
		for i, g := range s.segments {
			if (g.pages == nil) != c.copied {
				t.Errorf("%v: segment %d of %d bytes: in place %v", c.typ, i, g.bytes, g.pages != nil)
			}
		}
	}
}

// What the kernels cannot do is refused with what to do instead.
func TestUnsupported(t *testing.T) {
	wide := backendtest.Llama(quant.F16, 1, 1024, 2, 2, 64, 64, 0)
	odd := backendtest.Llama(quant.F16, 1, 80, 2, 2, 64, 64, 0)
	for _, c := range []struct {
		m    *backend.Model
		k    quant.Type
		want string
	}{{wide, quant.F16, "heads of 512"}, {odd, quant.Q8_0, "use f16"}, {odd, quant.Q4_0, "use f32, f16 or q8_0"}} {
		l := tinyLimits()
		l.K = c.k
		if _, err := Need(backend.Info{ISA: "apple7"}, c.m, whole(c.m), l); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// Heads and groups of every kind, far enough that decoding sums several cuts, after
// a prompt and beside the reference.
func TestAttention(t *testing.T) {
	d := devices(t, 1)[0]
	for _, c := range []struct {
		heads, kv, headDim, window int
		k, v                       quant.Type
	}{
		{heads: 4, kv: 4, headDim: 32, k: quant.F16, v: quant.F16},
		{heads: 5, kv: 1, headDim: 40, k: quant.F16, v: quant.F32},
		{heads: 12, kv: 1, headDim: 96, window: 150, k: quant.Q8_0, v: quant.F16},
		{heads: 3, kv: 1, headDim: 128, k: quant.F32, v: quant.F32},
		{heads: 5, kv: 1, headDim: 192, window: 33, k: quant.F16, v: quant.Q8_0},
		{heads: 2, kv: 2, headDim: 256, k: quant.F32, v: quant.F16},
		{heads: 2, kv: 1, headDim: 20, k: quant.F16, v: quant.F16},
		{heads: 4, kv: 2, headDim: 50, window: 140, k: quant.F32, v: quant.F16},
	} {
		m := backendtest.Llama(quant.F32, 1, c.heads*c.headDim, c.heads, c.kv, 32, 40, 0)
		m.Config.Window = c.window
		l := backend.Limits{Pages: 5, Rows: 300, Seqs: 1, Context: 320, Outs: 4, K: c.k, V: c.v}
		got, want := loadStage(t, d, m, l), ref.New()
		wanted, err := want.Load(context.Background(), m, whole(m), l, nil)
		if err != nil {
			t.Fatal(err)
		}
		limit := 4e-5
		if c.k == quant.F32 && c.v == quant.F32 {
			limit = 1e-11
		}
		for _, part := range [][2]int{{0, 270}, {270, 3}, {273, 1}, {274, 9}} {
			a, b := rowsBatch(m, part[0], part[1]), rowsBatch(m, part[0], part[1])
			forward(t, got, a)
			forward(t, wanted, b)
			if e := ref.NMSE(a.Logits, b.Logits); !(e <= limit) {
				t.Errorf("%+v: rows %d on, %d of them: NMSE %.1e", c, part[0], part[1], e)
			}
		}
		if err := wanted.Close(); err != nil {
			t.Error(err)
		}
	}
}

// How a prompt is cut into tiles and command buffers, and how often arguments begin
// anew, changes no bit.
func TestCuts(t *testing.T) {
	d := devices(t, 1)[0]
	m := backendtest.Llama(quant.Q8_0, 2, 64, 2, 1, 64, 100, 3)
	var want []float32
	for _, c := range []struct {
		tile, slots int
		unitSeconds float64
	}{{64, 96, 1e-12}, {64, 96, 1}, {64, 96, 0}, {64, 3, 1e-12}, {20, 96, 1e-12}, {20, 1, 1}} {
		s := loadStage(t, d, m, tinyLimits())
		s.tile, s.argSlots, s.unitSeconds = c.tile, c.slots, c.unitSeconds
		s.tiles = make([]tileList, ceil(s.lim.Rows, s.tile))
		b := rowsBatch(m, 0, 50)
		b.Seqs = []backend.Seq{{Rows: 17, Pages: []int32{2}}, {Rows: 33, Pages: []int32{1}}}
		for i := range b.Pos[17:] {
			b.Pos[17+i] = int32(i)
		}
		b.Out, b.Logits = []int32{16, 30, 49}, make([]float32, 3*m.Config.Vocab)
		forward(t, s, b)
		if want == nil {
			want = b.Logits
		}
		if !slices.Equal(b.Logits, want) {
			t.Errorf("%+v: other bits", c)
		}
	}
}

// stopping is a context that ends when it was asked so often.
type stopping struct {
	context.Context
	left int
}

func (s *stopping) Err() error {
	if s.left--; s.left < 0 {
		return context.Canceled
	}
	return nil
}

// Loading, running, failing and closing leave nothing behind.
func TestStageLeaks(t *testing.T) {
	d := devices(t, 1)[0]
	m := backendtest.Llama(quant.Q8_0, 2, 64, 2, 1, 64, 100, 0)
	use := func() {
		small := d.with(1 << 16)
		small.libraries = d.libraries
		if _, err := small.Load(context.Background(), m, whole(m), tinyLimits(), nil); !errors.Is(err, backend.ErrMemory) {
			t.Errorf("a load beyond the working set: %v", err)
		}
		s, err := d.Load(context.Background(), m, whole(m), tinyLimits(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range []int{20, 2} {
			b := rowsBatch(m, 0, rows)
			forward(t, s, b)
			b.Trace = func(int, backend.Op, []float32) {}
			forward(t, s, b)
			for n := range 5 {
				if err := s.Forward(&stopping{context.Background(), n}, 0, b); !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled when asked %d times: %v", n, err)
				}
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	use()
	before := living(t)
	use()
	if after := living(t); after != before {
		t.Errorf("living before:\n%s\nand after:\n%s", before, after)
	}
}

// A command buffer that fails is an error with its label, of the kind that the engine
// asks for.
func TestCommandBufferErrors(t *testing.T) {
	for _, c := range []struct {
		code         int
		memory, lost bool
	}{{code: 2}, {code: 3}, {code: 8, memory: true}, {code: 11, lost: true}} {
		got := inChild(t, fmt.Sprintf("DROVER_METALSIM_FAIL=2=%d", c.code))
		if !strings.Contains(got, "run block 1 of a batch of 12 rows") || !strings.HasSuffix(got, fmt.Sprintf("memory=%v lost=%v", c.memory, c.lost)) {
			t.Errorf("code %d: %s", c.code, got)
		}
	}
}

// What has no order may come in any, and elements of simdgroup matrices may lie
// anywhere, on one thread or more: the bits are the same.
func TestOrder(t *testing.T) {
	want := inChild(t)
	if len(want) != 16 {
		t.Fatal(want)
	}
	for _, env := range []string{"ORDER=1", "ORDER=7", "LAYOUT=5", "THREADS=1", "CHECK=1"} {
		if got := inChild(t, "DROVER_METALSIM_"+env); got != want {
			t.Errorf("%s: %s, want %s", env, got, want)
		}
	}
}

// Measure gives every rate, and the memory back.
func TestMeasure(t *testing.T) {
	d := devices(t, 1)[0]
	free := d.Info().Free
	r, err := d.Measure(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]float64{"read": r.Read, "copy": r.Copy, "matrix": r.Matrix, "launch": r.Launch, "Q4_0": r.Format[quant.Q4_0], "F16": r.Format[quant.F16]} {
		if !(v > 0) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if got := d.Info().Free; got != free {
		t.Errorf("%d bytes free, %d before", got, free)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Measure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
