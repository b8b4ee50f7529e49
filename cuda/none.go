//go:build !(linux && cgo) && !windows

// Package cuda runs stages on NVIDIA GPUs through the CUDA driver. This file
// stands for it in a build without that backend.
package cuda

import (
	"errors"
	"runtime"

	"drover/backend"
)

// Devices lists the GPUs that can be used; where there are none the error says
// why.
func Devices() ([]backend.Device, error) {
	if runtime.GOOS == "linux" {
		return nil, errors.New("this build has no CUDA backend: build it with a C compiler (CGO_ENABLED=1)")
	}
	return nil, errors.New("this build has no CUDA backend: it is for Linux and Windows")
}
