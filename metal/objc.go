//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"drover/backend"
)

// object is an Objective-C object; 0 is nil, which answers 0 to every message.
type object uintptr

// selector is a registered method name.
type selector uintptr

// objc is the Objective-C runtime and the Metal framework, opened once.
var objc struct {
	open sync.Once
	err  error

	message  uintptr // objc_msgSend, for integers and pointers
	float    func(object, selector) float64
	text     func(object, selector) string
	class    func(name string) object
	register func(name string) selector
	devices  func() object // MTLCopyAllDevices
}

// classes are those that receive messages themselves.
var classes struct{ str, pool, options object }

// sel has a field for every message of this package; open fills it.
var sel struct {
	new, retain, release, drain, count, objectAtIndex, stringWithUTF8String, utf8String selector

	localizedDescription, domain, code selector

	name, hasUnifiedMemory, supportsFamily, recommendedMaxWorkingSetSize, currentAllocatedSize, maxBufferLength,
	maxThreadgroupMemoryLength, newCommandQueue, newBuffer, newBufferInPlace, newLibrary, newPipeline selector

	setFastMathEnabled, setLanguageVersion, newFunction selector

	maxTotalThreadsPerThreadgroup, contents selector

	commandBuffer, computeCommandEncoder, commit, waitUntilCompleted, err, gpuStartTime, gpuEndTime, setLabel selector

	setPipeline, setBuffer, setBufferOffset, setBytes, dispatch, endEncoding selector
}

func selectors() map[*selector]string {
	s := &sel
	return map[*selector]string{
		&s.new: "new", &s.retain: "retain", &s.release: "release", &s.drain: "drain",
		&s.count: "count", &s.objectAtIndex: "objectAtIndex:", &s.stringWithUTF8String: "stringWithUTF8String:", &s.utf8String: "UTF8String",
		&s.localizedDescription: "localizedDescription", &s.domain: "domain", &s.code: "code",
		&s.name: "name", &s.hasUnifiedMemory: "hasUnifiedMemory", &s.supportsFamily: "supportsFamily:",
		&s.recommendedMaxWorkingSetSize: "recommendedMaxWorkingSetSize", &s.currentAllocatedSize: "currentAllocatedSize",
		&s.maxBufferLength: "maxBufferLength", &s.maxThreadgroupMemoryLength: "maxThreadgroupMemoryLength",
		&s.newCommandQueue: "newCommandQueue", &s.newBuffer: "newBufferWithLength:options:",
		&s.newBufferInPlace: "newBufferWithBytesNoCopy:length:options:deallocator:",
		&s.newLibrary:       "newLibraryWithSource:options:error:", &s.newPipeline: "newComputePipelineStateWithFunction:error:",
		&s.setFastMathEnabled: "setFastMathEnabled:", &s.setLanguageVersion: "setLanguageVersion:", &s.newFunction: "newFunctionWithName:",
		&s.maxTotalThreadsPerThreadgroup: "maxTotalThreadsPerThreadgroup",
		&s.contents:                      "contents",
		&s.commandBuffer:                 "commandBuffer", &s.computeCommandEncoder: "computeCommandEncoder", &s.commit: "commit",
		&s.waitUntilCompleted: "waitUntilCompleted", &s.err: "error",
		&s.gpuStartTime: "GPUStartTime", &s.gpuEndTime: "GPUEndTime", &s.setLabel: "setLabel:",
		&s.setPipeline: "setComputePipelineState:", &s.setBuffer: "setBuffer:offset:atIndex:", &s.setBufferOffset: "setBufferOffset:atIndex:",
		&s.setBytes:    "setBytes:length:atIndex:",
		&s.dispatch:    "dispatchThreadgroups:threadsPerThreadgroup:",
		&s.endEncoding: "endEncoding",
	}
}

// openMetal opens the runtime and the framework.
func openMetal() error {
	objc.open.Do(func() { objc.err = bind() })
	return objc.err
}

