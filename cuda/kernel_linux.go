//go:build cgo

package cuda

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"drover/backend"
)

// errNotPermitted is of a node that a container's rules keep closed, whatever its
// owner and mode.
var errNotPermitted error = syscall.EPERM

// kernelSide looks at the kernel module's version and device nodes below root.
func kernelSide(root string) kernelModule {
	return kernelNodes(root, func(node string) error {
		f, err := os.OpenFile(node, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	})
}

// kernelNodes is kernelSide with how a node is opened.
func kernelNodes(root string, open func(node string) error) kernelModule {
	_, noWSL := os.Stat(filepath.Join(root, "dev", "dxg"))
	_, noTegra := os.Stat(filepath.Join(root, "etc", "nv_tegra_release"))
	k := kernelModule{expects: noWSL != nil && noTegra != nil}
	if text, err := os.ReadFile(filepath.Join(root, "proc", "driver", "nvidia", "version")); err == nil {
		k.version = string(regexp.MustCompile(`\b\d{3,}\.\d+(\.\d+)?\b`).Find(text))
	}
	cards, _ := filepath.Glob(filepath.Join(root, "dev", "nvidia[0-9]*"))
	slices.Sort(cards)
	control := filepath.Join(root, "dev", "nvidiactl")
	for _, node := range append([]string{control, filepath.Join(root, "dev", "nvidia-uvm")}, cards...) {
		err := open(node)
		for _, why := range []error{fs.ErrPermission, fs.ErrNotExist} {
			// nvidia-uvm is made at the first use, and nothing has nodes where no module is loaded
			if !errors.Is(err, why) || why == fs.ErrNotExist && (node != control || k.version == "") {
				continue
			}
			if k.node, k.why = node, why; errors.Is(err, syscall.EPERM) {
				k.why = errNotPermitted
			}
			return k
		}
	}
	return k
}

// refuses fills in u where the nodes say why no card is found.
func (k kernelModule) refuses(u *backend.Unusable) bool {
	switch k.why {
	case fs.ErrPermission:
		u.Cause = fmt.Sprintf("no permission to open %s", k.node)
		u.Remedy = fmt.Sprintf("join the group that owns it (ls -l %s; mostly video or render: sudo usermod -aG video $USER, then log in again), or have the driver open it to all: options nvidia NVreg_DeviceFileMode=0666 in /etc/modprobe.d", k.node)
	case errNotPermitted:
		u.Cause = fmt.Sprintf("the container keeps %s closed", k.node)
		u.Remedy = "start the container with its GPUs: --gpus all (docker, with the NVIDIA Container Toolkit), --device nvidia.com/gpu=all (podman)"
	case fs.ErrNotExist:
		u.Cause = fmt.Sprintf("the driver's kernel module %s is loaded and %s is missing", k.version, k.node)
		u.Remedy = "sudo nvidia-modprobe -c 0 -u makes it; a container must be started with its GPUs, as by --gpus all"
	}
	return k.why != nil
}
