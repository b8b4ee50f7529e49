//go:build linux && amd64 && metalsim

package metal

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"drover/backend"
)

// The tests of this file drive the software Metal device.

const source = `
#include <metal_stdlib>
using namespace metal;

struct Args { uint n; float scale; };

kernel void scaled(device float *to [[buffer(0)]], device const float *from [[buffer(1)]], constant Args &a [[buffer(2)]],
		uint i [[thread_position_in_grid]]) {
	if (i < a.n)
		to[i] = from[i] * a.scale;
}

kernel void where(device uint *to [[buffer(0)]], uint3 group [[threadgroup_position_in_grid]], uint3 groups [[threadgroups_per_grid]],
		uint3 at [[thread_position_in_threadgroup]], uint3 threads [[threads_per_threadgroup]]) {
	uint g = (group.z * groups.y + group.y) * groups.x + group.x;
	uint t = (at.z * threads.y + at.y) * threads.x + at.x;
	uint i = g * threads.x * threads.y * threads.z + t;
	to[i] = i;
}
`

func (g *gpu) mustCompile(t *testing.T, name string) pipeline {
	t.Helper()
	lib, err := g.compile(source)
	if err != nil {
		t.Fatal(err)
	}
	defer lib.release()
	p, err := g.pipeline(lib, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.id.release)
	return p
}

func TestDevice(t *testing.T) {
	g := oneGPU(t)
	if g.name == "" || g.family < apple7 || g.working == 0 || g.longest == 0 || g.shared < 32<<10 {
		t.Errorf("%+v", g)
	}
	before := g.free()
	b := g.mustTake(t, 1<<20)
	if took := before - g.free(); took < 1<<20 || took > 1<<21 {
		t.Errorf("a buffer of 1 MiB takes %d bytes", took)
	}
	if len(b.data) != 1<<20 {
		t.Errorf("%d bytes", len(b.data))
	}
	var memory *backend.MemoryError
	if _, err := g.take(g.working + 1); !errors.As(err, &memory) || memory.Need != g.working+1 {
		t.Errorf("more than there is: %v", err)
	}
}

// TestDispatch runs a kernel with buffers, offsets and constants, and one that
// says where each of its threads is: structs by value arrive.
func TestDispatch(t *testing.T) {
	const n = 1000
	g := oneGPU(t)
	scaled, where := g.mustCompile(t, "scaled"), g.mustCompile(t, "where")
	if scaled.threads < 256 || scaled.name != "scaled" {
		t.Fatalf("%+v", scaled)
	}
	from, to, places := g.mustTake(t, 4*n+256), g.mustTake(t, 4*n), g.mustTake(t, 4*2*3*4*5*6*7)
	in, out := unsafe.Slice((*float32)(unsafe.Pointer(&from.data[256])), n), unsafe.Slice((*float32)(unsafe.Pointer(&to.data[0])), n)
	for i := range in {
		in[i] = float32(i)
	}
	args := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, n), math.Float32bits(0.5))
	pooled(func() {
		e := g.begin("test")
		e.bind(0, to, 0)
		e.bind(1, from, 256)
		e.constants(2, args)
		e.dispatch(scaled, size{4, 1, 1}, size{256, 1, 1})
		e.bind(0, places, 0)
		e.dispatch(where, size{2, 3, 4}, size{5, 6, 7})
		if seconds, err := e.finish("test"); err != nil || seconds < 0 || seconds > 60 {
			t.Fatal(seconds, err)
		}
	})
	for i, v := range out {
		if v != float32(i)/2 {
			t.Fatalf("element %d is %g", i, v)
		}
	}
	for i := range len(places.data) / 4 {
		if v := binary.LittleEndian.Uint32(places.data[4*i:]); v != uint32(i) {
			t.Fatalf("thread %d says %d", i, v)
		}
	}
}

// TestErrors: the compiler's text, a kernel that is not there, and a kernel that
// leaves its buffer.
func TestErrors(t *testing.T) {
	g := oneGPU(t)
	var failure *Error
	if _, err := g.compile("#include <metal_stdlib>\nusing namespace metal;\nkernel void broken(device float *x [[buffer(0)]]) { x[0] = nope; }"); !errors.As(err, &failure) || !strings.Contains(err.Error(), "nope") {
		t.Errorf("a broken kernel: %v", err)
	}
	lib, err := g.compile(source)
	if err != nil {
		t.Fatal(err)
	}
	defer lib.release()
	if _, err := g.pipeline(lib, "nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a kernel that is not there: %v", err)
	}
	p := g.mustCompile(t, "scaled")
	b := g.mustTake(t, 64)
	pooled(func() {
		e := g.begin("overrun")
		e.bind(0, b, 0)
		e.bind(1, b, 0)
		e.constants(2, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 1<<20), 0))
		e.dispatch(p, size{1 << 12, 1, 1}, size{256, 1, 1})
		if _, err := e.finish("run a test"); !errors.As(err, &failure) || !strings.Contains(err.Error(), "scaled") {
			t.Errorf("an overrun: %v", err)
		}
	})
}

// TestNil: nil answers 0 and "".
func TestNil(t *testing.T) {
	oneGPU(t)
	var nothing object
	if nothing.send(sel.count) != 0 || nothing.string() != "" || nsError("", nothing) != nil {
		t.Error("nil answers something")
	}
}

// living says which objects the software device has.
func living(t *testing.T) string {
	t.Helper()
	device, err := purego.Dlopen(os.Getenv("DROVER_METAL_LIBRARY"), purego.RTLD_NOW)
	if err != nil {
		t.Fatal(err)
	}
	var report func(text *byte, n uint64) uint64
	purego.RegisterLibFunc(&report, device, "metalsim_living")
	text := make([]byte, 1<<12)
	return string(text[:report(&text[0], uint64(len(text)))])
}

// TestLeaks: what is made is released, whether it works or not.
func TestLeaks(t *testing.T) {
	oneGPU(t)
	use := func() {
		found, err := gpus()
		if err != nil {
			t.Fatal(err)
		}
		g := found[0]
		defer g.close()
		if _, err := g.compile("broken"); err == nil {
			t.Error("it compiles")
		}
		lib, err := g.compile(source)
		if err != nil {
			t.Fatal(err)
		}
		p, err := g.pipeline(lib, "scaled")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.pipeline(lib, "nothing"); err == nil {
			t.Error("it is found")
		}
		lib.release()
		b, err := g.take(64)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint32{16, 1 << 20} { // the second overruns
			pooled(func() {
				e := g.begin("use")
				e.bind(0, b, 0)
				e.bind(1, b, 0)
				e.constants(2, binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, n), 0))
				e.dispatch(p, size{1 << 12, 1, 1}, size{256, 1, 1})
				if _, err := e.finish("use it"); (err != nil) != (n > 16) {
					t.Errorf("%d elements: %v", n, err)
				}
			})
		}
		b.release()
		p.id.release()
	}
	use()
	before := living(t)
	use()
	if after := living(t); after != before {
		t.Errorf("living before:\n%s\nand after:\n%s", before, after)
	}
}
