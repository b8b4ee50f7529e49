package cpu

import (
	"context"
	"fmt"
	"sync"

	"drover/backend"
	"drover/internal/quant"
)

// Load packs the weights of the runs, in parallel, and takes cache and scratch.
func (d *device) Load(ctx context.Context, m *backend.Model, runs []backend.Range, l backend.Limits, progress func(done, total uint64)) (backend.Stage, error) {
	need, err := d.Need(m, runs, l)
	if err != nil {
		return nil, err
	}
	if free := d.Info().Free; need.Total() > free {
		return nil, &backend.MemoryError{Device: "cpu", Need: need.Total(), Free: free}
	}
	s := &stage{k: d.k, taken: &d.taken, held: need.Total()}
	d.taken.Add(need.Total())
	for _, a := range []struct {
		a    *arena
		n    uint64
		huge bool // scratch is touched in spots: large pages would make all of it resident
	}{{&s.weights, need.Weights, true}, {&s.cache, need.Cache, true}, {&s.scratch, need.Scratch, false}} {
		if a.a.mem, err = reserve(a.n, a.huge); err != nil {
			s.Close()
			return nil, fmt.Errorf("%w (%w)", &backend.MemoryError{Device: "cpu", Need: need.Total(), Free: d.Info().Free}, err)
		}
	}
	s.layout(d.options, m, runs, l)
	cpus := choosePlaces(d.options.Threads)
	if err := s.read(ctx, d.options.Threads, &cpus, progress); err != nil {
		s.Close()
		return nil, err
	}
	s.prepare(d.options.Threads, cpus)
	return s, nil
}

// chunkBytes is about how much of a matrix a loader reads at once, before it lets go of the file's pages, for which
// all processors are told to forget them.
const chunkBytes = 4 << 20

// chunk is groups [lo, hi) of one expert's part of a matrix.
type chunk struct {
	m      *matrix
	part   int
	lo, hi int
}

// read fills vectors and matrices from their sources.
func (s *stage) read(ctx context.Context, threads int, cpus *places, progress func(done, total uint64)) error {
	for _, v := range s.vectors {
		raw := make([]byte, v.tensor.Bytes())
		if err := v.tensor.Read(raw, 0, v.tensor.Rows); err != nil {
			return err
		}
		quant.Dequantize(v.tensor.Type, v.data, raw)
	}
	l := &loader{ctx: ctx, chunks: make([][]chunk, threads), progress: progress}
	for _, m := range s.matrices {
		if m.data == nil {
			continue
		}
		l.total += m.tensor.Bytes()
		step := max(2, chunkBytes/m.stride&^1)
		for p := range m.parts {
			for id := range threads {
				lo, hi := share(m.groups, id, threads)
				for g := lo; g < hi; g += step {
					l.chunks[id] = append(l.chunks[id], chunk{m, p, g, min(g+step, hi)})
				}
			}
		}
	}
	var wg sync.WaitGroup
	for id := range threads {
		wg.Go(func() {
			cpus.bind(id, false)
			defer cpus.free()
			var buf []byte
			for c, ok := l.take(id, !cpus.apart, 0, nil); ok; {
				var n uint64
				var err error
				n, buf, err = c.pack(s.k, buf)
				c, ok = l.take(id, !cpus.apart, n, err)
			}
		})
	}
	wg.Wait()
	return l.first
}

// loader gives out the chunks of a stage.
type loader struct {
	ctx      context.Context
	chunks   [][]chunk // by the worker that will read them: who touches memory first has it near
	progress func(done, total uint64)
	total    uint64

	mu    sync.Mutex
	done  uint64
	first error
}

// take gives out the next of worker id's chunks, and then, where all memory is
// equally near, those of others, after the last one's bytes were counted.
func (l *loader) take(id int, others bool, read uint64, err error) (chunk, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = l.ctx.Err()
	}
	if l.first == nil {
		l.first = err
	}
	l.done += read
	if l.progress != nil && read > 0 {
		l.progress(l.done, l.total)
	}
	for i := range l.chunks {
		if l.first != nil || i > 0 && !others {
			break
		}
		if list := &l.chunks[(id+i)%len(l.chunks)]; len(*list) > 0 {
			c := (*list)[0]
			*list = (*list)[1:]
			return c, true
		}
	}
	return chunk{}, false
}

// pack reads and packs a chunk; buf is reused between calls.
func (c chunk) pack(k *kernels, buf []byte) (read uint64, _ []byte, err error) {
	m, t := c.m, c.m.tensor
	size := t.Type.RowBytes(m.cols)
	lo, hi := c.part*m.rows+c.lo*groupRows, c.part*m.rows+min(c.hi*groupRows, m.rows)
	err = t.Guard(func() error {
		src := t.Source.Mapped()
		if src != nil {
			src = src[lo*size : hi*size]
		} else {
			if n := (hi - lo) * size; cap(buf) < n {
				buf = make([]byte, n)
			}
			src = buf[:(hi-lo)*size]
			if err := t.Source.Rows(src, lo, hi); err != nil {
				return err
			}
		}
		p := newPacker(k, t.Type, m.cols)
		m.pack(p, c.part, c.lo, c.hi, src)
		return nil
	})
	if err != nil {
		return 0, buf, err
	}
	t.Source.Drop(lo, hi)
	return uint64((hi - lo) * size), buf, nil
}

// pack packs the rows of src, those of groups [lo, hi) of a part, in the order in which they will lie; lo is even.
func (m *matrix) pack(p *packer, part, lo, hi int, src []byte) {
	rows := func(g int) ([]byte, int) {
		return src[(g-lo)*groupRows*p.t.RowBytes(m.cols):], min(groupRows, m.rows-g*groupRows)
	}
	if !m.cut() {
		for g := lo; g < hi; g++ {
			at := (part*m.groups + g) * m.stride
			from, n := rows(g)
			p.group(m.data[at:at+m.stride], from, n)
		}
		return
	}
	for pair := lo; pair < hi; pair += 2 {
		for b := 0; b < m.cols/blockCols; b += m.strip {
			for g := pair; g < min(pair+2, hi); g++ {
				at, cols, size := m.stripAt(part, g, b)
				from, n := rows(g)
				p.columns(m.data[at:at+size], from, n, b*blockCols, cols*blockCols)
			}
		}
	}
}
