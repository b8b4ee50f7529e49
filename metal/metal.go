//go:build (darwin && arm64) || (linux && amd64 && metalsim)

// Package metal runs stages on Apple GPUs through the Metal framework, which comes
// with macOS: no Xcode, no cgo. Kernels ship as source that the system compiles.
package metal

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"drover/backend"
	"drover/internal/quant"
)

// device is one GPU. It stays until the process ends, and so does what was compiled
// for it.
type device struct {
	*gpu

	compiling sync.Mutex
	libraries map[string]*library // by source
}

// Devices lists the GPUs that can be used; where there are none the error says
// why.
func Devices() ([]backend.Device, error) {
	found, err := gpus()
	if len(found) == 0 {
		if err == nil {
			err = errors.New("no Apple GPU is here")
		}
		return nil, err
	}
	var all []backend.Device
	for _, g := range found {
		all = append(all, &device{gpu: g, libraries: map[string]*library{}})
	}
	return all, nil
}

// Info describes the GPU. Its memory is the computer's, of which Total is what a GPU
// may use without slowing the system down.
func (d *device) Info() backend.Info {
	return backend.Info{ID: "metal", Kind: "metal", Name: d.name, ISA: fmt.Sprintf("apple%d", d.family-1000), Total: d.working, Free: d.free(), Simulated: simulated}
}

// Sensors has none: macOS tells them to the administrator alone.
func (d *device) Sensors() backend.Sensors { return backend.Sensors{} }

// Need says what Load would take.
func (d *device) Need(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error) {
	return Need(backend.Info{Simulated: simulated}, m, runs, l)
}

// Converts says what the package's function of that name says.
func (d *device) Converts(t quant.Type) bool { return Converts(t) }

// library is the kernels of one source, by name.
type library struct {
	once      sync.Once
	pipelines map[string]*pipeline
	err       error
}

// library compiles a source, unless that was done before; the pipelines are made
// concurrently.
func (d *device) library(source string, names []string) (map[string]*pipeline, error) {
	d.compiling.Lock()
	l := d.libraries[source]
	if l == nil {
		l = &library{}
		d.libraries[source] = l
	}
	d.compiling.Unlock()
	l.once.Do(func() { l.pipelines, l.err = d.pipelines(source, names) })
	return l.pipelines, l.err
}

func (d *device) pipelines(source string, names []string) (map[string]*pipeline, error) {
	lib, err := d.compile(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(names, ", "), err)
	}
	defer lib.release()
	made, errs := make([]pipeline, len(names)), make([]error, len(names))
	var running sync.WaitGroup
	for i, name := range names {
		running.Go(func() { made[i], errs[i] = d.pipeline(lib, name) })
	}
	running.Wait()
	all := map[string]*pipeline{}
	for i, name := range names {
		all[name] = &made[i]
	}
	return all, errors.Join(errs...)
}
