//go:build metalsim

package metal

import (
	"errors"
	"os"
)

// libraries are the software Metal device, both of them.
func libraries() ([2]string, error) {
	path := os.Getenv("DROVER_METAL_LIBRARY")
	if path == "" {
		return [2]string{}, errors.New("metal: DROVER_METAL_LIBRARY must name the software Metal device (./build.sh sim makes it)")
	}
	return [2]string{path, path}, nil
}

// simulated: this build runs on the software Metal device.
const simulated = true
