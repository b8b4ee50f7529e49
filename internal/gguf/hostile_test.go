package gguf

import (
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"
)

// raw builds a file field by field, also a wrong one.
type raw struct{ b []byte }

func (r *raw) u32(v uint32) *raw { r.b = binary.LittleEndian.AppendUint32(r.b, v); return r }
func (r *raw) u64(v uint64) *raw { r.b = binary.LittleEndian.AppendUint64(r.b, v); return r }
func (r *raw) text(s string) *raw {
	r.u64(uint64(len(s)))
	r.b = append(r.b, s...)
	return r
}
func (r *raw) zeros(n int) *raw { r.b = append(r.b, make([]byte, n)...); return r }

// head is a file of so many tensors and keys, as far as the first key.
func head(tensors, keys uint64) *raw {
	r := &raw{[]byte("GGUF")}
	return r.u32(3).u64(tensors).u64(keys)
}

// tensor is a file with one tensor and n bytes after its description.
func tensor(dims []uint64, format uint32, offset uint64, n int) []byte {
	r := head(1, 0).text("t").u32(uint32(len(dims)))
	for _, d := range dims {
		r.u64(d)
	}
	return r.u32(format).u64(offset).zeros(n).b
}

// hostile are files that must be refused. Those with a CVE are the flaw that
// it was found for in another reader.
func hostile() map[string][]byte {
	many := head(0, 1).text("k").u32(9)
	for range 64 {
		many.u32(9).u64(1)
	}
	two := func(second uint64) []byte {
		r := head(2, 0).text("a").u32(1).u64(16).u32(0).u64(0)
		return r.text("b").u32(1).u64(16).u32(0).u64(second).zeros(512).b
	}
	twins := head(2, 0)
	for i := range 2 {
		twins.text("a").u32(1).u64(8).u32(0).u64(uint64(32 * i))
	}
	return map[string][]byte{
		"nothing":                    {},
		"magic only":                 []byte("GGUF"),
		"another kind of file":       []byte("PK\x03\x04 and so on, and so on"),
		"version 0":                  (&raw{[]byte("GGUF")}).u32(0).zeros(16).b,
		"version 1":                  (&raw{[]byte("GGUF")}).u32(1).zeros(16).b,
		"version 4":                  (&raw{[]byte("GGUF")}).u32(4).zeros(16).b,
		"big-endian":                 (&raw{[]byte("GGUF")}).u32(3 << 24).zeros(64).b,
		"keys without end":           head(0, 1<<60).zeros(64).b,
		"keys by the sign bit":       head(0, 1<<63).zeros(64).b,
		"tensors without end":        head(1<<60, 0).zeros(64).b,
		"tensors that overflow":      head(1<<64-1, 0).zeros(64).b,
		"key length":                 head(0, 1).u64(1 << 62).zeros(64).b,
		"empty key":                  head(0, 1).u64(0).zeros(64).b,
		"key past the end":           head(0, 1).u64(1000).zeros(64).b,
		"unknown value type":         head(0, 1).text("k").u32(13).zeros(64).b,
		"huge value type":            head(0, 1).text("k").u32(1<<32 - 1).zeros(64).b,
		"string past the end":        head(0, 1).text("k").u32(8).u64(1 << 40).zeros(64).b,
		"string length that wraps":   head(0, 1).text("k").u32(8).u64(1<<64 - 8).zeros(64).b,
		"bool of 2":                  (&raw{append(head(0, 1).text("k").u32(7).b, 2)}).zeros(64).b,
		"array of bools with a 3":    (&raw{append(head(0, 1).text("k").u32(9).u32(7).u64(1).b, 3)}).zeros(64).b,
		"array without end":          head(0, 1).text("k").u32(9).u32(4).u64(1 << 60).zeros(64).b,
		"array product overflow":     head(0, 1).text("k").u32(9).u32(10).u64(1 << 61).zeros(64).b, // CVE-2025-53630
		"array of strings":           head(0, 1).text("k").u32(9).u32(8).u64(1 << 30).zeros(64).b,
		"array element type":         head(0, 1).text("k").u32(9).u32(77).u64(1).zeros(64).b,
		"array of nothing of a type": head(0, 1).text("k").u32(9).u32(77).u64(0).zeros(64).b,
		"arrays without bottom":      many.b,
		"two equal keys":             head(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1).zeros(64).b,
		"alignment 0":                head(0, 1).text("general.alignment").u32(4).u32(0).zeros(64).b,
		"alignment 3":                head(0, 1).text("general.alignment").u32(4).u32(3).zeros(64).b,
		"alignment 2 GiB":            head(0, 1).text("general.alignment").u32(4).u32(1 << 31).zeros(64).b,
		"alignment text":             head(0, 1).text("general.alignment").u32(8).text("32").zeros(64).b,
		"nine dimensions":            tensor(make([]uint64, 9), 0, 0, 256),
		"dimensions without end":     head(1, 0).text("t").u32(1<<32 - 1).zeros(64).b,
		"dimension 0":                tensor([]uint64{4, 0}, 0, 0, 256),
		"unknown format":             tensor([]uint64{32}, 4, 0, 256), // Q4_2, removed
		"format past the table":      tensor([]uint64{32}, 1<<32-1, 0, 256),
		"half a block":               tensor([]uint64{16}, 2, 0, 256),
		"product overflow":           tensor([]uint64{1 << 32, 1 << 32}, 0, 0, 256),        // CVE-2026-27940
		"product that wraps to 4":    tensor([]uint64{1 << 63, 2, 1, 4}, 0, 0, 256),        // CVE-2025-53630
		"size that wraps":            tensor([]uint64{1 << 62}, 0, 0, 256),                 // CVE-2026-27940
		"sign bit":                   tensor([]uint64{1 << 63}, 0, 0, 256),                 // CVE-2025-53630
		"past the end":               tensor([]uint64{1 << 20}, 0, 0, 256),                 // CVE-2026-7482
		"past the end by one":        tensor([]uint64{64}, 0, 0, 7+255),                    // CVE-2026-7482
		"offset past the end":        tensor([]uint64{8}, 0, 1<<40, 256),                   // CVE-2026-7482
		"offset that wraps":          tensor([]uint64{8}, 0, 1<<64-32, 256),                // CVE-2026-27940
		"offset not aligned":         tensor([]uint64{8}, 0, 4, 256),                       //
		"name without end":           head(1, 0).u64(1<<64 - 1).zeros(64).b,                //
		"name too long":              head(1, 0).text(strings.Repeat("n", 65)).zeros(64).b, //
		"overlap":                    two(32),
		"same place":                 two(0),
		"gap":                        two(96),
		"gap before the first":       tensor([]uint64{8}, 0, 32, 256),
		"two equal names":            twins.zeros(256).b,                                    //
		"part of a set":              head(0, 1).text("split.count").u32(2).b,               // cut off
		"part of a set in memory":    append(head(0, 1).text("split.count").u32(2).b, 2, 0), // uint16 2
		"split count of text":        head(0, 1).text("split.count").u32(8).text("2").b,     //
	}
}

