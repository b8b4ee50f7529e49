//go:build linux && amd64 && metalsim

package metal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"drover/backend"
	"drover/backend/backendtest"
	"drover/internal/quant"
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
	m := sharpened(backendtest.Llama(quant.Q4_0, 1, 256, 4, 2, 96, 100, 4))
	s, err := found[0].Load(context.Background(), m, whole(m), tinyLimits(), nil)
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	sum := sha256.New()
	for _, part := range [][2]int{{0, 40}, {40, 1}} { // more than a step of attention
		b := rowsBatch(m, part[0], part[1])
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
		short := d.with(1 << 30)
		short.libraries, short.longest = d.libraries, 1<<16
		if _, err := short.Load(context.Background(), m, whole(m), tinyLimits(), nil); !errors.Is(err, backend.ErrMemory) {
			t.Errorf("a buffer longer than there can be: %v", err)
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
		if !strings.Contains(got, "run a batch of 40 rows from block 1 on") || !strings.HasSuffix(got, fmt.Sprintf("memory=%v lost=%v", c.memory, c.lost)) {
			t.Errorf("code %d: %s", c.code, got)
		}
	}
}

// What has no order may come in any, and elements of simdgroup matrices may lie
// anywhere, on one thread or more, and on the oldest GPU: the bits are the same.
func TestOrder(t *testing.T) {
	want := inChild(t)
	if len(want) != 16 {
		t.Fatal(want)
	}
	for _, env := range []string{"ORDER=1", "ORDER=7", "LAYOUT=5", "THREADS=1", "CHECK=1", "FAMILY=apple7", "BFLOAT=0"} {
		if got := inChild(t, "DROVER_METALSIM_"+env); got != want {
			t.Errorf("%s: %s, want %s", env, got, want)
		}
	}
}

// A decoded token allocates for its command buffer alone, not for its layers.
func TestForwardAllocates(t *testing.T) {
	d := devices(t, 1)[0]
	count := func(layers int) float64 {
		m := backendtest.Llama(quant.Q4_0, layers, 64, 4, 2, 96, 100, 0)
		s, b := loadStage(t, d, m, tinyLimits()), rowsBatch(m, 0, 1)
		return testing.AllocsPerRun(5, func() { forward(t, s, b) })
	}
	if one, four := count(1), count(4); one != four || one > 40 {
		t.Errorf("%v allocations with one layer, %v with four", one, four)
	}
}
