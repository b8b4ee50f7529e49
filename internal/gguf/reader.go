package gguf

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Bounds on what a file may hold. Real files stay far below.
const (
	maxKeys      = 1 << 16
	maxTensors   = 1 << 20
	maxDims      = 4
	maxKey       = 1<<16 - 1 // bytes, by the specification
	maxName      = 64        // bytes, by the specification
	maxAlignment = 1 << 20
	maxDepth     = 4 // arrays in arrays
	minEntry     = 8 + 1 + 4 + 1
	minTensor    = 8 + 1 + 4 + 4 + 8
)

// header is what parse finds in front of a part's tensor data.
type header struct {
	version   uint32
	keys      []string
	values    map[string]Value
	tensors   []Tensor
	alignment uint64
}

// cursor reads a file from front to back and never past its end.
type cursor struct {
	data []byte
	pos  uint64
}

// left is the number of bytes that were not read.
func (c *cursor) left() uint64 { return uint64(len(c.data)) - c.pos }

// take returns the next n bytes.
func (c *cursor) take(n uint64, what string) ([]byte, error) {
	if n > c.left() {
		return nil, bad("%s at byte %d takes %d bytes and %d are left: the file is cut off or damaged", what, c.pos, n, c.left())
	}
	b := c.data[c.pos : c.pos+n : c.pos+n]
	c.pos += n
	return b, nil
}