// TestHostile: what a file claims costs nothing. Each is refused, by name, in
// less memory than a few small pages of counts would take.
func TestHostile(t *testing.T) {
	for name, data := range hostile() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, err := OpenBytes("m", data)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrFormat) || f != nil {
				t.Fatalf("got %v, %v; want ErrFormat", f, err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("refusing %d bytes took %d bytes", len(data), n)
			}
		})
	}
}

func TestHostileMessages(t *testing.T) {
	files := hostile()
	for name, want := range map[string]string{
		"another kind of file": "another kind of file",
		"big-endian":           "big-endian",
		"version 1":            "version 1",
		"past the end":         `tensor "t"`,
		"nine dimensions":      "9 dimensions",
		"two equal keys":       `"k"`,
		"overlap":              `tensor "b" begins at byte 32 of the data; by the tensors before it that must be 64`,
	} {
		if _, err := OpenBytes("m", files[name]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", name, err, want)
		}
	}
}

// TestCutOff: a file cut anywhere is refused, or is whole.
func TestCutOff(t *testing.T) {
	data := build(t, everyType(), someTensors())
	last := len(data) - 8 // the padding after the last tensor, and one byte more
	for n := range last {
		if _, err := OpenBytes("m", data[:n:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut at %d of %d: %v", n, len(data), err)
		}
	}
}

// TestDamaged: any byte of the header may be anything; opening then reading
// everything does not fail but with an error.
func TestDamaged(t *testing.T) {
	data := build(t, everyType(), someTensors())
	l, err := NewLayout(everyType(), someTensors())
	if err != nil {
		t.Fatal(err)
	}
	for at := range l.Header {
		for _, b := range []byte{0, 9, 0xff} {
			old := data[at]
			data[at] = b
			if f, err := OpenBytes("m", data); err == nil {
				readAll(f)
			} else if !errors.Is(err, ErrFormat) {
				t.Fatalf("byte %d = %d: %v", at, b, err)
			}
			data[at] = old
		}
	}
}

// readAll uses everything that a file gives and returns how much that was.
func readAll(f *File) (n int) {
	var items func(Value)
	items = func(v Value) {
		for item := range v.Items() {
			items(item)
		}
		n += len(v.String())
	}
	for _, key := range f.Keys() {
		v, _ := f.Value(key)
		items(v)
		for _, read := range []func(Value) bool{
			func(v Value) bool { _, ok := v.Uint(); return ok },
			func(v Value) bool { _, ok := v.Int(); return ok },
			func(v Value) bool { _, ok := v.Float(); return ok },
			func(v Value) bool { _, ok := v.Bool(); return ok },
			func(v Value) bool { _, ok := v.Text(); return ok },
			func(v Value) bool { _, ok := v.Texts(); return ok },
			func(v Value) bool { _, ok := v.Float32s(); return ok },
			func(v Value) bool { _, ok := v.Int32s(); return ok },
		} {
			if read(v) {
				n++
			}
		}
	}
	for i := range f.Tensors() {
		t := &f.Tensors()[i]
		for _, b := range t.Data() {
			n += int(b)
		}
		if f.Tensor(t.Name) != t {
			panic("BUG: a tensor is not found by its name")
		}
	}
	return n
}