func bind() (err error) {
	defer func() { // RegisterLibFunc panics where a function is missing
		if r := recover(); r != nil {
			err = tooOld(fmt.Sprint("metal: ", r))
		}
	}()
	paths, err := libraries()
	if err != nil {
		return err
	}
	var libs [2]uintptr
	for i, path := range paths {
		if libs[i], err = purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
			return tooOld(fmt.Sprintf("metal: open %s: %v", path, err))
		}
	}
	if objc.message, err = purego.Dlsym(libs[0], "objc_msgSend"); err != nil {
		return fmt.Errorf("metal: %w", err)
	}
	purego.RegisterFunc(&objc.float, objc.message)
	purego.RegisterFunc(&objc.text, objc.message)
	purego.RegisterLibFunc(&objc.class, libs[0], "objc_getClass")
	purego.RegisterLibFunc(&objc.register, libs[0], "sel_registerName")
	purego.RegisterLibFunc(&objc.devices, libs[1], "MTLCopyAllDevices")
	for to, name := range selectors() {
		*to = objc.register(name)
	}
	for to, name := range map[*object]string{&classes.str: "NSString", &classes.pool: "NSAutoreleasePool", &classes.options: "MTLCompileOptions"} {
		if *to = objc.class(name); *to == 0 {
			return tooOld(fmt.Sprintf("metal: the Objective-C class %s is missing", name))
		}
	}
	return nil
}

// tooOld is the error of a system without something that macOS 13 has.
func tooOld(cause string) error {
	u := &backend.Unusable{Cause: cause, Remedy: "macOS 13 or later is needed"}
	if simulated {
		u.Remedy = "./build.sh metalsim makes the software Metal device, which DROVER_METAL_LIBRARY names"
	}
	return u
}

// send sends a message of integers and pointers.
//
//go:uintptrescapes
func (o object) send(s selector, args ...uintptr) uintptr {
	var a [12]uintptr
	a[0], a[1] = uintptr(o), uintptr(s)
	n := 2 + copy(a[2:], args)
	r, _, _ := purego.SyscallN(objc.message, a[:n]...)
	return r
}

// message is room for one message after the other, so that those of every dispatch
// allocate nothing; words and sizes lie in memory that does not move.
type message struct {
	words [12]uintptr
	sizes [2]size
}

// send sends a message of integers and pointers, none of them to Go's memory, to the
// encoder.
func (e encoder) send(s selector, args ...uintptr) {
	w := &e.m.words
	w[0], w[1] = uintptr(e.id), uintptr(s)
	n := 2 + copy(w[2:], args)
	purego.SyscallN(objc.message, w[:n]...)
}

func (o object) release() { o.send(sel.release) }

// float is the answer to a message that gives a double.
func (o object) float(s selector) float64 { return objc.float(o, s) }

// string is an NSString's text.
func (o object) string() string {
	if o == 0 {
		return ""
	}
	return objc.text(o, sel.utf8String)
}

// nsString is autoreleased; s is cut at a zero byte.
func nsString(s string) object {
	s, _, _ = strings.Cut(s, "\x00")
	b := append([]byte(s), 0)
	o := classes.str.send(sel.stringWithUTF8String, uintptr(unsafe.Pointer(&b[0])))
	runtime.KeepAlive(b)
	return object(o)
}

// pooled runs f on one thread, with a pool that takes what f's messages autorelease.
func pooled(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pool := object(classes.pool.send(sel.new))
	defer pool.send(sel.drain)
	f()
}

// Error is an NSError.
type Error struct {
	Doing  string
	Domain string
	Code   int
	Text   string // of a compiler's, with its lines
}

func (e *Error) Error() string {
	return fmt.Sprintf("metal: %s: %s (%s %d)", e.Doing, strings.TrimSpace(e.Text), e.Domain, e.Code)
}

// nsError turns an NSError into an *Error; nil into nil.
func nsError(doing string, o object) error {
	if o == 0 {
		return nil
	}
	return &Error{Doing: doing, Domain: object(o.send(sel.domain)).string(), Code: int(o.send(sel.code)),
		Text: object(o.send(sel.localizedDescription)).string()}
}

// create sends a message that makes an object, whose last argument is an NSError**.
func (o object) create(doing string, s selector, args ...uintptr) (object, error) {
	var failure object
	var pin runtime.Pinner
	pin.Pin(&failure)
	defer pin.Unpin()
	made := object(o.send(s, append(args, uintptr(unsafe.Pointer(&failure)))...))
	if made != 0 {
		return made, nil // warnings may be in failure
	}
	if err := nsError(doing, failure); err != nil {
		return 0, err
	}
	return 0, &Error{Doing: doing, Domain: "drover", Text: "Metal gives no reason"}
}

// size is an MTLSize.
type size struct{ w, h, d uintptr }
