//go:build (linux && cgo) || windows

// Package cuda runs stages on NVIDIA GPUs. It needs the NVIDIA driver and
// nothing else: the driver's library is opened when devices are asked for, and
// kernels ship as PTX that the driver compiles.
package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"drover/backend"
)

// device is one card, or one MIG instance of a card.
type device struct {
	driver *driver
	id     string // cuda:N, N as the driver counts
	handle uint64 // CUdevice

	card            *card        // NVML's view, or nil
	info            backend.Info // Driver, Link: once known; Free: not here
	cc              int          // compute capability: 80 is 8.0
	multiprocessors int
	l2              uint64 // bytes
	maxShared       int    // shared memory that a block may take, with leave, bytes
	dependent       bool   // programmatic dependent launch is possible

	granule uint64 // memory is given out in multiples of it

	modules modules
	opening sync.Mutex
	context atomic.Uint64          // the primary context, 0 until it is open; it stays until the process ends
	lost    atomic.Pointer[string] // what ended the context
}

const (
	minCC        = 75
	contextBytes = 256 << 20 // about what a context takes of the card's memory
)

// Devices lists the GPUs that can be used. Where there are none the error says
// why, as a *backend.Unusable; beside devices it joins one for each card that cannot
// be used.
func Devices() ([]backend.Device, error) {
	driver, err := openDriver()
	if err != nil {
		return nil, err
	}
	var f frame
	f.out(0, callArgs)
	if r := driver.invoke(driver.cuDeviceGetCount, 0, &f); r != success {
		return nil, driver.startError(r, "the NVIDIA driver")
	}
	count := int(int32(f.slots[callArgs]))
	if count == 0 {
		return nil, driver.startError(noDevice, "the NVIDIA driver")
	}
	var found []backend.Device
	var left []error
	for n := range count {
		d := &device{driver: driver, id: fmt.Sprintf("cuda:%d", n)}
		if err := d.describe(n); err != nil {
			left = append(left, d.leftOut(err))
			continue
		}
		found = append(found, d)
	}
	return found, errors.Join(left...)
}

// describe asks the driver what card n is, without opening a context on it.
func (d *device) describe(n int) error {
	f := args(0, uint64(n))
	f.out(0, callArgs)
	if err := d.ask("find it", d.driver.cuDeviceGet, &f); err != nil {
		return err
	}
	d.handle = uint64(uint32(f.slots[callArgs]))
	const (
		attributeMultiprocessors = 16
		attributeL2              = 38
		attributeMajor           = 75
		attributeMinor           = 76
		attributeMaxShared       = 97
	)
	var major, minor, l2 int
	for _, a := range []struct {
		which uint64
		value *int
	}{
		{attributeMultiprocessors, &d.multiprocessors}, {attributeL2, &l2}, {attributeMajor, &major}, {attributeMinor, &minor}, {attributeMaxShared, &d.maxShared},
	} {
		f := args(0, a.which, d.handle)
		f.out(0, callArgs)
		if err := d.ask(fmt.Sprintf("read attribute %d", a.which), d.driver.cuDeviceGetAttribute, &f); err != nil {
			return err
		}
		*a.value = int(int32(f.slots[callArgs]))
	}
	d.cc, d.l2 = 10*major+minor, uint64(max(l2, 0))
	d.dependent = d.cc >= 90 && d.driver.cuLaunchKernelEx != 0 && d.driver.version >= dependentVersion
	d.granule = d.memoryGranule()
	if err := d.identify(); err != nil {
		return err
	}
	if d.cc < minCC {
		return fmt.Errorf("%s has compute capability %d.%d, and %d.%d or newer is needed", d.info.Name, d.cc/10, d.cc%10, minCC/10, minCC%10)
	}
	return nil
}

// leftOut says that this card cannot be used.
func (d *device) leftOut(err error) error {
	u := &backend.Unusable{ID: d.id, Cause: err.Error(), Remedy: "see whether nvidia-smi shows the card; where it does not answer, restart the machine"}
	if d.cc > 0 && d.cc < minCC {
		u.Remedy = "use the CPU (--device cpu) or a newer card: drover has kernels for Turing (RTX 20, GTX 16, T4) and newer; CUDA_VISIBLE_DEVICES hides this one"
	}
	return u
}

