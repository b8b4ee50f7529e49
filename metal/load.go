//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"context"
	"runtime"
	"sync"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// floats and ints are bytes as numbers.
func floats(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}
func ints(b []byte) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// piece is rows [lo, hi) of a matrix that is copied, or a whole one in place.
type piece struct {
	m       *matrix
	lo, hi  int
	inPlace bool
}

// pieceBytes is about how much is read at once.
const pieceBytes = 8 << 20

// load fills the stage's buffers: vectors, RoPE tables, and what is not used where
// it lies. Caches and scratch stay as they are: nothing is read there that was not
// written.
func (s *stage) load(ctx context.Context, progress func(done, total uint64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, v := range s.vectors {
		raw := make([]byte, v.tensor.Bytes())
		if err := v.tensor.Read(raw, 0, v.tensor.Rows); err != nil {
			return err
		}
		quant.Dequantize(v.tensor.Type, floats(s.constantsBuffer.data[v.at:])[:v.tensor.Rows*v.tensor.Cols], raw)
	}
	if s.attends {
		n := s.lim.Context * s.c.Rope.Dims / 2
		s.c.Rope.Table(floats(s.constantsBuffer.data[s.cos:])[:n], floats(s.constantsBuffer.data[s.sin:])[:n], 0, s.lim.Context)
	}
	var pieces []piece
	var total uint64
	for _, m := range s.tensors {
		total += m.tensor.Bytes()
		rows, step := m.tensor.Rows, max(1, pieceBytes/m.f.rowBytes(m.cols))
		if s.segmentBuffers[m.segment].data == nil {
			pieces = append(pieces, piece{m, 0, rows, true})
			continue
		}
		for lo := 0; lo < rows; lo += step {
			pieces = append(pieces, piece{m, lo, min(lo+step, rows), false})
		}
	}
	return s.loadPieces(ctx, pieces, total, progress)
}

// loadPieces copies pieces in several goroutines.
func (s *stage) loadPieces(ctx context.Context, pieces []piece, total uint64, progress func(done, total uint64)) error {
	var wg sync.WaitGroup
	all := backend.NewPieces(ctx, pieces, total, progress)
	for range min(4, runtime.NumCPU(), len(pieces)) {
		wg.Go(func() {
			for p, ok := all.Next(0, nil); ok; {
				p, ok = all.Next(s.copyPiece(p))
			}
		})
	}
	wg.Wait()
	return all.Err()
}

// copyPiece reads a piece into its buffer.
func (s *stage) copyPiece(p piece) (read uint64, err error) {
	t, row := p.m.tensor, uint64(p.m.f.rowBytes(p.m.cols))
	read = uint64((p.hi - p.lo) * t.Type.RowBytes(t.Cols))
	if p.inPlace {
		return read, nil
	}
	defer t.Source.Drop(p.lo, p.hi)
	to := s.segmentBuffers[p.m.segment].data[p.m.at+uint64(p.lo)*row:][:uint64(p.hi-p.lo)*row]
	if !p.m.f.converted {
		return read, t.Read(to, p.lo, p.hi)
	}
	raw := make([]byte, read)
	if err := t.Read(raw, p.lo, p.hi); err != nil {
		return 0, err
	}
	p.m.f.convert(t.Type, to, raw)
	return read, nil
}
