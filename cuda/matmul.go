package cuda

import (
	"math"
	"strconv"
)

// width is a way to launch a kernel of matmul.cu: how many columns a block
// takes, tiles of 16 rows a warp, and warps a block.
type width struct {
	columns, tiles, warps int
	cost                  float64 // of an element, beside the first
}

// widths is a constant table. The costs are those of what is not tensor work:
// dequantising, and reading activations.
var widths = [...]width{{128, 2, 8, 1}, {128, 2, 4, 1.05}, {64, 2, 4, 1.15}, {32, 1, 4, 1.8}, {32, 1, 2, 1.9}}

// width is entry i as a card has it for the format; false where it has none.
func (f *format) width(i, cc int) (width, bool) {
	w := widths[i]
	if f.converted { // its many scales take the registers of a second tile
		w.tiles = 1
	}
	return w, w.columns < 128 || cc >= 80
}

// multiplies reports whether the format has products for prompts on a card: else
// they go through matvec, 8 rows at a time.
func (f *format) multiplies(cc int) bool {
	return f.name != "f32" && (f.name != "bf16" || cc >= 80)
}

// matmulKernel is the name of the kernel for so many columns: 32, 64 or 128.
func (f *format) matmulKernel(columns int) string {
	return "matmul_" + f.name + "_" + strconv.Itoa(columns)
}

// matmulLaunch is for matrices of so many rows each and n columns: which kernel,
// and its dynamic shared memory, more than 48 KiB for 128 columns. With experts,
// active is how many there can be at most, and mean how many columns one has on
// average; without, 1 and n. Every choice gives the same bits.
func (f *format) matmulLaunch(rows []int, n, active, mean, cc, multiprocessors int) (columns int, l launch, shared uint32) {
	var best width
	least := math.Inf(1)
	for i := range widths {
		if w, ok := f.width(i, cc); ok {
			if t := w.time(rows, active, mean, multiprocessors); t < least {
				best, least = w, t
			}
		}
	}
	return best.columns, best.launch(rows, n, active), best.shared(cc)
}

func (w width) launch(rows []int, n, active int) launch {
	return launch{[3]uint32{uint32(w.across(rows)), uint32((n + w.columns - 1) / w.columns), uint32(active)}, uint32(32 * w.warps)}
}

// rows is how many rows a block takes.
func (w width) rows() int { return 16 * w.tiles * w.warps }

// across is how many blocks lie side by side over the rows of all matrices.
func (w width) across(rows []int) int {
	n := 0
	for _, r := range rows {
		n += (r + w.rows() - 1) / w.rows()
	}
	return n
}

// shared is the dynamic shared memory of a block: stages of 64 halves a column
// (STAGES in matmul.cu), and a Table.
func (w width) shared(cc int) uint32 {
	stages := 4
	if cc < 80 {
		stages = 2
	}
	return uint32(w.columns*(128*stages+12) + 24)
}

// time is what the busiest multiprocessor does, in elements of the first entry's
// kernel. With few warps it waits more for its own results.
func (w width) time(rows []int, active, columns, multiprocessors int) float64 {
	blocks := w.across(rows) * ((columns + w.columns - 1) / w.columns) * active
	each := (blocks + multiprocessors - 1) / multiprocessors
	t := float64(each*w.rows()*w.columns) * w.cost
	if each*w.warps < 8 {
		t *= 1.3
	}
	return t
}
