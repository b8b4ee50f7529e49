package backendtest

import (
	"testing"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/ref"
)

// The pairs are what the package's doc says: every case meets every format and
// every shape that it applies to, and the first every pair.
func TestPairs(t *testing.T) {
	o := &Options{Types: quant.Types(), Same: []backend.Device{nil}, Round: ref.Int8Blocks}
	for n, c := range cases {
		formats, met := map[int]bool{}, 0
		for i := range shapes {
			shape := false
			for j := range o.Types {
				if c.on(i, j, n, o) {
					formats[j], shape = true, true
					met++
				} else if n == 0 {
					t.Errorf("%s does not run on %s in %v", c.name, shapes[i].name, o.Types[j])
				}
			}
			if applies := c.applies == nil || c.applies(&shapes[i]); shape != applies {
				t.Errorf("%s runs on %s: %v, applies: %v", c.name, shapes[i].name, shape, applies)
			}
		}
		if len(formats) != len(o.Types) {
			t.Errorf("%s meets %d formats of %d", c.name, len(formats), len(o.Types))
		}
		if n > 0 && met > 2*len(o.Types) {
			t.Errorf("%s runs on %d pairs: too many for a default", c.name, met)
		}
	}
}
