//go:build !(darwin && arm64) && !(linux && amd64 && metalsim)

// Package metal runs stages on Apple GPUs through the Metal framework. This
// file stands for it in a build without that backend.
package metal

import (
	"errors"

	"drover/backend"
)

// Devices lists the GPUs that can be used; where there are none the error says
// why.
func Devices() ([]backend.Device, error) {
	return nil, errors.New("this build has no Metal backend")
}
