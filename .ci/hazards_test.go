package main

import (
	"strings"
	"testing"
)

// A loop as ptxas makes it: four registers of A, two groups under way.
const multiplies = `.text.k:
        /*0000*/                   MOV R40, R1 ;
.L_x_1:
        /*0010*/                   LDS.128 R48, [R60] ;
        /*0020*/                   WARPGROUP.ARRIVE ;
        /*0030*/                   HGMMA.64x32x16.F32 R0, R40, gdesc[UR12], R0, gsb0 ;
        /*0040*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0050*/                   IMAD R44, R48, R49, RZ ;
        /*0060*/                   WARPGROUP.ARRIVE ;
        /*0070*/                   HGMMA.64x32x16.F32 R0, R44, gdesc[UR12], R0, gsb0 ;
        /*0080*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0090*/                   IMAD R40, R48, R50, RZ ;
        /*00a0*/              @!P0 BRA ` + "`(.L_x_1)" + ` ;
        /*00b0*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*00c0*/                   STG.E desc[UR8][R60.64], R0 ;
        /*00d0*/                   EXIT ;
`

func TestHazards(t *testing.T) {
	for _, c := range []struct{ name, was, is, want string }{
		{"none", "EXIT", "EXIT", ""},
		{"A written", "IMAD R44, R48", "IMAD R41, R48", "IMAD R41"},
		{"A loaded, the loop before", "LDS.128 R48", "LDS.128 R44", "LDS.128 R44"},
		{"the last of four registers", "LDS.128 R48", "LDS.128 R41", "LDS.128 R41"},
		{"A read", "IMAD R44, R48, R49", "IMAD R44, R40, R41", ""},
		{"sums read", "IMAD R44, R48, R49", "IMAD R44, R7, R49", "IMAD R44, R7"},
		{"sums stored too early", "gsb0, 0x0", "gsb0, 0x1", "STG.E"},
		{"guarded", "IMAD R44, R48", "@P1 IMAD R41, R48", "@P1 IMAD R41"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Count(multiplies, c.was) != 1 {
				t.Fatalf("%q is there %d times", c.was, strings.Count(multiplies, c.was))
			}
			found := disassembled(strings.Replace(multiplies, c.was, c.is, 1))["k"].hazards()
			if got := strings.Join(found, "\n"); c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
