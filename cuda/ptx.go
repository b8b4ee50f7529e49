package cuda

import (
	"compress/gzip"
	"embed"
	"fmt"
	"io"
)

// The kernels, compiled for each tier of cards by ./build.sh kernels:
// MODULE.TIER.ptx.gz.
//
//go:embed kernels/ptx
var ptxFiles embed.FS

// ptx is the text of a module for a tier ("sm_80"). What sm_90a lacks is that of
// sm_90.
func ptx(module, tier string) ([]byte, error) {
	name := module + "." + tier + ".ptx.gz"
	f, err := ptxFiles.Open("kernels/ptx/" + name)
	if err != nil && tier == "sm_90a" {
		return ptx(module, "sm_90")
	}
	if err != nil {
		return nil, fmt.Errorf("cuda: no kernels %s in this build: ./build.sh kernels makes them", name)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("cuda: kernels %s: %w", name, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("cuda: kernels %s: %w", name, err)
	}
	return text, nil
}
