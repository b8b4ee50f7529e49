//go:build !(linux && cgo) && !windows

// Package cuda runs stages on NVIDIA GPUs through the CUDA driver. This file
// stands for it in a build without that backend.
package cuda

import (
	"runtime"

	"drover/backend"
)

// Devices lists the GPUs that can be used; where there are none the error says
// why.
func Devices() ([]backend.Device, error) {
	u := &backend.Unusable{Absent: true, Cause: "this build has no CUDA backend: it is for Linux and Windows"}
	switch runtime.GOOS {
	case "linux":
		u.Cause, u.Remedy = "this build has no CUDA backend", "build drover with a C compiler (CGO_ENABLED=1 ./build.sh)"
	case "darwin":
		u.Remedy = "use --device metal on a Mac with an M1 or later, else --device cpu"
	}
	return nil, u
}
