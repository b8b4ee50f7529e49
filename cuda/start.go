//go:build (linux && cgo) || windows

package cuda

import (
	"fmt"
	"os"
	"strings"

	"drover/backend"
)

// kernelModule is what can be seen of the driver's part in the system's kernel.
type kernelModule struct {
	version string // 570.86.10; empty: not loaded, or not to be seen
	expects bool   // a system on which a loaded module is seen
	node    string // a device node that this process may not open, or that is missing
	why     error  // fs.ErrPermission, errNotPermitted or fs.ErrNotExist of that node
}

// libraryMissing is the error where none of the names is a library here.
func libraryMissing(names []string, k kernelModule) error {
	u := &backend.Unusable{Absent: true, Cause: fmt.Sprintf("CUDA's library %s was not found", strings.Join(names, " or ")),
		Remedy: "install the NVIDIA driver (in a container: start it with its GPUs, as by --gpus all), or name the library in DROVER_CUDA_LIBRARY"}
	if k.version != "" {
		u.Absent = false
		u.Cause += fmt.Sprintf(", though the driver's kernel module %s is loaded", k.version)
		u.Remedy = fmt.Sprintf("install the NVIDIA driver's libraries of version %s (in a container: start it with its GPUs, as by --gpus all), or name the library in DROVER_CUDA_LIBRARY", k.version)
	}
	return u
}

// startError is an error of cuInit with its remedy.
func (d *driver) startError(r result, library string) error {
	text := d.text(r)
	failed := func(remedy, format string, args ...any) error {
		return &backend.Unusable{Cause: fmt.Sprintf(format, args...) + ": " + text, Remedy: remedy, Absent: r == noDevice}
	}
	switch r {
	case noDevice, systemCall, unknownError:
		return d.noneFound(r, text, kernelSide("/"))
	case 3, deinitialized, stubLibrary:
		return failed("install the NVIDIA driver, and take stubs out of LD_LIBRARY_PATH", "%s is not a driver that runs, as the CUDA toolkit's stub is not", library)
	case systemNotReady:
		return failed("on a machine with NVSwitch start nvidia-fabricmanager (sudo systemctl start nvidia-fabricmanager); on others restart the machine", "the GPUs are not ready")
	case driverMismatch:
		module := "its kernel module"
		if k := kernelSide("/"); k.version != "" {
			module += " (" + k.version + ")"
		}
		return failed("restart the machine, or end what uses the GPU and load the new module: sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia_uvm",
			"the NVIDIA driver's library and %s are of different versions, as after an update", module)
	case notForThisCard:
		return failed("take it out of LD_LIBRARY_PATH, or update the NVIDIA driver", "a CUDA compatibility package is in use that this GPU does not support")
	}
	return failed("see whether nvidia-smi works; where it does not, install the NVIDIA driver again", "the NVIDIA driver does not start")
}

// noneFound says why the driver has no card to show, or does not start for a
// reason that it does not tell.
func (d *driver) noneFound(r result, text string, k kernelModule) error {
	u := &backend.Unusable{}
	hidden, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
	lost, fallen := openManagement().lost()
	mig, whole := openManagement().withoutInstances()
	switch {
	case k.refuses(u):
	case fallen:
		u.Cause = fmt.Sprintf("%s has fallen off the bus", lost)
		u.Remedy = "restart the machine; if it happens again, see the kernel's log (sudo dmesg | grep Xid) and the card's power and slot"
	case r == noDevice && set:
		u.Absent, u.Cause = true, fmt.Sprintf("the NVIDIA driver shows no GPU: CUDA_VISIBLE_DEVICES=%q hides them, or there is none", hidden)
		u.Remedy = "unset CUDA_VISIBLE_DEVICES, or name in it cards that nvidia-smi -L lists"
	case r == noDevice && whole:
		u.Cause = fmt.Sprintf("the NVIDIA driver shows no GPU: %s is in MIG mode and has no instance", mig)
		u.Remedy = "make an instance (sudo nvidia-smi mig -cgi 0 -C; -lgip lists the sizes), or turn the mode off (sudo nvidia-smi -mig 0)"
	case r == noDevice && k.expects && k.version == "":
		u.Absent, u.Cause = true, "the NVIDIA driver finds no GPU, and its kernel module is not loaded"
		u.Remedy = "where there is a card: sudo modprobe nvidia, then nvidia-smi (after an update of the kernel the driver may have to be installed again; Secure Boot wants its modules signed)"
	case r == noDevice:
		u.Absent, u.Cause = true, "the NVIDIA driver finds no GPU"
		u.Remedy = "see whether nvidia-smi lists one"
	default:
		u.Cause = "the NVIDIA driver does not start, as after a suspend"
		u.Remedy = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or restart the machine"
	}
	u.Cause += ": " + text
	return u
}

// driverFor is the driver that the kernels chosen with one for the CUDA version
// here need.
func driverFor(version int) string {
	switch {
	case version >= sm90aVersion:
		return "CUDA 12.0 (driver 525) or newer"
	case version >= sm90Version:
		return "CUDA 11.8 (driver 520) or newer"
	}
	return "CUDA 11.4 (driver 470) or newer"
}

// lostRemedy is for a card that stopped in the middle of work.
func lostRemedy(r result) string {
	switch r {
	case eccUncorrectable:
		return "restart the machine (or sudo nvidia-smi -r, with nothing using the card); nvidia-smi -q -d ECC,ROW_REMAPPER tells what is worn"
	case illegalAddress, illegalInstr, misaligned, addressSpace, invalidPC, hardwareStack, assertFailed, launchFailed:
		return "run drover doctor: where that passes, this is a mistake of drover's, please report it; where it fails, the card or its driver is at fault"
	case launchTimeout:
		return "run it again with a smaller batch (-b 256), or on a card without a display"
	}
	return "see whether nvidia-smi shows the card, and the kernel's log why it does not (sudo dmesg | grep Xid); restart the machine if it does not come back"
}
