//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"errors"
	"fmt"
	"unsafe"

	"drover/backend"
)

// Families of GPUs (MTLGPUFamily): what an M1 and an M3 have.
const (
	apple7 = 1007
	apple9 = 1009
)

// gpu is one GPU, its command queue and the pipelines compiled so far.
type gpu struct {
	id, queue object
	name      string
	family    int    // the highest that it has, 1000 + N of appleN
	working   uint64 // bytes that may be in use without slowing the system down
	longest   uint64 // bytes of the longest buffer
	shared    int    // bytes of threadgroup memory
}

// gpus lists the GPUs that can be used; the caller closes them.
func gpus() (found []*gpu, err error) {
	if err := openMetal(); err != nil {
		return nil, err
	}
	pooled(func() {
		all := objc.devices()
		defer all.release()
		for i := range int(all.send(sel.count)) {
			id := object(all.send(sel.objectAtIndex, uintptr(i)))
			g := &gpu{id: id, name: object(id.send(sel.name)).string(), working: uint64(id.send(sel.recommendedMaxWorkingSetSize)),
				longest: uint64(id.send(sel.maxBufferLength)), shared: int(id.send(sel.maxThreadgroupMemoryLength))}
			for f := apple7; f < apple9+8 && id.send(sel.supportsFamily, uintptr(f))&0xff != 0; f++ {
				g.family = f
			}
			if g.family == 0 || id.send(sel.hasUnifiedMemory)&0xff == 0 {
				err = errors.Join(err, &backend.Unusable{Cause: fmt.Sprintf("%s is not an Apple GPU (M1 or later)", g.name), Remedy: "use --device cpu: drover's kernels are for Apple's own GPUs"})
				continue
			}
			if g.queue = object(id.send(sel.newCommandQueue)); g.queue == 0 {
				err = errors.Join(err, &backend.Unusable{Cause: fmt.Sprintf("%s gives no command queue", g.name), Remedy: "end programs that use the GPU, or restart the Mac"})
				continue
			}
			id.send(sel.retain)
			found = append(found, g)
		}
	})
	return found, err
}

// free is what may still be taken, in bytes.
func (g *gpu) free() uint64 {
	used := uint64(g.id.send(sel.currentAllocatedSize))
	return g.working - min(g.working, used)
}

func (g *gpu) close() {
	g.queue.release()
	g.id.release()
}

// compile makes a library of MSL source.
func (g *gpu) compile(source string) (lib object, err error) {
	pooled(func() {
		options := object(classes.options.send(sel.new))
		defer options.release()
		options.send(sel.setFastMathEnabled, 0)
		const version3 = 3 << 16
		options.send(sel.setLanguageVersion, version3)
		lib, err = g.id.create("compile the kernels", sel.newLibrary, uintptr(nsString(source)), uintptr(options))
	})
	return lib, err
}

// pipeline is one kernel, ready to run.
type pipeline struct {
	id      object
	name    string
	threads int // most threads in a threadgroup
}

func (g *gpu) pipeline(lib object, name string) (p pipeline, err error) {
	pooled(func() {
		f := object(lib.send(sel.newFunction, uintptr(nsString(name))))
		if f == 0 {
			err = fmt.Errorf("BUG: metal: no kernel is called %s", name)
			return
		}
		defer f.release()
		var id object
		if id, err = g.id.create("make the pipeline of "+name, sel.newPipeline, uintptr(f)); err == nil {
			p = pipeline{id, name, int(id.send(sel.maxTotalThreadsPerThreadgroup))}
		}
	})
	return p, err
}

// buffer is memory that CPU and GPU share.
type buffer struct {
	id    object
	bytes uint64
	data  []byte // nil: in place, see segment
}

// take makes a buffer of n bytes, or fails with a *backend.MemoryError.
func (g *gpu) take(n uint64) (buffer, error) {
	if free := g.free(); n > free || n > g.longest {
		return buffer{}, &backend.MemoryError{Device: "metal", Need: n, Free: min(free, g.longest)}
	}
	const shared = 0 // MTLResourceStorageModeShared, hazards tracked
	id := object(g.id.send(sel.newBuffer, uintptr(n), shared))
	if id == 0 {
		return buffer{}, &backend.MemoryError{Device: "metal", Need: n, Free: g.free()}
	}
	p := id.send(sel.contents)
	return buffer{id, n, unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), n)}, nil
}

// inPlace makes a buffer of whole pages of memory that stays mapped as long as the
// buffer lives; id is 0 where the system cannot.
func (g *gpu) inPlace(p uintptr, n uint64) buffer {
	const shared, noDeallocator = 0, 0
	return buffer{object(g.id.send(sel.newBufferInPlace, p, uintptr(n), shared, noDeallocator)), n, nil}
}

func (b buffer) release() { b.id.release() }

// encoder writes dispatches into a command buffer.
type encoder struct {
	buffer, id object
	m          *message
}

// begin opens a command buffer; inside pooled.
func (g *gpu) begin(label string) encoder {
	b := object(g.queue.send(sel.commandBuffer))
	b.send(sel.setLabel, uintptr(nsString(label)))
	return encoder{b, object(b.send(sel.computeCommandEncoder)), &message{}}
}

// bind sets argument i to a buffer from byte off on.
func (e encoder) bind(i int, b buffer, off int) {
	e.send(sel.setBuffer, uintptr(b.id), uintptr(off), uintptr(i))
}

// constants sets argument i to a copy of at most 4 KiB.
func (e encoder) constants(i int, b []byte) {
	e.id.send(sel.setBytes, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(i))
}

// move sets the offset of argument i, which is bound.
func (e encoder) move(i, off int) { e.send(sel.setBufferOffset, uintptr(off), uintptr(i)) }

// use sets the kernel that run runs over threadgroups of so many threads.
func (e encoder) use(p pipeline) { e.send(sel.setPipeline, uintptr(p.id)) }

func (e encoder) run(groups, threads size) { e.sendSizes(sel.dispatch, groups, threads) }

func (e encoder) dispatch(p pipeline, groups, threads size) {
	e.use(p)
	e.run(groups, threads)
}

// end closes the encoder of a command buffer that is given up, commit of one that
// is to run.
func (e encoder) end() { e.id.send(sel.endEncoding) }

func (e encoder) commit() {
	e.end()
	e.buffer.send(sel.commit)
}

// wait waits for a committed command buffer; seconds is what the GPU took.
func (e encoder) wait(doing string) (seconds float64, err error) {
	e.buffer.send(sel.waitUntilCompleted)
	if err := nsError(doing, object(e.buffer.send(sel.err))); err != nil {
		return 0, err
	}
	return e.buffer.float(sel.gpuEndTime) - e.buffer.float(sel.gpuStartTime), nil
}

// finish commits the command buffer and waits for it.
func (e encoder) finish(doing string) (seconds float64, err error) {
	e.commit()
	return e.wait(doing)
}
