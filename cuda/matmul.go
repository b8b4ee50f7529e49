package cuda

import "math"

// width is a way to launch a kernel of matmul.cu or matmul_warpgroup.cu: the end of
// its name, how many columns a block takes, tiles of 16 rows a warp, and warps a
// block. Costs are those of an element beside the table's first: where the
// multiprocessor has its fill of blocks, and where a block is alone on it, which
// can have so many at once.
type width struct {
	kernel                string
	columns, tiles, warps int
	cost, alone           float64
	together              int
}

// These are constant tables. Costs are of what is not tensor work: dequantising,
// reading activations, waiting. Those of warpgroups' kernels are fitted to what
// Q4_0, Q8_0, Q4_K, Q6_K, F16 and BF16 took on a card (docs/measurements.md).
var (
	widths = [...]width{{"128", 128, 2, 8, 1, 1, 1}, {"128", 128, 2, 4, 1.05, 1.37, 2}, {"64", 64, 2, 4, 1.15, 1.5, 2}, {"32", 32, 1, 4, 1.8, 2.34, 2}, {"32", 32, 1, 2, 1.9, 2.47, 4}}
	// many scales take the registers of a second tile
	oneTileWidths   = [...]width{{"128", 128, 1, 8, 1, 1, 1}, {"128", 128, 1, 4, 1.05, 1.37, 2}, {"64", 64, 1, 4, 1.15, 1.5, 2}, {"32", 32, 1, 4, 1.8, 2.34, 2}, {"32", 32, 1, 2, 1.9, 2.47, 4}}
	warpgroupWidths = [...]width{{"128", 128, 2, 8, 1, 1, 1}, {"128_half", 128, 1, 8, 1.28, 1.28, 1}, {"64", 64, 1, 8, 1.45, 1.73, 3}, {"64", 64, 1, 4, 1.88, 2.63, 5}, {"32", 32, 1, 4, 2.65, 4.71, 2}}
	wideWidths      = [...]width{{"256", 256, 1, 8, 1, 1, 1}, {"128_half", 128, 1, 8, 1.19, 1.19, 1}, {"64", 64, 1, 8, 1.44, 1.62, 2}, {"64", 64, 1, 4, 1.79, 2.69, 3}, {"32", 32, 1, 4, 2.7, 4.31, 4}}
	// f16 and bf16, whose weights take more of shared memory
	plainWidths = [...]width{{"128", 128, 2, 8, 1, 1, 1}, {"128_half", 128, 1, 8, 1.15, 1.17, 1}, {"64", 64, 1, 8, 1.34, 1.61, 2}, {"64", 64, 1, 4, 1.71, 2.38, 2}, {"32", 32, 1, 4, 2.38, 4.68, 2}}
)

// plain is whether weights lie as numbers, not as quants.
func (f *format) plain() bool { return f.columns == 64 }

// widths are those of a tier for the format, the first being the least work.
func (f *format) widths(tier int) []width {
	switch {
	case tier != warpgroupTier:
	case f.wide:
		return wideWidths[:]
	case f.plain():
		return plainWidths[:]
	default:
		return warpgroupWidths[:]
	}
	all := widths[:]
	if f.converted {
		all = oneTileWidths[:]
	}
	if tier < 80 {
		all = all[2:] // it lacks room for 128 columns
	}
	return all
}

// multiplies reports whether the format has products for prompts on a card: else
// they go through matvec, 8 rows at a time.
func (f *format) multiplies(tier int) bool {
	return f.name != "f32" && (f.name != "bf16" || tier >= 80)
}

// matmulKernel is the name of a width's kernel.
func (f *format) matmulKernel(w width) string { return "matmul_" + f.name + "_" + w.kernel }

// matmulLaunch is for matrices of so many rows each and n columns: which of the
// widths, and its dynamic shared memory, more than 48 KiB for 128 columns. With
// experts, active is how many there can be at most, and mean how many columns one has
// on average; without, 1 and n. Every choice gives the same bits.
func (f *format) matmulLaunch(rows []int, n, active, mean, tier, multiprocessors int) (i int, l launch, shared uint32) {
	all, least := f.widths(tier), math.Inf(1)
	for j, w := range all {
		if t := w.time(rows, active, mean, multiprocessors); t < least {
			i, least = j, t
		}
	}
	return i, all[i].launch(rows, n, active), f.shared(all[i], tier)
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
// (STAGES in the kernels), weights of 256 columns (Ring), and a Table.
func (f *format) shared(w width, tier int) uint32 {
	stages, ring := 4, 0
	switch {
	case tier == warpgroupTier:
		stages, ring = 5, w.rows()/16*256/f.columns*f.bytes
	case tier < 80:
		stages = 2
	}
	return uint32(w.columns*(128*stages+12) + 24 + ring)
}

// time is what the busiest multiprocessor takes, in elements of the first entry's
// kernel.
func (w width) time(rows []int, active, columns, multiprocessors int) float64 {
	blocks := w.across(rows) * ((columns + w.columns - 1) / w.columns) * active
	each := (blocks + multiprocessors - 1) / multiprocessors
	waves := (each + w.together - 1) / w.together
	return float64(w.rows()*w.columns) * max(float64(each)*w.cost, float64(waves)*w.alone)
}
