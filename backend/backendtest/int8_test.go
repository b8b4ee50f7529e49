package backendtest

import (
	"math"
	"os"
	"slices"
	"testing"

	"drover/internal/quant"
	"drover/internal/ref"
)

// devices that TestTolerances imitates: their roundings of activations.
func float32Sums(row []float64) { // as if what made the row had summed in float32
	for i, v := range row {
		row[i] = float64(float32(v)) * (1 + 2e-7*math.Sin(1e9*v))
	}
}

func int8Activations(row []float64) {
	float32Sums(row)
	ref.Int8Blocks(row)
}

// TestTolerances measures the table: devices that differ from the reference
// only as an honest device does. DROVER_FULL=1 tries every shape, format and
// pair of cache formats, and wants no tolerance a hundred times too wide.
func TestTolerances(t *testing.T) {
	full := os.Getenv("DROVER_FULL") == "1"
	var rows []Tolerance
	worst := map[Tolerance]float64{}
	for j, typ := range quant.Types() {
		for i := range shapes {
			for caches := range 9 {
				if !full && ((i+j)%len(shapes) != 0 || (caches+j)%3 != 0) {
					continue
				}
				x := env{t: tester{t}, o: &Options{}, sh: &shapes[i], typ: typ, m: shapes[i].model(typ, uint64(1000*i)+uint64(typ))}
				x.lim = limits()
				x.lim.K, x.lim.V = x.sh.caches(caches)
				tol, e := ToleranceOf(typ, x.lim.K, x.lim.V), x.honest()
				if !slices.Contains(rows, tol) {
					rows = append(rows, tol)
				}
				worst[tol] = max(worst[tol], e)
				if !(e <= tol.NMSE) {
					t.Errorf("%v on %s with caches %v, %v: NMSE %.1e, tolerance %.0e", typ, x.sh.name, x.lim.K, x.lim.V, e, tol.NMSE)
				}
			}
		}
	}
	for _, tol := range rows {
		t.Logf("worst %.1e of %.0e: %s", worst[tol], tol.NMSE, tol.Why)
		if full && worst[tol] < tol.NMSE/100 {
			t.Errorf("the tolerance %.0e is a hundred times what is needed, %.1e", tol.NMSE, worst[tol])
		}
	}
}

// honest gives the NMSE of an honest device's logits.
func (x *env) honest() float64 {
	defer x.closeLines()
	p := part{[]int32{3}, 0, x.clear(16)}
	device := float32Sums
	if x.typ.BlockElems() > 1 {
		device = int8Activations
	}
	return ref.NMSE(x.whole(&ref.Device{Round: device}).feed(p, 16).logits, x.reference().feed(p, 16).logits)
}
