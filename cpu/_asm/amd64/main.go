// amd64 writes the AVX2 and AVX-512 kernels of package cpu. What each computes
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
)

func main() {
	log.SetFlags(0)
	name := flag.String("set", "", "kernel `set`: avx2 or avx512")
	flag.Parse()
	ConstraintExpr("!noasm")
	s := set{bits: 256, suffix: "AVX2"}
	switch *name {
	case "avx2":
		pause()
	case "avx512":
		s = set{bits: 512, suffix: "AVX512"}
	default:
		log.Fatalf("unknown set %q: avx2 or avx512", *name)
	}
	s.tables()
	for _, l := range layouts {
		s.gemv(l)
		if s.wide() {
			s.gemvRows(l)
		}
		if !l.panel {
			s.unpack(l)
		}
	}
	for _, p := range panels {
		s.gemm(p)
	}
	s.pack()
	s.peak()
	for _, f := range []string{"F32", "F16", "BF16"} {
		s.gemvFloat(f)
		s.gemmFloat(f)
	}
	s.attention()
	s.quantize()
	s.vectors()
	Generate()
	if err := s.check(flag.Lookup("out").Value.String()); err != nil {
		log.Fatal(err)
	}
}

// check looks for what AVX2 lacks: avo takes registers 16 to 31 when it runs out.
func (s set) check(file string) error {
	text, err := os.ReadFile(file)
	if err != nil || s.wide() {
		return err
	}
	if bad := regexp.MustCompile(`.*\b([XYZ](1[6-9]|2\d|3[01])|Z\d|K\d)\b.*`).Find(text); bad != nil {
		return fmt.Errorf("%s: not AVX2: %s", file, bad)
	}
	return nil
}

func pause() {
	TEXT("pause", nosplit, "func()")
	Doc("pause tells the processor that this is a spin, for a few dozen cycles each.")
	for range 4 {
		PAUSE()
	}
	RET()
}
