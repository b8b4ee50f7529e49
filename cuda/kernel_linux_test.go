//go:build cgo

package cuda

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"drover/backend"
	"drover/internal/sim"
)

// machine makes a folder with what the kernel module leaves in one.
func machine(t *testing.T, version string, nodes ...string) string {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if version != "" {
		write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "+version+"  Release Build\nGCC version:  gcc version 12.2.0\n")
	}
	for _, n := range nodes {
		write(filepath.Join("dev", n), "")
	}
	return root
}

// What the kernel module shows tells why the driver finds no card.
func TestKernelSide(t *testing.T) {
	for _, c := range []struct {
		root string
		node string
		want kernelModule
	}{
		{machine(t, ""), "", kernelModule{expects: true}},
		{machine(t, "", "dxg"), "", kernelModule{}},
		{machine(t, "570.86.10", "nvidiactl", "nvidia-uvm", "nvidia0"), "", kernelModule{expects: true, version: "570.86.10"}},
		{machine(t, "470.256", "nvidiactl", "nvidia0"), "", kernelModule{expects: true, version: "470.256"}},
		{machine(t, "570.86.10"), "dev/nvidiactl", kernelModule{expects: true, version: "570.86.10", why: fs.ErrNotExist}},
	} {
		if c.node != "" {
			c.want.node = filepath.Join(c.root, c.node)
		}
		if got := kernelSide(c.root); got != c.want {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
	root := machine(t, "570.86.10", "nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1")
	node := filepath.Join(root, "dev", "nvidia1")
	for err, want := range map[error]error{syscall.EACCES: fs.ErrPermission, syscall.EPERM: errNotPermitted, syscall.EIO: nil, syscall.ENOENT: nil} {
		k := kernelNodes(root, func(path string) error {
			if path == node {
				return &fs.PathError{Op: "open", Path: path, Err: err}
			}
			return nil
		})
		if k.why != want || (k.node == node) != (want != nil) {
			t.Errorf("%v of %s: %+v, want %v", err, node, k, want)
		}
	}
}

// Each reason for finding no card has its remedy.
func TestNoneFound(t *testing.T) {
	t.Setenv("DROVER_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so.1")
	driver := &driver{}
	for _, c := range []struct {
		r      result
		k      kernelModule
		env    string // of CUDA_VISIBLE_DEVICES
		absent bool
		want   []string
	}{
		{noDevice, kernelModule{node: "/dev/nvidia0", why: fs.ErrPermission}, "", false, []string{"no permission to open /dev/nvidia0", "usermod -aG video", "NVreg_DeviceFileMode=0666"}},
		{unknownError, kernelModule{node: "/dev/nvidia-uvm", why: errNotPermitted}, "", false, []string{"container keeps /dev/nvidia-uvm closed", "--gpus all"}},
		{noDevice, kernelModule{node: "/dev/nvidiactl", why: fs.ErrNotExist, version: "570.86.10"}, "", false, []string{"570.86.10 is loaded and /dev/nvidiactl is missing", "nvidia-modprobe"}},
		{noDevice, kernelModule{expects: true}, "", true, []string{"finds no GPU, and its kernel module is not loaded", "sudo modprobe nvidia"}},
		{noDevice, kernelModule{version: "570.86.10"}, "", true, []string{"finds no GPU", "nvidia-smi"}},
		{noDevice, kernelModule{version: "570.86.10"}, "3", true, []string{`CUDA_VISIBLE_DEVICES="3"`, "unset CUDA_VISIBLE_DEVICES"}},
		{unknownError, kernelModule{version: "570.86.10"}, "", false, []string{"as after a suspend", "modprobe nvidia_uvm"}},
	} {
		t.Run("", func(t *testing.T) {
			if c.env != "" {
				t.Setenv("CUDA_VISIBLE_DEVICES", c.env)
			}
			u := driver.noneFound(c.r, "words", c.k).(*backend.Unusable)
			for _, want := range c.want {
				if !strings.Contains(u.Cause+": "+u.Remedy, want) {
					t.Errorf("%q, %q: no %q", u.Cause, u.Remedy, want)
				}
			}
			if u.Absent != c.absent {
				t.Errorf("%s: absent %v", u.Cause, u.Absent)
			}
		})
	}
	u := libraryMissing([]string{"libcuda.so.1"}, kernelModule{version: "570.86.10"}).(*backend.Unusable)
	if u.Absent || !strings.Contains(u.Cause, "though the driver's kernel module 570.86.10 is loaded") || !strings.Contains(u.Remedy, "libraries of version 570.86.10") {
		t.Errorf("%+v", u)
	}
}

// What a lasting error of each kind says to do, and that text names the driver
// that kernels need.
func TestRemedies(t *testing.T) {
	d := open(t, sim.Broken(t, fmt.Sprint("SYNC=", int(eccUncorrectable))))[0]
	s, err := d.stream()
	if err != nil {
		t.Fatal(err)
	}
	if err = s.sync(); !strings.Contains(backend.Remedy(err), "ECC") {
		t.Errorf("%v: %q", err, backend.Remedy(err))
	}
	for r, want := range map[result]string{contextDestroyed: "Xid", launchFailed: "doctor", launchTimeout: "-b 256"} {
		if got := lostRemedy(r); !strings.Contains(got, want) {
			t.Errorf("%d: %q, want %q", r, got, want)
		}
	}
	for version, want := range map[int]string{11040: "driver 470", 11080: "driver 520", 12080: "driver 525"} {
		d.driver.version = version
		if got := d.driver.text(newerPTX); !strings.Contains(got, want) {
			t.Errorf("CUDA %d: %q, want %q", version, got, want)
		}
	}
}
