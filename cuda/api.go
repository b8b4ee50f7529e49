//go:build (linux && cgo) || windows

package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"drover/backend"
)

// A method makes its device's context current in the call itself, so any
// goroutine may call it from any thread. Every error names the device; after
// one that ends the context all errors are backend.ErrLost.

// call runs one function of the driver in the device's context. what says what
// was tried, for the error.
func (d *device) call(what string, fn uintptr, f *frame) error {
	if d.context.Load() == 0 {
		if err := d.open(); err != nil {
			return err
		}
	}
	if r := d.driver.invoke(fn, uintptr(d.context.Load()), f); r != success {
		return d.failed(what, r)
	}
	return nil
}

// failed makes a result an error, and the device lost if nothing more will work.
func (d *device) failed(what string, r result) error {
	if first := d.lost.Load(); first != nil {
		return fmt.Errorf("%s: %s: %w: after: %s", d.id, what, backend.ErrLost, *first)
	}
	text := d.driver.text(r)
	switch {
	case r.lasting():
		if d.lost.CompareAndSwap(nil, &text) {
			return &backend.Unusable{Cause: fmt.Sprintf("%s: %s: %s: %v", d.id, what, text, backend.ErrLost), Remedy: lostRemedy(r), Err: backend.ErrLost}
		}
		return fmt.Errorf("%s: %s: %w: after: %s", d.id, what, backend.ErrLost, *d.lost.Load())
	case r == outOfMemory:
		return fmt.Errorf("%s: %w", what, d.noRoom(0, d.freeNow()))
	}
	return fmt.Errorf("%s: %s: %s", d.id, what, text)
}

// noRoom is the error of a card that has free bytes where need are wanted, or
// some of unknown number (0). It names who has most of the rest.
func (d *device) noRoom(need, free uint64) error {
	var err error = &backend.MemoryError{Device: d.id, Need: max(need, free), Free: free}
	if others := d.card.processes(); len(others) > 0 {
		p := others[0]
		if p.name == "" {
			p.name = "a process"
		}
		err = fmt.Errorf("%w; %.1f GiB are used by %s (pid %d)", err, float64(p.bytes)/(1<<30), p.name, p.pid)
	}
	return err
}

// freeNow is the free memory where that can be read, else 0.
func (d *device) freeNow() uint64 {
	var f frame
	f.out(0, callArgs)
	f.out(1, callArgs+1)
	if d.driver.invoke(d.driver.cuMemGetInfo, uintptr(d.context.Load()), &f) != success {
		return 0
	}
	return f.slots[callArgs]
}

// memory is the card's free memory and all of it, in bytes.
func (d *device) memory() (free, total uint64, err error) {
	var f frame
	f.out(0, callArgs)
	f.out(1, callArgs+1)
	err = d.call("read free memory", d.driver.cuMemGetInfo, &f)
	return f.slots[callArgs], f.slots[callArgs+1], err
}

// alloc takes n bytes of the card's memory, aligned to 256 or more. Error:
// backend.ErrMemory, a *backend.MemoryError, where they are not free.
func (d *device) alloc(n uint64) (uint64, error) {
	f := args(0, n)
	f.out(0, callArgs)
	err := d.call("allocate memory", d.driver.cuMemAlloc, &f)
	if errors.Is(err, backend.ErrMemory) {
		return 0, d.noRoom(n, d.freeNow())
	}
	return f.slots[callArgs], err
}

func (d *device) free(p uint64) error {
	f := args(p)
	return d.call("free memory", d.driver.cuMemFree, &f)
}

// hostAlloc takes n bytes of the computer's memory, pinned: copies between it
// and any device run beside the caller and at the link's speed.
func (d *device) hostAlloc(n int) ([]byte, error) {
	const portable = 1
	f := args(0, uint64(n), portable)
	f.out(0, callArgs)
	if err := d.call(fmt.Sprintf("pin %d bytes of the computer's memory", n), d.driver.cuMemHostAlloc, &f); err != nil {
		if errors.Is(err, backend.ErrMemory) {
			return nil, fmt.Errorf("%s: the computer has no %d bytes of memory to pin", d.id, n)
		}
		return nil, err
	}
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&f.slots[callArgs]))), n), nil
}

// hostFree gives back what hostAlloc gave.
func (d *device) hostFree(b []byte) error {
	f := frame{host: unsafe.Pointer(unsafe.SliceData(b))}
	return d.call("free pinned memory", d.driver.cuMemFreeHost, &f)
}

// stream is a queue of work on a device: what is put there runs in order, and
// beside other streams.
type stream struct {
	d         *device
	handle    uint64
	dependent bool // launches may begin before their predecessor has ended: kernels wait by griddepcontrol
}

