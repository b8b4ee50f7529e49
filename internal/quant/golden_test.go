package quant

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden reads a file of quant/ in the folder of golden data.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("DROVER_GOLDEN")
	if dir == "" {
		t.Skip("DROVER_GOLDEN is not set: not compared with golden data")
	}
	b, err := os.ReadFile(filepath.Join(dir, "quant", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenName is the format's name in golden file names: q4_0, q4_K, iq2_xxs.
func goldenName(f Type) string {
	return strings.Replace(strings.ToLower(f.String()), "_k", "_K", 1)
}

func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	Dequantize(F32, x, b)
	return x
}

// sameBits compares weights bit for bit.
func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d weights, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: weight %d is %v (%08x), want %v (%08x)", what, i,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

func blockTypes() []Type {
	var fs []Type
	for _, f := range Types() {
		if f.BlockElems() > 1 {
			fs = append(fs, f)
		}
	}
	return fs
}

func TestGoldenDequantize(t *testing.T) {
	for _, f := range blockTypes() {
		name := goldenName(f)
		for _, pair := range [][2]string{{".blocks.bin", ".f32"}, {".quant.bin", ".quant.f32"}} {
			src, want := golden(t, name+pair[0]), floats(golden(t, name+pair[1]))
			got := make([]float32, len(want))
			Dequantize(f, got, src)
			sameBits(t, name+pair[0], got, want)
		}
	}
}

// Golden data knows no format that we do not.
func TestGoldenIndex(t *testing.T) {
	var index []struct {
		Type  string
		ID    Type `json:"ggml_type_id"`
		Elems int  `json:"block_elems"`
		Bytes int  `json:"block_bytes"`
	}
	if err := json.Unmarshal(golden(t, "index.json"), &index); err != nil {
		t.Fatal(err)
	}
	if got, want := len(index), len(blockTypes()); got != want {
		t.Errorf("%d formats in golden data, we have %d", got, want)
	}
	for _, x := range index {
		f, err := Parse(x.Type)
		if err != nil || f != x.ID || f.BlockElems() != x.Elems || f.BlockBytes() != x.Bytes {
			t.Errorf("%+v is our %v (%v): %d weights in %d bytes", x, f, err, f.BlockElems(), f.BlockBytes())
		}
	}
}

func TestGoldenInts(t *testing.T) {
	for _, f := range blockTypes() {
		for _, part := range []string{".blocks.bin", ".quant.bin"} {
			checkInts(t, f, golden(t, goldenName(f)+part))
		}
	}
}

func TestGoldenQuantize(t *testing.T) {
	x := floats(golden(t, "input_x.f32"))
	for _, f := range []Type{Q8_0, Q4_0, Q4_1, Q5_0, Q5_1} {
		want := golden(t, goldenName(f)+".quant.bin")
		got := make([]byte, f.RowBytes(len(x)))
		if err := Quantize(f, got, x); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%v: byte %d of block %d is %#x, want %#x", f, i%f.BlockBytes(), i/f.BlockBytes(), got[i], want[i])
			}
		}
	}
}

func TestGoldenF16(t *testing.T) {
	all := floats(golden(t, "all_f16_as.f32"))
	src := make([]byte, 2*len(all))
	for i := range all {
		src[2*i], src[2*i+1] = byte(i), byte(i>>8)
	}
	got := make([]float32, len(all))
	Dequantize(F16, got, src)
	sameBits(t, "all_f16_as.f32", got, all)

	in := floats(golden(t, "conv_in.f32"))
	for f, name := range map[Type]string{F16: "conv_out.f16", BF16: "conv_out.bf16"} {
		want, got := golden(t, name), make([]byte, 2*len(in))
		if err := Quantize(f, got, in); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			for i := range in {
				if got[2*i] != want[2*i] || got[2*i+1] != want[2*i+1] {
					t.Errorf("%s: %v is % x, want % x", name, in[i], got[2*i:2*i+2], want[2*i:2*i+2])
				}
			}
		}
	}
}
