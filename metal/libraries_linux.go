//go:build metalsim

package metal

import (
	"fmt"
	"os"
	"path/filepath"

	"drover/backend"
)

// libraries are the software Metal device, both of them: what DROVER_METAL_LIBRARY
// names, or sim/libmetalsim.so beside the program.
func libraries() ([2]string, error) {
	path := os.Getenv("DROVER_METAL_LIBRARY")
	if path == "" {
		program, err := os.Executable()
		if err != nil {
			return [2]string{}, fmt.Errorf("metal: %w", err)
		}
		path = filepath.Join(filepath.Dir(program), "sim", "libmetalsim.so")
		if _, err := os.Stat(path); err != nil {
			return [2]string{}, &backend.Unusable{Absent: true, Cause: fmt.Sprintf("metal: no software Metal device: %v", err),
				Remedy: "./build.sh metalsim makes it; DROVER_METAL_LIBRARY names one elsewhere"}
		}
	}
	return [2]string{path, path}, nil
}

// simulated: this build runs on the software Metal device.
const simulated = true
