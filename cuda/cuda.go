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

	opening sync.Mutex
	context atomic.Uint64          // the primary context, 0 until it is open; it stays until the process ends
	lost    atomic.Pointer[string] // what ended the context
}

const minCC = 75

// Devices lists the GPUs that can be used. Where there are none the error says
// why; beside devices it says which cards are left out and why.
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
		d, err := driver.device(n)
		if err != nil {
			left = append(left, err)
			continue
		}
		found = append(found, d)
	}
	return found, errors.Join(left...)
}

// device describes card n without opening a context on it.
func (d *driver) device(n int) (*device, error) {
	id := fmt.Sprintf("cuda:%d", n)
	f := args(0, uint64(n))
	f.out(0, callArgs)
	if r := d.invoke(d.cuDeviceGet, 0, &f); r != success {
		return nil, fmt.Errorf("%s: %s", id, d.text(r))
	}
	dev := &device{driver: d, id: id, handle: uint64(uint32(f.slots[callArgs]))}
	if err := dev.describe(); err != nil {
		return nil, err
	}
	if dev.cc < minCC {
		return nil, fmt.Errorf("%s (%s) has compute capability %d.%d: %d.%d or newer is needed", id, dev.info.Name, dev.cc/10, dev.cc%10, minCC/10, minCC%10)
	}
	return dev, nil
}

// describe asks the driver what the card is.
func (d *device) describe() error {
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
		if r := d.driver.invoke(d.driver.cuDeviceGetAttribute, 0, &f); r != success {
			return fmt.Errorf("%s: read attribute %d: %s", d.id, a.which, d.driver.text(r))
		}
		*a.value = int(int32(f.slots[callArgs]))
	}
	d.cc, d.l2 = 10*major+minor, uint64(l2)
	d.dependent = d.cc >= 90 && d.driver.cuLaunchKernelEx != 0 && d.driver.version >= dependentVersion
	return d.identify()
}

// identify reads the card's name, UUID and memory.
func (d *device) identify() error {
	const nameBytes = 128
	f := args(0, nameBytes, d.handle)
	f.out(0, callArgs)
	if r := d.driver.invoke(d.driver.cuDeviceGetName, 0, &f); r != success {
		return fmt.Errorf("%s: read the name: %s", d.id, d.driver.text(r))
	}
	name, _, _ := bytes.Cut(f.bytes(callArgs, nameBytes), []byte{0})
	d.info = backend.Info{ID: d.id, Kind: "cuda", Name: string(name), ISA: d.tier(), Driver: "CUDA " + versionText(d.driver.version), Cores: d.multiprocessors}

	f = args(0, d.handle)
	f.out(0, callArgs)
	if r := d.driver.invoke(d.driver.cuDeviceGetUuid, 0, &f); r != success {
		return fmt.Errorf("%s: read the UUID: %s", d.id, d.driver.text(r))
	}
	kind, u := "GPU", f.bytes(callArgs, 16)
	if strings.Contains(d.info.Name, " MIG ") {
		kind = "MIG" // an instance of a card has a UUID of its own
	}
	d.info.UUID = fmt.Sprintf("%s-%x-%x-%x-%x-%x", kind, u[:4], u[4:6], u[6:8], u[8:10], u[10:])

	f = args(0, d.handle)
	f.out(0, callArgs)
	if r := d.driver.invoke(d.driver.cuDeviceTotalMem, 0, &f); r != success {
		return fmt.Errorf("%s: read the memory: %s", d.id, d.driver.text(r))
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
		return fmt.Errorf("open %s: %w", d.id, d.noRoom(0, 0))
	case deviceUnavailable:
		return fmt.Errorf("open %s: another process has the card for itself (compute mode exclusive): %s", d.id, d.driver.text(r))
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
