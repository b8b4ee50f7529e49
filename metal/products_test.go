//go:build linux && amd64 && metalsim

package metal

import (
	"testing"
)

func TestCompileAll(t *testing.T) {
	g := oneGPU(t)
	for i := range formats {
		f := &formats[i]
		lib, err := g.compile(f.source())
		if err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		for _, name := range f.kernels() {
			p, err := g.pipeline(lib, name)
			if err != nil {
				t.Fatal(err)
			}
			p.id.release()
		}
		lib.release()
	}
}
