// Package gguf reads and writes GGUF files, versions 2 and 3, little-endian:
// metadata of every type, tensors, and sets split over several files. It knows
// no architecture and no meaning of a key beyond general.alignment and
// split.*. Nothing in a file is trusted: every count, length, offset and
// product is checked against the bytes that are there before it is used, and
// nothing is allocated by a count alone.
//
// Specification: github.com/ggml-org/ggml, docs/gguf.md.
package gguf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrFormat: the bytes are not a GGUF file that this package reads. Errors of
// the operating system do not wrap it.
var ErrFormat = errors.New("invalid GGUF")

// ErrMissing: the metadata have no such key.
var ErrMissing = errors.New("missing")

// ErrType: a key's value is of another type than asked for, or out of range.
var ErrType = errors.New("wrong type")

// File is an open GGUF file or split set. It may be read from several
// goroutines; nothing that it gave (values, tensors) may be used after Close,
// but for strings and slices made by getters.
type File struct {
	Path    string // as opened, or the name given to OpenBytes
	Version uint32 // 2 or 3
	Parts   int    // files in the set; 1 where it is not split
	Size    uint64 // bytes of all parts

	keys    []string // in file order
	values  map[string]Value
	tensors []Tensor // in file order, part after part
	byName  map[string]int
	parts   []*part
}

// part is one file of a set.
type part struct {
	path   string
	data   []byte
	mapped bool // data is a mapping that close must undo
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name string
	Type TensorType
	Dims []uint64 // at most 4, the fastest first; empty for a scalar

	part       *part
	start, end uint64 // in the part
}

// Open maps the file at path and reads its header. Of a split set, path names
// the first file.
func Open(path string) (*File, error) {
	p, err := openPart(path)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path}
	if err := f.add(p); err != nil {
		p.close()
		return nil, err
	}
	if err := f.openSplits(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenBytes reads a file that is already in memory. The bytes must not change
// while the File is used. A part of a split set is refused.
func OpenBytes(name string, data []byte) (*File, error) {
	f := &File{Path: name}
	if err := f.add(&part{path: name, data: data}); err != nil {
		return nil, err
	}
	if n, err := f.splitCount(); err != nil {
		return nil, err
	} else if n > 1 {
		return nil, bad("%s is one of %d files: a split set can only be opened by its path", name, n)
	}
	return f, nil
}

// add reads a part's header and appends its tensors. Metadata are the first
// part's.
func (f *File) add(p *part) error {
	h, err := parse(p.data)
	if err != nil {
		return err
	}
	if len(f.parts) == 0 {
		f.Version, f.keys, f.values = h.version, h.keys, h.values
		f.byName = make(map[string]int, len(h.tensors))
	}
	for i := range h.tensors {
		t := &h.tensors[i]
		if _, twice := f.byName[t.Name]; twice {
			return bad("two tensors are named %q", t.Name)
		}
		t.part = p
		f.byName[t.Name] = len(f.tensors)
		f.tensors = append(f.tensors, *t)
	}
	f.parts = append(f.parts, p)
	f.Parts = len(f.parts)
	f.Size += uint64(len(p.data))
	return nil
}

// Close undoes the mapping.
func (f *File) Close() error {
	var first error
	for _, p := range f.parts {
		if err := p.close(); err != nil && first == nil {
			first = err
		}
	}
	f.parts, f.tensors, f.values, f.byName, f.keys = nil, nil, nil, nil, nil
	return first
}

// Tensors lists the tensors in file order.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor finds a tensor by name; nil where there is none.
func (f *File) Tensor(name string) *Tensor {
	if i, ok := f.byName[name]; ok {
		return &f.tensors[i]
	}
	return nil
}

// Elems is the number of weights.
func (t *Tensor) Elems() uint64 {
	n := uint64(1)
	for _, d := range t.Dims {
		n *= d // checked by parse
	}
	return n
}

// Data is the tensor's bytes where the file lies in memory. It must not be
// written to.
func (t *Tensor) Data() []byte { return t.part.data[t.start:t.end:t.end] }

// Drop says that bytes [lo, hi) of the tensor will not be read again soon, so
// that a mapped file lets go of their pages. A page that the range enters in
// its middle goes too: it is read again when it is wanted.
func (t *Tensor) Drop(lo, hi uint64) {
	if n := t.end - t.start; hi > n {
		hi = n
	}
	if t.part.mapped && lo < hi {
		page := uint64(os.Getpagesize())
		from, to := (t.start+lo)/page*page, (t.start+hi)/page*page
		if from < to {
			dropPages(t.part.data[from:to])
		}
	}
}

// openPart maps one file, after making sure that there is something to map: a
// pipe would hang, a directory and an empty file have no bytes.
func openPart(path string) (*part, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is a directory, not a GGUF file")}
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("is not a regular file")}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, bad("the file is empty")
	}
	if info.Size() != int64(int(info.Size())) {
		return nil, fmt.Errorf("%d bytes are more than this system can address", info.Size())
	}
	data, mapped, err := mapFile(file, int(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &part{path: path, data: data, mapped: mapped}, nil
}

func (p *part) close() error {
	data := p.data
	p.data = nil
	if !p.mapped {
		return nil
	}
	return unmap(data)
}

// formatError is an ErrFormat that says what is wrong and nothing else, so that
// causes can be joined without repeating that the file is invalid.
type formatError struct{ err error }

func (e *formatError) Error() string        { return e.err.Error() }
func (e *formatError) Unwrap() error        { return e.err }
func (e *formatError) Is(target error) bool { return target == ErrFormat }

func bad(format string, args ...any) error { return &formatError{fmt.Errorf(format, args...)} }
