package gguf

import (
	"encoding/binary"
	"fmt"
)

// Entry is a metadata key and its value, to be written.
type Entry struct {
	Key   string
	Value Value
}

// Info is a tensor to be written.
type Info struct {
	Name string
	Type TensorType
	Dims []uint64 // the fastest first
}

// Layout is a GGUF file of version 3 before its tensors' bytes: where
// everything goes is known, so that tensors can be written in any order and by
// several goroutines (io.WriterAt).
type Layout struct {
	Header  []byte   // the file up to the first tensor, padding included
	Offsets []uint64 // where each tensor begins in the file
	Sizes   []uint64 // bytes of each tensor
	Size    uint64   // bytes of the file; what no tensor covers is zero
}

// NewLayout lays out a file. A key general.alignment among the metadata counts;
// 32 is the default. Tensors lie one after another in the order given, each
// padded to the alignment, as llama.cpp demands. What the reader would refuse
// is an ErrFormat.
func NewLayout(meta []Entry, tensors []Info) (*Layout, error) {
	alignment := uint64(32)
	for _, e := range meta {
		if e.Key == "general.alignment" {
			alignment, _ = e.Value.Uint()
			if alignment == 0 || alignment&(alignment-1) != 0 || alignment > maxAlignment || e.Value.Type != Uint32 {
				return nil, bad("general.alignment must be a uint32 power of two up to %d", maxAlignment)
			}
		}
	}
	pad := func(n uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

	b := append([]byte(nil), "GGUF\x03\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(meta)))
	for _, e := range meta {
		b = appendText(b, e.Key)
		b = binary.LittleEndian.AppendUint32(b, uint32(e.Value.Type))
		b = e.Value.append(b)
	}
	l := &Layout{Offsets: make([]uint64, len(tensors)), Sizes: make([]uint64, len(tensors))}
	at := uint64(0)
	for i, t := range tensors {
		size, err := t.Type.Bytes(t.Dims)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if at+size > 1<<62 {
			return nil, bad("tensor %q: the file's size overflows", t.Name)
		}
		b = appendText(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Dims)))
		for _, d := range t.Dims {
			b = binary.LittleEndian.AppendUint64(b, d)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
		b = binary.LittleEndian.AppendUint64(b, at)
		l.Offsets[i], l.Sizes[i] = at, size
		at = pad(at + size)
	}
	l.Header = append(b, make([]byte, pad(uint64(len(b)))-uint64(len(b)))...)
	for i := range l.Offsets {
		l.Offsets[i] += uint64(len(l.Header))
	}
	l.Size = uint64(len(l.Header)) + at
	return l, l.check()
}

// check reads the header back with room for the data only pretended.
func (l *Layout) check() error {
	c := &cursor{data: l.Header}
	h := &header{values: map[string]Value{}, alignment: 1}
	tensors, keys, err := h.preamble(c)
	if err != nil {
		return err
	}
	for range keys {
		if err := h.entry(c); err != nil {
			return err
		}
	}
	names := make(map[string]bool, tensors)
	for range tensors {
		name, err := c.text("a tensor's name", maxName)
		if err != nil {
			return err
		}
		if names[name] {
			return bad("two tensors are named %q", name)
		}
		names[name] = true
		dims, err := c.uint32("a tensor's dimensions")
		if err != nil {
			return err
		}
		if dims > maxDims {
			return bad("tensor %q has %d dimensions; at most %d are possible", name, dims, maxDims)
		}
		if _, err := c.take(8*uint64(dims)+12, "a tensor"); err != nil {
			return err
		}
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}
