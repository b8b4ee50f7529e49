package gguf

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// everyType is a value of each type, and arrays of each.
func everyType() []Entry {
	return []Entry{
		{"general.architecture", Of("llama")},
		{"u8", Of(uint8(200))}, {"i8", Of(int8(-100))},
		{"u16", Of(uint16(60000))}, {"i16", Of(int16(-30000))},
		{"u32", Of(uint32(4000000000))}, {"i32", Of(int32(-2000000000))},
		{"u64", Of(uint64(math.MaxUint64))}, {"i64", Of(int64(math.MinInt64))},
		{"f32", Of(float32(0.1))}, {"f64", Of(0.1)},
		{"yes", Of(true)}, {"no", Of(false)},
		{"text", Of("a\x00b\xff")}, {"empty", Of("")},
		{"u8s", Of([]uint8{1, 2})}, {"i8s", Of([]int8{-1, 2})},
		{"u16s", Of([]uint16{1, 2})}, {"i16s", Of([]int16{-1, 2})},
		{"u32s", Of([]uint32{1, 2})}, {"i32s", Of([]int32{-1, 2})},
		{"u64s", Of([]uint64{1, 2})}, {"i64s", Of([]int64{-1, 2})},
		{"f32s", Of([]float32{1.5, 2})}, {"f64s", Of([]float64{1.5, 2})},
		{"bools", Of([]bool{true, false})},
		{"texts", Of([]string{"", "one", "two"})}, {"none", Of([]string{})},
		{"nested", Of([]Value{Of([]string{"a"}), Of([]int32{}), Of([]Value{Of([]bool{true})})})},
	}
}

// build lays out a file and fills its tensors, each byte its tensor's number.
func build(t testing.TB, meta []Entry, tensors []Info) []byte {
	t.Helper()
	l, err := NewLayout(meta, tensors)
	if err != nil {
		t.Fatal(err)
	}
	file := append(l.Header, make([]byte, l.Size-uint64(len(l.Header)))...)
	for i := range tensors {
		for j := range l.Sizes[i] {
			file[l.Offsets[i]+j] = byte(i + 1)
		}
	}
	return file
}

func someTensors() []Info {
	return []Info{
		{"scalar", 0, nil},
		{"vector", 0, []uint64{5}},
		{"matrix", 2, []uint64{64, 3}},      // Q4_0
		{"cube", 12, []uint64{256, 2, 3}},   // Q4_K
		{"four", 30, []uint64{7, 1, 2, 1}},  // BF16
		{"integers", 26, []uint64{3, 1, 2}}, // I32
	}
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	data := build(t, everyType(), someTensors())
	path := write(t, filepath.Join(t.TempDir(), "m.gguf"), data)
	for _, open := range []struct {
		name string
		open func() (*File, error)
	}{
		{"mapped", func() (*File, error) { return Open(path) }},
		{"bytes", func() (*File, error) { return OpenBytes("m", data) }},
	} {
		t.Run(open.name, func(t *testing.T) {
			f, err := open.open()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Version != 3 || f.Parts != 1 || f.Size != uint64(len(data)) {
				t.Errorf("version %d, %d parts, %d bytes; want 3, 1, %d", f.Version, f.Parts, f.Size, len(data))
			}
			for i, e := range everyType() {
				got, ok := f.Value(e.Key)
				if !ok || f.Keys()[i] != e.Key {
					t.Fatalf("key %d is %q, want %q", i, f.Keys()[i], e.Key)
				}
				if got.Type != e.Value.Type || got.Elem != e.Value.Elem || got.Len != e.Value.Len || !bytes.Equal(got.raw, e.Value.raw) {
					t.Errorf("%s: got %v, want %v", e.Key, got, e.Value)
				}
			}
			checkTensors(t, f)
		})
	}
}

func checkTensors(t *testing.T, f *File) {
	t.Helper()
	if len(f.Tensors()) != len(someTensors()) {
		t.Fatalf("%d tensors, want %d", len(f.Tensors()), len(someTensors()))
	}
	for i, want := range someTensors() {
		got := f.Tensor(want.Name)
		if got == nil || got.Type != want.Type || len(got.Dims) != len(want.Dims) {
			t.Fatalf("tensor %q: got %+v", want.Name, got)
		}
		size, _ := want.Type.Bytes(want.Dims)
		got.Drop(0, math.MaxUint64)
		if !bytes.Equal(got.Data(), bytes.Repeat([]byte{byte(i + 1)}, int(size))) {
			t.Errorf("tensor %q: bytes differ", want.Name)
		}
	}
	if f.Tensor("absent") != nil {
		t.Error("a tensor that is not there was found")
	}
	if n := f.Tensor("cube").Elems(); n != 256*2*3 {
		t.Errorf("cube has %d weights", n)
	}
}

// same fails unless a getter gave want, or an error that is wantErr.
func same[T any](t *testing.T, key string, got T, err error, want T, wantErr error) {
	t.Helper()
	if !errors.Is(err, wantErr) || err == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, %v; want %v, %v", key, got, err, want, wantErr)
	}
	if err != nil && !strings.Contains(err.Error(), key) {
		t.Errorf("%s: the error does not name the key: %v", key, err)
	}
}

