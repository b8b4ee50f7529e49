// Package sched decides which device carries which blocks of a model, and says
// why. It computes from descriptions alone: what devices are (backend.Info), how
// fast (backend.Rates) and what a stage would take there (Need). It opens no
// device, loads nothing and measures nothing; the same questions have the same
// answers on every machine.
//
// A plan is as fast as any for one request: a prompt and some tokens after it.
// Its time is a sum over blocks and over the borders between devices, which
// makes it a shortest path whose length is bounded by the devices' memory:
// chain.go finds the best plan of one run a device, bound.go how good any plan
// could be at most, and search.go whatever lies between the two.
package sched

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"drover/backend"
	"drover/internal/quant"
)

// MaxDevices is the most devices that Place takes.
const MaxDevices = 16

// Device is a device as the scheduler sees it.
type Device struct {
	Info  backend.Info
	Rates backend.Rates
	Speed map[quant.Type]float64 // of decoding weights, by format: so much faster than Rates say; left out: 1
	// Need is the memory of a stage in bytes. It must be pure and depend on how many
	// blocks of each kind there are, not on which of them. Weights and Cache of
	// blocks must add up, but for a matrix that embedding and head share; Scratch
	// and Host must depend on which kinds there are alone, and only grow with them,
	// but for rounding by less than Granule and a Host that is less for all blocks.
	Need func(m *backend.Model, runs []backend.Range, l backend.Limits) (backend.Need, error)
	// Converts says which weight formats the device has no kernels for; nil: none.
	Converts func(quant.Type) bool
}

// Granule is the most, in bytes, by which a Need may be rounded up.
const Granule = 2 << 20

// Limits is how much a model is asked to carry.
type Limits struct {
	Context int                              // most positions of a sequence
	Asked   string                           // who asks for so many, as plans say it: "model", "flag"
	Least   int                              // the context may shrink down to this; Context: it may not
	Host    uint64                           // free memory of the computer in bytes, where the CPU is not among the devices; 0: unknown
	At      func(context int) backend.Limits // a stage's limits for a context of so many positions
}

// Wishes is what a person said of the placement. The zero value says nothing,
// but for GPULayers: -1 does.
type Wishes struct {
	GPULayers    int       // so many of the last layers, and the head, on GPUs, the others on the CPU; above the model's: all
	Split        []float64 // shares of the layers, one a device in their order; whole layers, embedding first, head last
	ExpertsOnCPU int       // the feed-forwards of so many first layers on the CPU; for mixtures of experts
	Strict       bool      // nothing on the CPU
	Request      Request   // what to be fast at; the zero value is Usual
}

// Request is what a plan is made for, in tokens.
type Request struct {
	Depth    int // already in the cache
	Prompt   int // read at once
	Generate int // decoded one by one
}

// Usual is the request that plans are made for if nobody says otherwise: that of
// `bench`.
func Usual() Request { return Request{Prompt: 512, Generate: 128} }

// ErrWish: the wishes cannot be met on these devices, whatever their memory.
var ErrWish = errors.New("placement not possible")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrWish, fmt.Sprintf(format, args...))
}

// A context that nobody asked for shrinks down to usualContext before another
// device is used for it, or speed is lost; slower by up to slack does not count.
const usualContext, slack = 4096, 1.05

// hostSpare keeps 1/hostSpare of the computer's free memory for others where the
// size of the context is ours to choose.
const hostSpare = 16

// Place finds the fastest plan for the request that fits. Where the context may
// shrink it is the longest that needs no further device and costs no more than 5 %
// of the speed. A device alone may be without rates: nothing is predicted then.
// Errors: ErrWish; a *backend.MemoryError with what is missing on one device, to
// 1 MiB; those of Need; rates that are missing.
func Place(devices []Device, m *backend.Model, l Limits, w Wishes) (*Plan, error) {
	t, err := newTask(devices, m, l, w)
	if err != nil {
		return nil, err
	}
	return t.choose()
}

// task is what Place was asked.
type task struct {
	devices []Device
	m       *backend.Model
	l       Limits
	w       Wishes
	allowed []uint32 // by block: the devices that may carry it, a bit each
	blocks  *kinds
	blind   bool // the only device has no rates
}

func newTask(devices []Device, m *backend.Model, l Limits, w Wishes) (*task, error) {
	t := &task{devices: devices, m: m, l: l, w: w, blocks: newKinds(m)}
	if t.w.Request == (Request{}) {
		t.w.Request = Usual()
	}
	if len(devices) == 0 || len(devices) > MaxDevices {
		return nil, refuse("%d devices, from 1 to %d can be planned for", len(devices), MaxDevices)
	}
	if len(devices) == 1 && devices[0].Rates.Read == 0 {
		t.blind, t.devices = true, slices.Clone(devices)
		t.devices[0].Rates = backend.Rates{Read: 1e9, Matrix: 1e9} // of any, the same is the fastest
	}
	for i := range t.devices {
		if err := checkRates(&t.devices[i]); err != nil {
			return nil, err
		}
	}
	var err error
	t.allowed, err = allow(devices, &m.Config, w)
	return t, err
}

