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

func f16Activations(row []float64) {
	for i, v := range row {
		row[i] = float64(quant.F16ToF32(quant.F32ToF16(float32(v))))
	}
}

func bf16Activations(row []float64) {
	for i, v := range row {
		row[i] = float64(quant.BF16ToF32(quant.F32ToBF16(float32(v))))
	}
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

// TestRowTolerances measures, row by row, the tables for devices that round to f16 or
// bf16: a row's error is spread far wider than that of many rows. DROVER_FULL=1 tries
// every shape and pair of cache formats, and wants no tolerance ten times too wide.
func TestRowTolerances(t *testing.T) {
	full := os.Getenv("DROVER_FULL") == "1"
	for _, c := range []struct {
		types []quant.Type
		round func(row []float64)
		limit func(typ, k, v quant.Type) Tolerance
	}{
		{[]quant.Type{quant.F16, quant.Q4_0, quant.Q6_K}, f16Activations, ref.ToleranceHalf},
		{[]quant.Type{quant.BF16}, bf16Activations, func(_, k, v quant.Type) Tolerance { return ref.ToleranceBF16(k, v) }},
	} {
		worst := map[Tolerance]float64{}
		for j, typ := range c.types {
			for i := range shapes {
				for caches := range 9 {
					if !full && (i+j)%5 != caches%5 {
						continue
					}
					x := env{t: tester{t}, o: &Options{}, sh: &shapes[i], typ: typ, m: shapes[i].model(typ, uint64(1000*i)+uint64(typ))}
					if x.m.Config.Experts > 0 { // which are chosen may differ
						continue
					}
					x.lim = limits()
					x.lim.K, x.lim.V = x.sh.caches(caches)
					tol := c.limit(typ, x.lim.K, x.lim.V)
					dev, want := x.whole(&ref.Device{Round: c.round}), x.reference()
					for k := range 8 {
						p := part{[]int32{int32(k)}, 0, x.random(100+k, 6)}
						e := ref.NMSE(dev.logits(p).logits[5*vocab:], want.logits(p).logits[5*vocab:])
						worst[tol] = max(worst[tol], e)
						if !(e <= tol.NMSE) {
							t.Errorf("%v on %s with caches %v, %v: NMSE %.1e, tolerance %.0e", typ, x.sh.name, x.lim.K, x.lim.V, e, tol.NMSE)
						}
					}
					x.closeLines()
				}
			}
		}
		for tol, e := range worst {
			t.Logf("worst %.1e of %.0e: %s", e, tol.NMSE, tol.Why)
			if full && e < tol.NMSE/10 {
				t.Errorf("the tolerance %.0e is ten times what is needed, %.1e", tol.NMSE, e)
			}
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