// stream makes one that does not wait for the default stream.
func (d *device) stream() (*stream, error) {
	const nonBlocking = 1
	f := args(0, nonBlocking)
	f.out(0, callArgs)
	if err := d.call("create a stream", d.driver.cuStreamCreate, &f); err != nil {
		return nil, err
	}
	return &stream{d: d, handle: f.slots[callArgs]}, nil
}

// copyIn queues a copy to the device. From pinned memory it is read when the
// copy's turn comes, so src stays as it is until then.
func (s *stream) copyIn(dst uint64, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	f := args(dst, 0, uint64(len(src)), s.handle)
	f.host, f.hostAt = unsafe.Pointer(unsafe.SliceData(src)), 1
	return s.d.call("copy to the device", s.d.driver.cuMemcpyHtoDAsync, &f)
}

// copyOut queues a copy to dst, pinned memory; it is there after sync.
func (s *stream) copyOut(dst []byte, src uint64) error {
	if len(dst) == 0 {
		return nil
	}
	f := args(0, src, uint64(len(dst)), s.handle)
	f.host = unsafe.Pointer(unsafe.SliceData(dst))
	return s.d.call("copy from the device", s.d.driver.cuMemcpyDtoHAsync, &f)
}

// copyOn queues a copy of n bytes within the device.
func (s *stream) copyOn(dst, src, n uint64) error {
	if n == 0 {
		return nil
	}
	f := args(dst, src, n, s.handle)
	return s.d.call("copy on the device", s.d.driver.cuMemcpyDtoDAsync, &f)
}

// fill queues n bytes of value at dst.
func (s *stream) fill(dst uint64, value byte, n uint64) error {
	if n == 0 {
		return nil
	}
	f := args(dst, uint64(value), n, s.handle)
	return s.d.call("fill memory", s.d.driver.cuMemsetD8Async, &f)
}

// launch queues a kernel over grid blocks of block threads with shared bytes of
// dynamic shared memory. args points to the kernel's one parameter, a struct
// without Go pointers, which is read during the call.
func (s *stream) launch(k *kernel, grid [3]uint32, block, shared uint32, args unsafe.Pointer) error {
	d := s.d
	f := frame{host: args, hostAt: paramSlot}
	if s.dependent && d.dependent {
		f.slots[0], f.slots[1], f.slots[2] = configSlot, k.handle, paramSlot
		f.refs = 1<<0 | 1<<2
		launchConfig(&f, grid, block, shared, s.handle)
		return d.launched(k, d.driver.cuLaunchKernelEx, &f)
	}
	f.slots[0] = k.handle
	f.slots[1], f.slots[2], f.slots[3] = uint64(grid[0]), uint64(grid[1]), uint64(grid[2])
	f.slots[4], f.slots[5], f.slots[6] = uint64(block), 1, 1
	f.slots[7], f.slots[8] = uint64(shared), s.handle
	f.slots[9] = paramSlot
	f.refs = 1 << 9
	return d.launched(k, d.driver.cuLaunchKernel, &f)
}

// Slots of a launch beyond the arguments: the array of parameter addresses (of
// one), a CUlaunchConfig (56 bytes) and its one CUlaunchAttribute (72 bytes).
const (
	paramSlot     = callArgs
	configSlot    = paramSlot + 1
	attributeSlot = configSlot + 7
)

// launchConfig writes the configuration of cuLaunchKernelEx: seven 32-bit
// numbers, the stream, the attributes and their count.
func launchConfig(f *frame, grid [3]uint32, block, shared uint32, stream uint64) {
	const programmaticStreamSerialization = 6
	pair := func(lo, hi uint32) uint64 { return uint64(lo) | uint64(hi)<<32 }
	config := f.slots[configSlot:attributeSlot]
	config[0], config[1] = pair(grid[0], grid[1]), pair(grid[2], block)
	config[2], config[3] = pair(1, 1), uint64(shared)
	config[4], config[5], config[6] = stream, attributeSlot, 1
	f.refs |= 1 << (configSlot + 5)
	f.slots[attributeSlot] = programmaticStreamSerialization
	f.slots[attributeSlot+1] = 1
}

// launched calls a launch function; only a failure makes its text.
func (d *device) launched(k *kernel, fn uintptr, f *frame) error {
	if r := d.driver.invoke(fn, uintptr(d.context.Load()), f); r != success {
		return d.failed("launch "+k.name, r)
	}
	return nil
}

// sync waits for all that was queued. Errors of kernels appear here.
func (s *stream) sync() error {
	f := args(s.handle)
	return s.d.call("wait", s.d.driver.cuStreamSynchronize, &f)
}

func (s *stream) close() error {
	f := args(s.handle)
	return s.d.call("close a stream", s.d.driver.cuStreamDestroy, &f)
}

// begin starts a capture: what is queued until end becomes a graph and does not
// run. The capture is relaxed: in the other modes end must come from the same
// thread, and a goroutine may change threads.
func (s *stream) begin() error {
	const relaxed = 2
	f := args(s.handle, relaxed)
	return s.d.call("begin a capture", s.d.driver.cuStreamBeginCapture, &f)
}

