package ref

import (
	"drover/backend"
	"drover/internal/quant"
)

// Tolerance is the largest NMSE of a device's values against the reference's,
// and the reason.
type Tolerance struct {
	NMSE float64
	Why  string
}

// ToleranceInt8 is for a device that rounds activations to int8 before products
// with weights in blocks: weights in format t, caches in k and v. Backendtest's
// TestTolerances measures it on the suite's own models.
func ToleranceInt8(t, k, v quant.Type) Tolerance {
	switch {
	case t.BlockElems() > 1:
		return Tolerance{4e-3, "activations rounded to int8 in blocks of 32, whatever the weights' format: 3e-4 to 2e-3 after two or three layers"}
	case k == quant.Q8_0 || v == quant.Q8_0:
		return Tolerance{1e-6, "float32 sums, and the few values that fall on the other side of a rounding to int8 in the cache: up to 4e-7"}
	case k == quant.F16 || v == quant.F16:
		return Tolerance{1e-7, "float32 sums, and the few values that fall on the other side of a rounding to f16 in the cache: up to 2e-8"}
	default:
		return Tolerance{1e-11, "float32 sums: 1e-13 to 1e-12"}
	}
}

// ToleranceHalf is for a device that rounds inputs of products, and of attention
// in prompts, to f16; F32 weights are multiplied in f32.
func ToleranceHalf(t, k, v quant.Type) Tolerance {
	switch {
	case t == quant.F32 && k == quant.F32 && v == quant.F32:
		return ToleranceInt8(t, k, v) // nothing is rounded
	case k == quant.Q8_0 || v == quant.Q8_0:
		return Tolerance{5e-4, "as with other caches, and values on the other side of a rounding in the cache: a row up to 3e-4"}
	}
	return Tolerance{4e-5, "activations, queries, softmax and scaled weights rounded to f16: 1e-7 to 1e-5"}
}

// ToleranceBF16 is for a device that rounds inputs of products to bf16, as cards do
// where weights are of that kind. Backendtest's TestRowTolerances measures both on
// single rows of the suite's models.
func ToleranceBF16(k, v quant.Type) Tolerance {
	if k == quant.Q8_0 || v == quant.Q8_0 {
		return Tolerance{2e-3, "activations rounded to bf16, and values on the other side of a rounding in the cache: 1e-4, a row up to 1.3e-3"}
	}
	return Tolerance{8e-4, "activations rounded to bf16: 4e-5, a row up to 5e-4"}
}

// Arithmetic is how a device computes a block, and how far off it may be where its
// input is the reference's own: verify's table. An NMSE is that of one row, the worst.
type Arithmetic struct {
	Name   string // how it rounds
	Rounds bool   // to int8 before products: the reference is to do so too (Int8Blocks)

	product Tolerance // of what no cached value goes into
	reading Tolerance // of attention and what follows in its block
	whole   Tolerance // of logits after up to three layers
}

// ArithmeticOf is that of a kind of device for a block whose matrices are in these
// formats, with caches in k and v; device: it is held to another device, which
// rounds in its own way.
func ArithmeticOf(kind string, types []quant.Type, k, v quant.Type, device bool) Arithmetic {
	blocks, bf16, floats := 0, false, true
	for _, t := range types {
		if t.BlockElems() > 1 {
			blocks++
		}
		bf16 = bf16 || t == quant.BF16
		floats = floats && t == quant.F32
	}
	eight, half := k == quant.Q8_0 || v == quant.Q8_0, k == quant.F16 || v == quant.F16
	whole := ToleranceInt8(quant.Q4_0, k, v)
	switch {
	case device:
		rough := Tolerance{4e-3, "activations rounded to int8 by one and in another way by the other: 2e-5 to 2e-4, and more where some are large"}
		return Arithmetic{Name: "each in its own", product: rough, reading: rough, whole: whole}
	case kind != "cpu" && !(floats && k == quant.F32 && v == quant.F32):
		return half16(bf16, eight, Tolerance{2e-5, "activations and scaled weights rounded to f16: 1e-7 to 3e-6"}, k, v)
	case blocks == 0:
		a := Arithmetic{Name: "float32", product: sums(), reading: sums(), whole: ToleranceInt8(quant.F32, k, v)}
		a.whole.NMSE *= 20 // a far row reads the same page many times: 2e-6 with a cache in int8
		if eight {
			a.reading = Tolerance{5e-5, "values on the other side of a rounding to int8 in the cache: up to 2e-6"}
		} else if half {
			a.reading = Tolerance{1e-6, "values on the other side of a rounding to f16 in the cache: up to 1e-8"}
		}
		return a
	case blocks < len(types):
		rough := Tolerance{4e-3, "some activations rounded to int8, some not, which the reference does not follow: 2e-5 to 2e-4, and more where some are large"}
		return Arithmetic{Name: "int8 and float32", product: rough, reading: rough, whole: whole}
	}
	return Arithmetic{Name: "int8 in blocks of 32", Rounds: true, whole: whole,
		product: Tolerance{3e-4, "activations on the other side of a rounding to int8: a few a row, one up to 4e-5"},
		reading: Tolerance{5e-4, "the same, in keys and values too, and roundings in the cache: up to 6e-5"}}
}

// half16 is for devices that round to f16, or to bf16 with weights of that kind.
func half16(bf16, eight bool, product Tolerance, k, v quant.Type) Arithmetic {
	a := Arithmetic{Name: "f16", product: product, reading: Tolerance{4e-5, "the same, queries and softmax too: up to 3e-6"}, whole: ToleranceHalf(quant.F16, k, v)}
	if bf16 {
		a = Arithmetic{Name: "bf16", product: Tolerance{1e-4, "activations rounded to bf16: up to 2e-5"}, reading: Tolerance{2e-4, "the same: up to 2e-5"},
			whole: ToleranceBF16(k, v)}
	}
	if eight {
		a.reading = Tolerance{5e-4, "values on the other side of a rounding to int8 in the cache: up to 3e-5"}
	}
	return a
}

// exact is for what is looked up or divided once.
func exact() Tolerance { return Tolerance{1e-11, "float32: up to 1e-14"} }

// sums is for products in float32, of which the longest are the least exact.
func sums() Tolerance {
	return Tolerance{1e-9, "float32 sums: up to 2e-12 of 1000 weights, 2e-11 of 30000"}
}

// Block is the tolerance of an op, first in the first block after the embedding:
// what comes from a table lies at equal distances, and where the norm's weights are
// equal too, as in synthetic models, many activations lie just between two int8s.
func (a Arithmetic) Block(op backend.Op, first bool) Tolerance {
	t := a.product
	switch op {
	case backend.OpEmbed, backend.OpNorm:
		return exact()
	case backend.OpAttention, backend.OpAttnOut:
		t = a.reading
	}
	if first && a.Rounds {
		return Tolerance{10 * t.NMSE, "a table's values rounded to int8: up to 8e-4"}
	}
	return t
}

// Whole is the tolerance of logits after so many layers, over which errors add up.
func (a Arithmetic) Whole(layers int) Tolerance {
	return Tolerance{a.whole.NMSE * max(1, float64(layers)/3), a.whole.Why}
}

// Together is the tolerance of the blocks of a model as it is run against the same
// blocks one by one: the contract wants the same bits.
func Together() Tolerance { return Tolerance{1e-12, "none: they are the same bits"} }
