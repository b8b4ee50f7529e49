package gguf

import (
	"errors"
	"testing"
)

// FuzzOpen: any bytes are opened, or refused with ErrFormat; what was opened
// can be read to its end, and written and opened again gives the same. The
// corpus is made by our own writer.
func FuzzOpen(f *testing.F) {
	f.Add(build(f, everyType(), someTensors()))
	f.Add(build(f, []Entry{{"general.alignment", Of(uint32(8))}}, someTensors()[:2]))
	f.Add(build(f, nil, nil))
	for _, data := range hostile() {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := OpenBytes("m", data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("not an ErrFormat: %v", err)
			}
			return
		}
		n := readAll(file)
		var meta []Entry
		for _, key := range file.Keys() {
			v, _ := file.Value(key)
			meta = append(meta, Entry{key, v})
		}
		var infos []Info
		for _, x := range file.Tensors() {
			infos = append(infos, Info{x.Name, x.Type, x.Dims})
		}
		l, err := NewLayout(meta, infos)
		if err != nil {
			t.Fatalf("opened but not laid out: %v", err)
		}
		again := append(l.Header, make([]byte, l.Size-uint64(len(l.Header)))...)
		for i, x := range file.Tensors() {
			copy(again[l.Offsets[i]:], x.Data())
		}
		back, err := OpenBytes("again", again)
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if m := readAll(back); m != n {
			t.Fatalf("what was written reads as %d, was %d", m, n)
		}
	})
}
