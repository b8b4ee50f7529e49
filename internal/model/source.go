package model

import (
	"fmt"
	"runtime/debug"

	"drover/backend"
	"drover/internal/gguf"
)

// mapped reads a tensor where its file lies in memory.
type mapped struct {
	t   *gguf.Tensor
	row uint64 // bytes
}

func (m *mapped) Rows(dst []byte, lo, hi int) error {
	from, to := uint64(lo)*m.row, uint64(hi)*m.row
	if lo < 0 || lo > hi || uint64(len(dst)) != to-from {
		panic(fmt.Sprintf("BUG: rows [%d, %d) of %q into %d bytes", lo, hi, m.t.Name, len(dst)))
	}
	return guard(func() { copy(dst, m.t.Data()[from:to]) })
}

// guard runs read, and makes the fault of reading a mapped file that has
// become shorter an error.
func guard(read func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); !fault {
				panic(p)
			}
			err = fmt.Errorf("%w: the file was changed while it was read", ErrBad)
		}
	}()
	read()
	return nil
}

func (m *mapped) Mapped() []byte { return m.t.Data() }

func (m *mapped) Drop(lo, hi int) { m.t.Drop(uint64(lo)*m.row, uint64(hi)*m.row) }

// joined is tensors of equal rows, one after another.
type joined struct {
	parts []backend.Source
	rows  int // of a part
	row   int // bytes
}

// each calls do for every part of rows [lo, hi), with the rows in the part.
func (j *joined) each(lo, hi int, do func(part backend.Source, lo, hi int) error) error {
	for at := lo; at < hi; {
		p := at / j.rows
		end := min(hi, (p+1)*j.rows)
		if err := do(j.parts[p], at-p*j.rows, end-p*j.rows); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func (j *joined) Rows(dst []byte, lo, hi int) error {
	return j.each(lo, hi, func(part backend.Source, lo, hi int) error {
		n := (hi - lo) * j.row
		err := part.Rows(dst[:n], lo, hi)
		dst = dst[n:]
		return err
	})
}

// Mapped is nil: the parts need not be neighbours.
func (j *joined) Mapped() []byte { return nil }

func (j *joined) Drop(lo, hi int) {
	_ = j.each(lo, hi, func(part backend.Source, lo, hi int) error {
		part.Drop(lo, hi)
		return nil
	})
}