func TestGetters(t *testing.T) {
	f, err := OpenBytes("m", build(t, append(everyType(), Entry{"nan", Of(math.NaN())}), nil))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]uint64{"u8": 200, "u16": 60000, "u32": 4000000000, "u64": math.MaxUint64} {
		got, err := f.Uint(key)
		same(t, key, got, err, want, nil)
	}
	for key, want := range map[string]int64{"i8": -100, "i16": -30000, "i32": -2000000000, "i64": math.MinInt64, "u8": 200} {
		got, err := f.Int(key)
		same(t, key, got, err, want, nil)
	}
	for _, key := range []string{"i8", "f32", "text", "yes", "u8s", "i64"} {
		got, err := f.Uint(key)
		same(t, key, got, err, 0, ErrType)
	}
	n, err := f.Int("u64")
	same(t, "u64", n, err, 0, ErrType)
	n, err = f.Int("absent")
	same(t, "absent", n, err, 0, ErrMissing)
	x, err := f.Float("f32")
	same(t, "f32", x, err, float64(float32(0.1)), nil)
	x, err = f.Float("f64")
	same(t, "f64", x, err, 0.1, nil)
	x, err = f.Float("u32")
	same(t, "u32", x, err, 0, ErrType)
	x, err = f.Float("nan")
	same(t, "nan", x, err, 0, ErrType)
	b, err := f.Bool("yes")
	same(t, "yes", b, err, true, nil)
	b, err = f.Bool("u8")
	same(t, "u8", b, err, false, ErrType)
	s, err := f.Text("text")
	same(t, "text", s, err, "a\x00b\xff", nil)
	s, err = f.Text("texts")
	same(t, "texts", s, err, "", ErrType)
	ss, err := f.Texts("texts")
	same(t, "texts", ss, err, []string{"", "one", "two"}, nil)
	ss, err = f.Texts("i32s")
	same(t, "i32s", ss, err, nil, ErrType)
	fs, err := f.Float32s("f32s")
	same(t, "f32s", fs, err, []float32{1.5, 2}, nil)
	fs, err = f.Float32s("f64s")
	same(t, "f64s", fs, err, nil, ErrType)
	for _, key := range []string{"i8s", "i16s", "i32s", "i64s"} {
		is, err := f.Int32s(key)
		same(t, key, is, err, []int32{-1, 2}, nil)
	}
	is, err := f.Int32s("bools")
	same(t, "bools", is, err, nil, ErrType)
}

func TestValueString(t *testing.T) {
	for _, c := range []struct {
		v    Value
		want string
	}{
		{Of(uint8(7)), "7"}, {Of(int64(-7)), "-7"}, {Of(uint64(math.MaxUint64)), "18446744073709551615"},
		{Of(float32(0.1)), "0.1"}, {Of(1e-300), "1e-300"}, {Of(true), "true"},
		{Of("a\n"), `"a\n"`},
		{Of(strings.Repeat("x", 121)), `"` + strings.Repeat("x", 120) + `"...`},
		{Of([]int32{1, -2}), "[1, -2]"},
		{Of(make([]uint8, 9)), "[0, 0, 0, 0, 0, 0, 0, 0, ... 9 in all]"},
		{Of([]Value{Of([]string{"a"}), Of([]bool{})}), `[["a"], []]`},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestVersion2(t *testing.T) {
	data := build(t, everyType(), someTensors())
	data[4] = 2
	f, err := OpenBytes("m", data)
	if err != nil {
		t.Fatal(err)
	}
	if f.Version != 2 {
		t.Errorf("version %d, want 2", f.Version)
	}
	checkTensors(t, f)
}

func TestAlignment(t *testing.T) {
	for _, a := range []uint32{1, 8, 64, 4096, 1 << 20} {
		data := build(t, []Entry{{"general.alignment", Of(a)}}, someTensors())
		f, err := OpenBytes("m", data)
		if err != nil {
			t.Errorf("alignment %d: %v", a, err)
			continue
		}
		checkTensors(t, f)
	}
	for _, v := range []Value{Of(uint32(0)), Of(uint32(48)), Of(uint32(1 << 21)), Of(uint64(32)), Of("32")} {
		if _, err := NewLayout([]Entry{{"general.alignment", v}}, nil); !errors.Is(err, ErrFormat) {
			t.Errorf("alignment %v was laid out: %v", v, err)
		}
	}
}

func TestNewLayoutRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		meta    []Entry
		tensors []Info
	}{
		"two keys":       {meta: []Entry{{"a", Of(true)}, {"a", Of(true)}}},
		"empty key":      {meta: []Entry{{"", Of(true)}}},
		"two tensors":    {tensors: []Info{{"a", 0, nil}, {"a", 0, nil}}},
		"long name":      {tensors: []Info{{strings.Repeat("n", 65), 0, nil}}},
		"five dims":      {tensors: []Info{{"a", 0, []uint64{1, 1, 1, 1, 1}}}},
		"unknown format": {tensors: []Info{{"a", 99, nil}}},
		"half a block":   {tensors: []Info{{"a", 2, []uint64{33}}}},
		"overflow":       {tensors: []Info{{"a", 0, []uint64{1 << 40, 1 << 40}}}},
	} {
		if _, err := NewLayout(c.meta, c.tensors); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

func TestOpenNoFile(t *testing.T) {
	dir := t.TempDir()
	empty := write(t, filepath.Join(dir, "empty.gguf"), nil)
	if _, err := Open(filepath.Join(dir, "absent.gguf")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("directory: %v", err)
	}
	if _, err := Open(empty); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty file: %v", err)
	}
	if _, err := Open(os.DevNull); err == nil || errors.Is(err, ErrFormat) {
		t.Errorf("device: %v", err)
	}
}
