//go:build (linux && cgo) || windows

package cuda

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"unsafe"

	"drover/backend"
	"drover/internal/quant"
)

// piece is rows [lo, hi) of one expert's part of a matrix.
type piece struct {
	m      *matrix
	part   int
	lo, hi int
}

// load fills the stage's memory: zeros, RoPE tables, vectors, and the matrices,
// which loaders read and the card packs, piece by piece.
func (s *stage) load(ctx context.Context, progress func(done, total uint64)) error {
	if err := s.stream.fill(s.cache.base, 0, s.allocation()-s.used.Weights); err != nil {
		return err
	}
	// the loaders' streams do not wait for this one, and the first pieces lie where it writes
	if err := s.stream.sync(); err != nil {
		return err
	}
	if err := s.loadVectors(); err != nil {
		return err
	}
	var pieces []piece
	var total uint64
	for _, m := range s.tensors {
		total += m.tensor.Bytes()
		step := max(16, s.stagingBytes/m.f.rawRow(m.tensor.Type, m.cols)/16*16)
		for p := range m.parts {
			for lo := 0; lo < m.rows; lo += step {
				pieces = append(pieces, piece{m, p, lo, min(lo+step, m.rows)})
			}
		}
	}
	if err := s.loadPieces(ctx, pieces, total, progress); err != nil {
		return err
	}
	// what lay over the scratch on its way must not stay: products read zeros beyond rows
	if err := s.stream.fill(s.staging, 0, uint64(loadSlots*s.stagingBytes)); err != nil {
		return err
	}
	if s.attends {
		if err := s.loadRope(); err != nil {
			return err
		}
	}
	return s.stream.sync()
}

// loadVectors uploads norms and biases as f32.
func (s *stage) loadVectors() error {
	for _, v := range s.vectors {
		t := v.tensor
		raw, w := make([]byte, t.Bytes()), make([]float32, t.Rows*t.Cols)
		if err := t.Read(raw, 0, t.Rows); err != nil {
			return err
		}
		quant.Dequantize(t.Type, w, raw)
		if err := s.upload(v.at, w); err != nil {
			return err
		}
	}
	return nil
}

// upload copies floats of Go's memory and waits.
func (s *stage) upload(to uint64, w []float32) error {
	if err := s.stream.copyIn(to, bytesOf(w)); err != nil {
		return err
	}
	return s.stream.sync()
}

// loadRope uploads the tables of cosines and sines, some positions at a time.
func (s *stage) loadRope() error {
	const positions = 4096
	pairs := s.c.Rope.Dims / 2
	cos, sin := make([]float32, min(positions, s.lim.Context)*pairs), make([]float32, min(positions, s.lim.Context)*pairs)
	for lo := 0; lo < s.lim.Context; lo += positions {
		n := min(positions, s.lim.Context-lo)
		s.c.Rope.Table(cos, sin, lo, lo+n)
		at := uint64(4 * lo * pairs)
		if err := s.upload(s.cos+at, cos[:n*pairs]); err != nil {
			return err
		}
		if err := s.upload(s.sin+at, sin[:n*pairs]); err != nil {
			return err
		}
	}
	return nil
}

// loader is one of several that read pieces: its stream, its pinned memory and
// its room on the card.
type loader struct {
	*stage
	own      *stream
	pinned   []byte
	raw      uint64
	unpacked unpacked
}

// unpacked is what a piece of converted weights is made of.
type unpacked struct {
	raw   []byte
	scale []float32
}

// loadPieces reads pieces in loadSlots goroutines.
func (s *stage) loadPieces(ctx context.Context, pieces []piece, total uint64, progress func(done, total uint64)) error {
	var wg sync.WaitGroup
	all := backend.NewPieces(ctx, pieces, total, progress)
	for i := range min(loadSlots, len(pieces)) {
		l := &loader{stage: s, raw: s.staging + uint64(i*s.stagingBytes)}
		if err := l.open(); err != nil {
			all.Next(0, err)
			l.close()
			break
		}
		wg.Go(func() {
			for p, ok := all.Next(0, nil); ok; {
				p, ok = all.Next(l.load(p))
			}
			if err := l.close(); err != nil {
				all.Next(0, err)
			}
		})
	}
	wg.Wait()
	return all.Err()
}

func (l *loader) open() (err error) {
	if l.own, err = l.d.stream(); err != nil {
		return err
	}
	l.pinned, err = l.d.hostAlloc(l.stagingBytes)
	return err
}

func (l *loader) close() error {
	var first error
	if l.own != nil {
		first = l.own.close()
	}
	if l.pinned != nil {
		if err := l.d.hostFree(l.pinned); first == nil {
			first = err
		}
	}
	return first
}

// load reads a piece, copies it to the card and packs it there.
func (l *loader) load(p piece) (read uint64, err error) {
	m, t := p.m, p.m.tensor
	lo, hi := p.part*m.rows+p.lo, p.part*m.rows+p.hi
	size := (p.hi - p.lo) * m.f.rawRow(t.Type, m.cols)
	if err := l.read(p, l.pinned[:size], lo, hi); err != nil {
		return 0, err
	}
	t.Source.Drop(lo, hi)
	if err := l.own.copyIn(l.raw, l.pinned[:size]); err != nil {
		return 0, err
	}
	args := Pack{Raw: l.raw, W: m.at + uint64(p.part)*m.stride, Rows: int32(p.hi - p.lo), First: int32(p.lo), Cols: int32(m.cols), Total: int32(m.rows)}
	shape := m.f.packLaunch(p.hi-p.lo, m.cols)
	if err := l.own.launch(l.kernels.weights[m.f].pack, shape.grid, shape.block, 0, unsafe.Pointer(&args)); err != nil {
		return 0, err
	}
	return uint64((hi - lo) * t.Type.RowBytes(m.cols)), l.own.sync()
}

// read fills dst with rows [lo, hi) as pack takes them.
func (l *loader) read(p piece, dst []byte, lo, hi int) error {
	t := p.m.tensor
	if !p.m.f.converted {
		return t.Read(dst, lo, hi)
	}
	src := l.unpacked.bytes((hi - lo) * t.Type.RowBytes(t.Cols))
	if err := t.Read(src, lo, hi); err != nil {
		return err
	}
	l.unpacked.ints(t.Type, dst, src, (hi-lo)*t.Cols)
	return nil
}

// bytes is room for n bytes.
func (u *unpacked) bytes(n int) []byte {
	if cap(u.raw) < n {
		u.raw = make([]byte, n)
	}
	return u.raw[:n]
}

// ints writes n weights as int8, and after them their f32 scales, one for 16.
func (u *unpacked) ints(t quant.Type, dst, src []byte, n int) {
	if cap(u.scale) < n/16 {
		u.scale = make([]float32, n/16)
	}
	scale := u.scale[:n/16]
	quant.Ints(t, unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(dst))), n), scale, nil, src)
	for i, v := range scale {
		binary.LittleEndian.PutUint32(dst[n+4*i:], math.Float32bits(v))
	}
}
