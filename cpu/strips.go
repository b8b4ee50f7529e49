package cpu

// A row's activations are read again for every group of weights, and those of a long row leave the L1 cache meanwhile:
// the weights go through it. So groups of long rows lie two and two, cut into strips of as many columns: the first
// strip of one, that of the other, the second strip of the first. What is read stays in a row, and every other
// time the activations are at hand. Two cores of a Zen 4 multiply rows of 11008 columns in Q4_0 1.10 times as fast so.
// Formats of eight bits and more have as many bytes of weights between that it does not matter.
const (
	longBlocks  = 64 // rows of no more are not cut
	stripBlocks = 48 // whole lines and superblocks in every format
)

// stripOf is how many blocks, or columns of float kinds, a strip of a matrix has: all of them where its groups
// lie one after the other, as they do where they are packed one at a time.
func (m *matrix) stripOf() int {
	switch n := m.cols / blockCols; {
	case m.kind.float():
		return m.cols
	case m.kind == kindQ8_0 || m.kind == kindI8 || m.mapped != nil || n <= longBlocks:
		return n
	}
	return stripBlocks
}

// cut says whether the matrix's groups lie in strips.
func (m *matrix) cut() bool { return m.strip < m.cols/blockCols }

// stripAt is where the strip of a group that begins at block b lies, how many blocks it has, and how many bytes: so far on
// lies that of the second group of two.
func (m *matrix) stripAt(part, group, b int) (at, n, size int) {
	first := group &^ 1
	n = min(m.strip, m.cols/blockCols-b)
	size = m.kind.groupBytes(n * blockCols)
	at = (part*m.groups+first)*m.stride + min(2, m.groups-first)*m.kind.groupBytes(b*blockCols) + (group-first)*size
	return at, n, size
}