// graph is captured work, ready to be replayed.
type graph struct {
	d      *device
	handle uint64
}

// end makes a graph of what was captured.
func (s *stream) end() (*graph, error) {
	d := s.d
	f := args(s.handle)
	f.out(1, callArgs)
	if err := d.call("end a capture", d.driver.cuStreamEndCapture, &f); err != nil {
		return nil, err
	}
	captured := f.slots[callArgs]
	f = args(0, captured, 0)
	f.out(0, callArgs)
	err := d.call("make a graph", d.driver.cuGraphInstantiate, &f)
	g := &graph{d: d, handle: f.slots[callArgs]}
	f = args(captured)
	if e := d.call("free a captured graph", d.driver.cuGraphDestroy, &f); err == nil && e != nil {
		err = errors.Join(e, g.close())
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// replay queues a graph.
func (s *stream) replay(g *graph) error {
	f := args(g.handle, s.handle)
	return s.d.call("replay a graph", s.d.driver.cuGraphLaunch, &f)
}

func (g *graph) close() error {
	f := args(g.handle)
	return g.d.call("close a graph", g.d.driver.cuGraphExecDestroy, &f)
}

// event is a point in a stream's work.
type event struct {
	d      *device
	handle uint64
}

func (d *device) event() (*event, error) {
	f := args(0, 0)
	f.out(0, callArgs)
	if err := d.call("create an event", d.driver.cuEventCreate, &f); err != nil {
		return nil, err
	}
	return &event{d: d, handle: f.slots[callArgs]}, nil
}

// record puts e after what was queued so far.
func (s *stream) record(e *event) error {
	f := args(e.handle, s.handle)
	return s.d.call("record an event", s.d.driver.cuEventRecord, &f)
}

// since is the time between two events that were reached.
func (e *event) since(earlier *event) (seconds float64, err error) {
	f := args(0, earlier.handle, e.handle)
	f.out(0, callArgs)
	if err := e.d.call("read the time between events", e.d.driver.cuEventElapsedTime, &f); err != nil {
		return 0, err
	}
	return float64(*(*float32)(unsafe.Pointer(&f.slots[callArgs]))) / 1000, nil
}

func (e *event) close() error {
	f := args(e.handle)
	return e.d.call("close an event", e.d.driver.cuEventDestroy, &f)
}

// module is kernels loaded from PTX.
type module struct {
	d      *device
	handle uint64
}

// module compiles PTX for the card (the driver keeps the result on disk) and
// loads it. The error has what the compiler said.
func (d *device) module(ptx []byte) (*module, error) {
	const (
		optionErrorLog, optionErrorLogBytes = 5, 6 // CU_JIT_ERROR_LOG_BUFFER, ..._SIZE_BYTES
		logBytes                            = 8192
	)
	image := append(bytes.Clone(ptx), 0)
	log := make([]byte, logBytes)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&log[0])
	const options, values = callArgs + 1, callArgs + 2
	f := args(0, 0, 2)
	f.host, f.hostAt = unsafe.Pointer(&image[0]), 1
	f.out(0, callArgs)
	f.out(3, options)
	f.out(4, values)
	f.slots[options] = optionErrorLog | optionErrorLogBytes<<32
	f.slots[values], f.slots[values+1] = uint64(uintptr(unsafe.Pointer(&log[0]))), logBytes
	if err := d.call("load a module", d.driver.cuModuleLoadDataEx, &f); err != nil {
		said, _, _ := bytes.Cut(log, []byte{0})
		if said = bytes.TrimSpace(said); len(said) > 0 {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		return nil, err
	}
	return &module{d: d, handle: f.slots[callArgs]}, nil
}

func (m *module) close() error {
	f := args(m.handle)
	return m.d.call("close a module", m.d.driver.cuModuleUnload, &f)
}

// kernel is a function of a module.
type kernel struct {
	d      *device
	handle uint64
	name   string
}

func (m *module) kernel(name string) (*kernel, error) {
	cname := append([]byte(name), 0)
	f := args(0, m.handle)
	f.host, f.hostAt = unsafe.Pointer(&cname[0]), 2
	f.out(0, callArgs)
	if err := m.d.call("find kernel "+name, m.d.driver.cuModuleGetFunction, &f); err != nil {
		return nil, err
	}
	return &kernel{d: m.d, handle: f.slots[callArgs], name: name}, nil
}

// allowShared lets launches take up to bytes of dynamic shared memory, also
// more than the 48 KiB that need no leave.
func (k *kernel) allowShared(bytes int) error {
	const maxDynamicShared = 8
	f := args(k.handle, maxDynamicShared, uint64(bytes))
	return k.d.call("raise the shared memory of "+k.name, k.d.driver.cuFuncSetAttribute, &f)
}
