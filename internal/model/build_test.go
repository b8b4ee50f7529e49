package model

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"drover/backend"
	"drover/internal/gguf"
	"drover/internal/quant"
)

// Tiny models of each kind; weights from seed 1.
const (
	tiny    = "dim=64,layers=2,heads=4,kv=2,ffn=96,vocab=300:Q8_0:1"
	tinyMoE = "dim=64,layers=2,heads=4,kv=2,ffn=96,vocab=300,experts=4,used=2:Q4_0:1"
)

// draft is a file to be changed before it is laid out.
type draft struct {
	t     testing.TB
	meta  []gguf.Entry
	items []item
}

// draftOf is the file that a synthetic model would be written as.
func draftOf(t testing.TB, spec string) *draft {
	t.Helper()
	f, err := Open("synthetic:" + spec)
	if err != nil {
		t.Fatal(err)
	}
	return &draft{t, f.Metadata(), f.items()}
}

// set changes a key or adds it; a nil value removes it.
func (d *draft) set(key string, value any) *draft {
	i := slices.IndexFunc(d.meta, func(e gguf.Entry) bool { return e.Key == key })
	switch {
	case value == nil && i < 0:
		d.t.Fatalf("no key %q to remove", key)
	case value == nil:
		d.meta = slices.Delete(d.meta, i, i+1)
	case i < 0:
		d.meta = append(d.meta, gguf.Entry{Key: key, Value: gguf.Of(value)})
	default:
		d.meta[i].Value = gguf.Of(value)
	}
	return d
}

// arch renames the architecture and its keys.
func (d *draft) arch(name string) *draft {
	for i := range d.meta {
		if rest, ok := strings.CutPrefix(d.meta[i].Key, "llama."); ok {
			d.meta[i].Key = name + "." + rest
		}
	}
	return d.set("general.architecture", name)
}

func (d *draft) find(name string) int {
	i := slices.IndexFunc(d.items, func(it item) bool { return it.info.Name == name })
	if i < 0 {
		d.t.Fatalf("no tensor %q", name)
	}
	return i
}

func (d *draft) remove(name string) *draft {
	i := d.find(name)
	d.items = slices.Delete(d.items, i, i+1)
	return d
}

// add appends a tensor of zeros.
func (d *draft) add(name string, t quant.Type, dims ...uint64) *draft {
	size, err := gguf.TensorType(t).Bytes(dims)
	if err != nil {
		d.t.Fatal(err)
	}
	d.items = append(d.items, item{gguf.Info{Name: name, Type: gguf.TensorType(t), Dims: dims}, 1, int(size), memory(make([]byte, size))})
	return d
}

// addFloats appends an F32 vector.
func (d *draft) addFloats(name string, x ...float32) *draft {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	d.items = append(d.items, item{gguf.Info{Name: name, Dims: []uint64{uint64(len(x))}}, 1, len(b), memory(b)})
	return d
}

// replace gives a tensor another shape or format, filled with zeros.
func (d *draft) replace(name string, t quant.Type, dims ...uint64) *draft {
	return d.remove(name).add(name, t, dims...)
}

// bytes lays the file out.
func (d *draft) bytes() []byte {
	d.t.Helper()
	var infos []gguf.Info
	for _, it := range d.items {
		infos = append(infos, it.info)
	}
	l, err := gguf.NewLayout(d.meta, infos)
	if err != nil {
		d.t.Fatal(err)
	}
	file := append(l.Header, make([]byte, l.Size-uint64(len(l.Header)))...)
	for i, it := range d.items {
		if err := it.src.Rows(file[l.Offsets[i]:l.Offsets[i]+l.Sizes[i]], 0, it.rows); err != nil {
			d.t.Fatal(err)
		}
	}
	return file
}

func (d *draft) open() *File {
	d.t.Helper()
	f, err := OpenBytes("draft", d.bytes())
	if err != nil {
		d.t.Fatal(err)
	}
	return f
}

// all is a tensor's bytes.
func all(t testing.TB, x *backend.Tensor) []byte {
	t.Helper()
	b := make([]byte, x.Bytes())
	if err := x.Source.Rows(b, 0, x.Rows); err != nil {
		t.Fatal(err)
	}
	return b
}
