package cpu

import "drover/backend"

// With Options.Raw weights stay in the mapped file. Few rows are multiplied
// with the file's blocks, where the set has a kernel for that. Otherwise a worker
// packs a group into its scratch, which stays in its cache, each time it is
// needed. The products are the same to the bit; memory is the file's, which the
// system may drop and read again.

// rawRows is up to how many rows are multiplied with the file's blocks, one by
// one. Packed first, a core with AVX-512 multiplies one row at 43 % of this
// rate (Q4_K), two at 53, three at 76 and four at 106.
const rawRows = 3

// stays is the tensor's mapped bytes where they are to be used in place.
func stays(o Options, t *backend.Tensor) []byte {
	if !o.Raw {
		return nil
	}
	return t.Source.Mapped()
}

// rawGroups is one worker's room for two packed groups.
type rawGroups struct {
	data   [2][]byte
	packer packer
}

func (s *stage) layoutRaw(threads int) {
	stride, cols := 0, 0
	for _, m := range s.matrices {
		if m.mapped != nil {
			stride, cols = max(stride, m.stride), max(cols, m.cols)
		}
	}
	if stride == 0 {
		return
	}
	s.raw = make([]rawGroups, threads)
	for i := range s.raw {
		r := &s.raw[i]
		r.data = [2][]byte{s.scratch.bytes(stride), s.scratch.bytes(stride)}
		r.packer = packer{k: s.k, q: make([]int8, cols), scale: make([]float32, cols/16)}
	}
}

// group is the packed data from group g of an expert's part on. Where weights
// stay in the file it is that group alone, in the worker's slot.
func (s *stage) group(m *matrix, part, g, worker, slot int) *byte {
	if m.data != nil {
		return &m.data[(part*m.groups+g)*m.stride]
	}
	r := &s.raw[worker]
	dst, size := r.data[slot][:m.stride], m.tensor.Type.RowBytes(m.cols)
	lo, hi := g*groupRows, min((g+1)*groupRows, m.rows)
	if hi-lo < groupRows {
		clear(dst)
	}
	p := r.packer
	p.t, p.kind, p.cols = m.tensor.Type, m.kind, m.cols
	p.q, p.scale = p.q[:m.cols], p.scale[:m.cols/16]
	p.group(dst, m.mapped[(part*m.rows+lo)*size:(part*m.rows+hi)*size], hi-lo)
	return &dst[0]
}

// rawTimes multiplies group g of the file's blocks with a few rows, and says
// whether it did: not where the set packs them, nor a group that lacks rows.
func (s *stage) rawTimes(q *product, g, rows int) bool {
	m := q.m
	raw := s.k.raw[m.kind]
	if m.data != nil || raw == nil || rows > rawRows || m.cols%packCols != 0 || (g+1)*groupRows > m.rows {
		return false
	}
	size := m.tensor.Type.RowBytes(m.cols)
	src := &m.mapped[(q.part*m.rows+g*groupRows)*size]
	for i := range rows {
		row := i
		if q.rows != nil {
			row = int(q.rows[i])
		}
		act, n := s.activations(m, row)
		raw(&q.dst[i*q.ld+g*groupRows], src, act, size, n)
	}
	return true
}