// checkRates wants the rates that every cost needs.
func checkRates(d *Device) error {
	r := &d.Rates
	for _, c := range []struct {
		name  string
		value float64
		least bool // it must be there
	}{{"read", r.Read, true}, {"matrix", r.Matrix, true}, {"float", r.Float, false}, {"copy", r.Copy, false}, {"link", r.Link, false}, {"launch", r.Launch, false}, {"latency", r.Latency, false}} {
		if c.value < 0 || math.IsNaN(c.value) || math.IsInf(c.value, 0) || c.least && c.value == 0 {
			return fmt.Errorf("%s: its %s rate is %v: measure it with `drover devices --measure`", d.Info.ID, c.name, c.value)
		}
	}
	return nil
}

// choose finds the context, and the plan for it.
func (t *task) choose() (*Plan, error) {
	wanted := t.l.Context
	if t.l.Least >= wanted {
		p, err := t.at(wanted, 0)
		return t.found(p, wanted, err)
	}
	floor := min(wanted, usualContext)
	least, err := t.at(floor, hostSpare)
	for short := errors.Is(err, backend.ErrMemory); short && floor > t.l.Least; short = errors.Is(err, backend.ErrMemory) {
		floor = max(t.l.Least, floor/2)
		least, err = t.at(floor, hostSpare)
	}
	if err != nil {
		least, err = t.at(floor, 0)
		return t.found(least, floor, err)
	}
	good := func(context int) *Plan {
		if p, err := t.at(context, hostSpare); err == nil && p.cost <= slack*least.cost && p.carriers()&^least.carriers() == 0 {
			return p
		}
		return nil
	}
	if p := good(wanted); p != nil {
		return p, nil
	}
	const step = 4 * backend.PageRows
	lo, hi, best := floor/step, (wanted+step-1)/step, least
	for lo+1 < hi {
		mid := (lo + hi) / 2
		if p := good(mid * step); p != nil {
			lo, best = mid, p
		} else {
			hi = mid
		}
	}
	return best, nil
}

// found adds to a memory error how much is missing.
func (t *task) found(p *Plan, context int, err error) (*Plan, error) {
	if errors.Is(err, backend.ErrMemory) {
		return nil, t.shortfall(context)
	}
	return p, err
}

// shortfall is by how much the device with the most memory is too small: that it
// had just enough is tried with halves.
func (t *task) shortfall(context int) error {
	most := 0
	for i := range t.devices {
		if d := &t.devices[i].Info; d.Free > t.devices[most].Info.Free && t.carries(i) || !t.carries(most) {
			most = i
		}
	}
	with := func(more uint64) error {
		u := *t
		u.devices = append([]Device(nil), t.devices...)
		u.devices[most].Info.Free += more
		u.devices[most].Info.Total = max(u.devices[most].Info.Total, u.devices[most].Info.Free)
		if u.l.Host > 0 {
			u.l.Host += more
		}
		_, err := u.at(context, 0)
		return err
	}
	free := t.devices[most].Info.Free
	lo, hi := uint64(0), uint64(1)<<20
	for ; with(hi) != nil; hi *= 2 {
		if lo = hi; hi > 1<<50 {
			return refuse("no device has the memory that its share takes")
		}
	}
	for lo+1<<20 < hi {
		if mid := (lo + hi) / 2; with(mid) == nil {
			hi = mid
		} else {
			lo = mid
		}
	}
	return &backend.MemoryError{Device: t.devices[most].Info.ID, Need: free + hi, Free: free}
}

// carries says whether a device may carry any layer.
func (t *task) carries(device int) bool {
	for _, a := range t.allowed[1:] {
		if a>>device&1 == 1 {
			return true
		}
	}
	return false
}

// errNoRoom is replaced by a shortfall before a caller sees it.
var errNoRoom = fmt.Errorf("no placement fits: %w", backend.ErrMemory)

// at is the plan for one context; ErrMemory if there is none. spare keeps
// 1/spare of the computer's memory unused.
func (t *task) at(context int, spare uint64) (*Plan, error) {
	s, err := newSearch(t, t.l.At(context), spare)
	if err != nil {
		return nil, err
	}
	where, err := s.solve()
	if err != nil {
		return nil, err
	}
	return s.plan(where)
}

// IsWish reports whether the error is of the wishes, and gives its text without
// the kind.
func IsWish(err error) (string, bool) {
	if !errors.Is(err, ErrWish) {
		return "", false
	}
	return strings.TrimPrefix(err.Error(), ErrWish.Error()+": "), true
}
