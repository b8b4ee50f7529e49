// amd64 writes the AVX2, AVX-VNNI, AVX-512 and AMX kernels of package cpu. What each computes
// and the layouts of its arguments stand in cpu/kernels.go; the definitions are
// in cpu/kernels_generic.go.
//
//	go run ./amd64 -set avx512 -out ../avx512_amd64.s -stubs ../avx512_amd64.go -pkg cpu
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

func main() {
	log.SetFlags(0)
	name := flag.String("set", "", "kernel `set`: avx2, avxvnni, avx512 or amx")
	flag.Parse()
	ConstraintExpr("!noasm")
	s := set{bits: 256, suffix: "AVX2"}
	switch *name {
	case "avx2":
		pause()
		cpuid()
	case "avxvnni":
		s = set{bits: 256, vnni: true, suffix: "AVXVNNI"}
	case "avx512":
		s = set{bits: 512, vnni: true, suffix: "AVX512"}
	case "amx":
		s = set{bits: 512, vnni: true, tiles: true, suffix: "AMX"}
		s.amx()
	default:
		log.Fatalf("unknown set %q: avx2, avxvnni, avx512 or amx", *name)
	}
	if !s.tiles {
		s.all()
	}
	Generate()
	if err := s.finish(flag.Lookup("out").Value.String()); err != nil {
		log.Fatal(err)
	}
}

// all writes the kernels of a set that stands by itself.
func (s set) all() {
	s.tables()
	for _, l := range layouts {
		s.gemv(l)
		if s.wide() {
			s.gemvRows(l)
		}
		if !l.panel && !s.productsOnly() {
			s.unpack(l)
		}
	}
	s.raw()
	for _, p := range panels {
		s.gemm(p)
	}
	s.peak()
	if !s.productsOnly() {
		s.rest()
	}
}

// rest writes what products of quantised weights are not.
func (s set) rest() {
	s.pack()
	for _, f := range []string{"F32", "F16", "BF16"} {
		s.gemvFloat(f)
		s.gemmFloat(f)
	}
	s.attention()
	s.quantize()
	s.vectors()
}

// finish looks for what AVX2 lacks: avo takes registers 16 to 31 when it runs
// out. VPDPBUSD, which Go's assembler knows in its AVX-512 encoding alone, it
// replaces by its bytes.
func (s set) finish(file string) error {
	text, err := os.ReadFile(file)
	if err == nil && s.tiles {
		return os.WriteFile(file, tilesFinish(text), 0o644)
	}
	if err != nil || s.wide() {
		return err
	}
	if bad := regexp.MustCompile(`.*\b([XYZ](1[6-9]|2\d|3[01])|Z\d|K\d)\b.*`).Find(text); bad != nil {
		return fmt.Errorf("%s: not AVX2: %s", file, bad)
	}
	text = regexp.MustCompile(`VPDPBUSD +Y(\d+), Y(\d+), Y(\d+)`).ReplaceAllFunc(text, vex)
	return os.WriteFile(file, text, 0o644)
}

// vex is VEX.256.66.0F38.W0 50 /r in bytes, for VPDPBUSD of activations, weights
// and sums in registers.
func vex(line []byte) []byte {
	var q, u, sum uint32
	if _, err := fmt.Sscanf(string(line), "VPDPBUSD Y%d, Y%d, Y%d", &q, &u, &sum); err != nil {
		panic(err)
	}
	first := 0xe2 ^ sum>>3<<7 ^ q>>3<<5
	second := 0x7d ^ u<<3
	return fmt.Appendf(nil, "LONG $0x50%02x%02xc4; BYTE $0x%02x // %s", second, first, 0xc0|sum&7<<3|q&7, line)
}

func cpuid() {
	TEXT("cpuid", nosplit, "func(leaf uint32) (a, b, c, d uint32)")
	Doc("cpuid is what the processor says of itself.")
	Load(Param("leaf"), EAX)
	XORL(ECX, ECX)
	CPUID()
	for i, r := range []Register{EAX, EBX, ECX, EDX} {
		Store(r, ReturnIndex(i))
	}
	RET()
}

func pause() {
	TEXT("pause", nosplit, "func()")
	Doc("pause tells the processor that this is a spin, for a few dozen cycles each.")
	for range 4 {
		PAUSE()
	}
	RET()
}