// memoryGranule is what the card's memory is given out in. It is asked for by a
// CUmemAllocationProp: pinned memory of this device.
func (d *device) memoryGranule() uint64 {
	const pinned, onDevice, prop, minimum = 1, 1, callArgs + 1, 0
	f := args(0, 0, minimum)
	f.out(0, callArgs)
	f.out(1, prop)
	f.slots[prop], f.slots[prop+1] = pinned, onDevice|d.handle<<32
	if r := d.driver.invoke(d.driver.cuMemGetAllocationGranularity, 0, &f); r != success || f.slots[callArgs] == 0 {
		return realGranule
	}
	return f.slots[callArgs]
}

// ask calls a function that needs no context.
func (d *device) ask(what string, fn uintptr, f *frame) error {
	if r := d.driver.invoke(fn, 0, f); r != success {
		return fmt.Errorf("%s: %s", what, d.driver.text(r))
	}
	return nil
}

// identify reads the card's name, UUID and memory.
func (d *device) identify() error {
	const nameBytes = 128
	f := args(0, nameBytes, d.handle)
	f.out(0, callArgs)
	if err := d.ask("read the name", d.driver.cuDeviceGetName, &f); err != nil {
		return err
	}
	name, _, _ := bytes.Cut(f.bytes(callArgs, nameBytes), []byte{0})
	d.info = backend.Info{ID: d.id, Kind: "cuda", Name: string(name), ISA: d.tier(), Driver: "CUDA " + versionText(d.driver.version), Cores: d.multiprocessors, Simulated: d.driver.simulated}

	f = args(0, d.handle)
	f.out(0, callArgs)
	if err := d.ask("read the UUID", d.driver.cuDeviceGetUuid, &f); err != nil {
		return err
	}
	kind, u := "GPU", f.bytes(callArgs, 16)
	if strings.Contains(d.info.Name, " MIG ") {
		kind = "MIG" // an instance of a card has a UUID of its own
	}
	d.info.UUID = fmt.Sprintf("%s-%x-%x-%x-%x-%x", kind, u[:4], u[4:6], u[6:8], u[8:10], u[10:])

	f = args(0, d.handle)
	f.out(0, callArgs)
	if err := d.ask("read the memory", d.driver.cuDeviceTotalMem, &f); err != nil {
		return err
	}
	d.info.Total = f.slots[callArgs]

	m := openManagement()
	if m != nil && m.driver != "" {
		d.info.Driver = fmt.Sprintf("%s (%s)", m.driver, d.info.Driver)
	}
	d.card = m.card(d.info.UUID)
	d.info.Link = d.card.link()
	return nil
}

// tier is the newest kernels that the card and the driver can run.
func (d *device) tier() string {
	switch {
	case d.cc == 90 && d.driver.version >= sm90aVersion:
		return "sm_90a" // no newer card runs it
	case d.cc >= 90 && d.driver.version >= sm90Version:
		return "sm_90"
	case d.cc >= 80:
		return "sm_80"
	}
	return "sm_75"
}

// open retains the card's primary context, which takes about 100 ms and some
// hundred MiB of its memory. It stays until the process ends.
func (d *device) open() error {
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.context.Load() != 0 {
		return nil
	}
	f := args(0, d.handle)
	f.out(0, callArgs)
	switch r := d.driver.invoke(d.driver.cuDevicePrimaryCtxRetain, 0, &f); r {
	case success:
	case outOfMemory:
		return fmt.Errorf("open %s: %w", d.id, d.noRoom(contextBytes, d.card.free()))
	case deviceUnavailable:
		return &backend.Unusable{Cause: fmt.Sprintf("open %s: another process has the card for itself (compute mode exclusive): %s", d.id, d.driver.text(r)),
			Remedy: "end that process (nvidia-smi lists it), or let several have the card: sudo nvidia-smi -c 0"}
	default:
		return d.failed("open the device", r)
	}
	d.context.Store(f.slots[callArgs])
	return nil
}

// Info opens the card's context, so that Free is what is left for stages; a
// card that does not open has 0 free.
func (d *device) Info() backend.Info {
	i := d.info
	i.Free, _, _ = d.memory()
	return i
}

// Identity is the ID and UUID of Info, without opening a context.
func (d *device) Identity() (id, uuid string) { return d.id, d.info.UUID }

func (d *device) Sensors() backend.Sensors { return d.card.sensors() }
