//go:build !(darwin && arm64) && !(linux && amd64 && metalsim)

// Package metal runs stages on Apple GPUs through the Metal framework. This
// file stands for it in a build without that backend.
package metal

import (
	"fmt"
	"runtime"

	"drover/backend"
)

// Devices lists the GPUs that can be used; where there are none the error says
// why.
func Devices() ([]backend.Device, error) {
	u := &backend.Unusable{Absent: true, Cause: fmt.Sprintf("this build, for %s on %s, has no Metal backend: Metal is for Macs", runtime.GOOS, runtime.GOARCH),
		Remedy: "use --device cuda or --device cpu here; on a Mac with an M1 or later and macOS 13, drover's build for darwin/arm64 has it"}
	if runtime.GOOS == "darwin" {
		u.Cause = fmt.Sprintf("this build, for %s, has no Metal backend: it is for Apple's GPUs, M1 and later", runtime.GOARCH)
		u.Remedy = "on a Mac with an M1 or later use drover's build for darwin/arm64; an Intel Mac has the CPU alone"
	}
	return nil, u
}