func (c *cursor) uint32(what string) (uint32, error) {
	b, err := c.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (c *cursor) uint64(what string) (uint64, error) {
	b, err := c.take(8, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// text reads a name of 1 to most bytes.
func (c *cursor) text(what string, most uint64) (string, error) {
	n, err := c.uint64(what)
	if err != nil {
		return "", err
	}
	if n == 0 || n > most {
		return "", bad("%s at byte %d is %d bytes long; it must be 1 to %d", what, c.pos-8, n, most)
	}
	b, err := c.take(n, what)
	return string(b), err
}

// parse reads everything in front of the tensor data and checks where the
// tensors lie.
func parse(data []byte) (*header, error) {
	c := &cursor{data: data}
	h := &header{values: map[string]Value{}, alignment: 32}
	tensors, keys, err := h.preamble(c)
	if err != nil {
		return nil, err
	}
	for range keys {
		if err := h.entry(c); err != nil {
			return nil, err
		}
	}
	if v, ok := h.values["general.alignment"]; ok {
		if v.Type != Uint32 {
			return nil, bad("general.alignment is a %v; it must be a uint32", v.Type)
		}
		h.alignment, _ = v.Uint()
		if bits.OnesCount64(h.alignment) != 1 || h.alignment > maxAlignment {
			return nil, bad("general.alignment is %d; it must be a power of two up to %d", h.alignment, maxAlignment)
		}
	}
	for range tensors {
		if err := h.tensor(c); err != nil {
			return nil, err
		}
	}
	return h, h.place(c)
}

// preamble reads magic, version and counts.
func (h *header) preamble(c *cursor) (tensors, keys uint64, err error) {
	magic, err := c.take(4, "magic")
	if err != nil {
		return 0, 0, err
	}
	if string(magic) != "GGUF" {
		return 0, 0, bad("it begins with %q, not \"GGUF\": this is another kind of file", magic)
	}
	if h.version, err = c.uint32("version"); err != nil {
		return 0, 0, err
	}
	switch v := h.version; {
	case v == 2 || v == 3:
	case v == 1:
		return 0, 0, bad("version 1 is no longer supported; convert the model again")
	case v&0xffff == 0 && bits.ReverseBytes32(v) <= 3:
		return 0, 0, bad("it is big-endian, which is not supported; convert it with gguf_convert_endian.py")
	default:
		return 0, 0, bad("version %d; versions 2 and 3 are supported", v)
	}
	if tensors, err = c.uint64("tensor count"); err != nil {
		return 0, 0, err
	}
	if keys, err = c.uint64("key count"); err != nil {
		return 0, 0, err
	}
	if keys > maxKeys || keys > c.left()/minEntry {
		return 0, 0, bad("%d metadata keys do not fit into the %d bytes that follow (most %d)", keys, c.left(), maxKeys)
	}
	if tensors > maxTensors || tensors > c.left()/minTensor {
		return 0, 0, bad("%d tensors do not fit into the %d bytes that follow (most %d)", tensors, c.left(), maxTensors)
	}
	return tensors, keys, nil
}

// entry reads a key and its value.
func (h *header) entry(c *cursor) error {
	key, err := c.text("a metadata key", maxKey)
	if err != nil {
		return err
	}
	if _, twice := h.values[key]; twice {
		return bad("two metadata keys are %q", key)
	}
	t, err := c.uint32("a value's type")
	if err != nil {
		return err
	}
	v, err := c.value(Type(t), 0)
	if err != nil {
		return bad("key %q: %w", key, err)
	}
	h.keys = append(h.keys, key)
	h.values[key] = v
	return nil
}

// value reads a value of type t. Nothing is copied: it stays where it lies.
func (c *cursor) value(t Type, depth int) (Value, error) {
	v := Value{Type: t}
	start := c.pos
	switch {
	case t == String:
		n, err := c.uint64("a string's length")
		if err != nil {
			return v, err
		}
		if _, err = c.take(n, "a string"); err != nil {
			return v, err
		}
	case t == Array:
		return c.array(depth)
	case t.fixed():
		b, err := c.take(t.size(), "a value")
		if err != nil {
			return v, err
		}
		if t == Bool && b[0] > 1 {
			return v, bad("a bool at byte %d is %d", start, b[0])
		}
	default:
		return v, bad("unknown value type %d at byte %d", uint32(t), start)
	}
	v.raw = c.data[start:c.pos:c.pos]
	return v, nil
}

// array reads an array's type and length and walks its elements.
func (c *cursor) array(depth int) (Value, error) {
	v := Value{Type: Array}
	t, err := c.uint32("an array's type")
	if err != nil {
		return v, err
	}
	if v.Elem = Type(t); v.Elem.size() == 0 {
		return v, bad("unknown element type %d at byte %d", t, c.pos-4)
	}
	if v.Elem == Array && depth+1 >= maxDepth {
		return v, bad("arrays are nested more than %d deep", maxDepth)
	}
	n, err := c.uint64("an array's length")
	if err != nil {
		return v, err
	}
	if n > c.left()/v.Elem.size() {
		return v, bad("an array of %d %v does not fit into the %d bytes that are left", n, v.Elem, c.left())
	}
	v.Len = int(n)
	start := c.pos
	if v.Elem.fixed() {
		b, err := c.take(n*v.Elem.size(), "an array")
		if err != nil {
			return v, err
		}
		if v.Elem == Bool && len(b) > 0 && slices.Max(b) > 1 {
			return v, bad("an array of bools at byte %d holds %d", start, slices.Max(b))
		}
	} else {
		for range n {
			if _, err := c.value(v.Elem, depth+1); err != nil {
				return v, err
			}
		}
	}
	v.raw = c.data[start:c.pos:c.pos]
	return v, nil
}

// tensor reads a tensor's name, shape, format and offset. start and end are
// relative to the tensor data until place moves them.
func (h *header) tensor(c *cursor) error {
	name, err := c.text("a tensor's name", maxName)
	if err != nil {
		return err
	}
	t := Tensor{Name: name}
	dims, err := c.uint32("a tensor's dimensions")
	if err != nil {
		return err
	}
	if dims > maxDims {
		return bad("tensor %q has %d dimensions; at most %d are possible", name, dims, maxDims)
	}
	t.Dims = make([]uint64, dims)
	for i := range t.Dims {
		if t.Dims[i], err = c.uint64("a tensor's shape"); err != nil {
			return err
		}
	}
	id, err := c.uint32("a tensor's format")
	if err != nil {
		return err
	}
	t.Type = TensorType(id)
	if t.start, err = c.uint64("a tensor's offset"); err != nil {
		return err
	}
	size, err := t.Type.Bytes(t.Dims)
	if err != nil {
		return bad("tensor %q: %w", name, err)
	}
	if t.start%h.alignment != 0 {
		return bad("tensor %q begins at byte %d of the data, which is no multiple of the alignment %d", name, t.start, h.alignment)
	}
	end, carry := bits.Add64(t.start, size, 0)
	if carry != 0 || end > uint64(len(c.data)) {
		return bad("tensor %q of %d bytes at %d of the data lies outside the file of %d bytes: the file is cut off or damaged", name, size, t.start, len(c.data))
	}
	t.end = end
	h.tensors = append(h.tensors, t)
	return nil
}

// Bytes is the size of a tensor of that shape, with every product checked.
func (t TensorType) Bytes(dims []uint64) (uint64, error) {
	elems, bytes, ok := t.Block()
	if !ok {
		return 0, bad("unknown number format %d", uint32(t))
	}
	row, n := uint64(1), uint64(1)
	for i, d := range dims {
		if i == 0 {
			row = d
		}
		hi, lo := bits.Mul64(n, d)
		if d == 0 || hi != 0 || lo > 1<<62 {
			return 0, bad("shape %d: a dimension is 0 or the product overflows", dims)
		}
		n = lo
	}
	if row%elems != 0 {
		return 0, bad("rows of %d weights are not a multiple of the format's blocks of %d", row, elems)
	}
	hi, size := bits.Mul64(n/elems, bytes)
	if hi != 0 || size > 1<<62 {
		return 0, bad("shape %d: the size overflows", dims)
	}
	return size, nil
}

// place sees that the tensors lie one after another without gaps, as llama.cpp
// demands too: a damaged format or shape that keeps inside the file shows here.
// It then moves them to where the data begin, and sees that they end inside the
// file.
func (h *header) place(c *cursor) error {
	begin := c.pos + (h.alignment-c.pos%h.alignment)%h.alignment
	next := uint64(0)
	for i := range h.tensors {
		t := &h.tensors[i]
		if t.start != next {
			return bad("tensor %q begins at byte %d of the data; by the tensors before it that must be %d", t.Name, t.start, next)
		}
		next = t.end + (h.alignment-t.end%h.alignment)%h.alignment
		t.start += begin // both below 2^62
		t.end += begin
		if t.end > uint64(len(c.data)) {
			return bad("tensor %q of %d bytes at byte %d ends past the file's %d bytes: the file is cut off or damaged", t.Name, t.end-t.start, t.start, len(c.data))
		}
	}
	return nil
}
