// Package doctor checks that a device computes what it should, through the
// contract alone: it loads small models, sends prompts and single tokens, and
// compares with the reference. It knows no device; what keeps one from being
// found is told by internal/device.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"drover/backend"
)

// Status is what came of a check.
type Status string

const (
	Pass   Status = "pass"
	Fail   Status = "fail"   // it is here and does not work, or is wrong
	Absent Status = "absent" // there is nothing of the kind to check
	Advice Status = "advice" // right, and could be better
)

// Check is one thing that was looked at.
type Check struct {
	Device string // as --device names it
	Kind   string // cpu, cuda, metal
	Name   string // find, memory, "prompt Q4_0", "decode Q4_0", "greedy Q4_0", or of advice
	Status Status
	Detail string
	Hint   string // the remedy, or empty
	Err    error  // of a failed check that ended with one

	NMSE, Limit float64 // of a prompt or decode that gave results
}

// patience is how long a device may take for all checks. A cold start compiles
// every kernel, some seconds; software devices take longer.
const patience = 2 * time.Minute

// Doctor has what devices are compared with.
type Doctor struct {
	trials   []*trial
	patterns *patterns
	patience time.Duration
}

// New makes the models and what the reference says of them, about a second of
// one core.
func New(ctx context.Context) (*Doctor, error) {
	d := &Doctor{patience: patience}
	var err error
	if d.patterns, err = newPatterns(); err != nil {
		return nil, err
	}
	all := subjects()
	d.trials = make([]*trial, len(all))
	errs := make([]error, len(all))
	var running sync.WaitGroup
	for i, s := range all {
		running.Go(func() { d.trials[i], errs[i] = newTrial(ctx, s) })
	}
	running.Wait()
	return d, errors.Join(errs...)
}

// Examine checks a device. A device that does not come back is left behind, with
// the goroutine that waits for it.
func (d *Doctor) Examine(ctx context.Context, id, kind string, dev backend.Device) []Check {
	done := make(chan []Check, 1)
	go func() {
		e := &examination{dev: dev, id: id, kind: kind}
		defer func() {
			if p := recover(); p != nil {
				e.fail("find", fmt.Errorf("internal error: %v", p)).Hint = "please report it"
			}
			done <- e.checks
		}()
		e.all(ctx, d)
	}()
	select {
	case checks := <-done:
		return checks
	case <-time.After(d.patience):
		return []Check{{Device: id, Kind: kind, Name: "find", Status: Fail, Detail: fmt.Sprintf("no answer within %v", d.patience), Hint: restart(kind)}}
	}
}

// examination is the checks of one device so far.
type examination struct {
	dev      backend.Device
	id, kind string
	checks   []Check
}

func (e *examination) all(ctx context.Context, d *Doctor) {
	i := e.dev.Info()
	about := fmt.Sprintf("%s, %s", i.Name, i.ISA)
	if i.Driver != "" {
		about += ", driver " + i.Driver
	}
	e.pass("find", fmt.Sprintf("%s, %s of %s free", about, gib(i.Free), gib(i.Total)))
	if !e.memory(ctx, d.patterns) {
		return
	}
	for _, t := range d.trials {
		if !e.trial(ctx, t) {
			return
		}
	}
}

func (e *examination) pass(name, detail string) *Check {
	e.checks = append(e.checks, Check{Device: e.id, Kind: e.kind, Name: name, Status: Pass, Detail: detail})
	return &e.checks[len(e.checks)-1]
}

// fail records an error, with what the device says to do about it or else what
// its kind is helped by.
func (e *examination) fail(name string, err error) *Check {
	e.checks = append(e.checks, Check{Device: e.id, Kind: e.kind, Name: name, Status: Fail, Detail: err.Error(), Hint: remedy(e.kind, err), Err: err})
	return &e.checks[len(e.checks)-1]
}

func remedy(kind string, err error) string {
	var memory *backend.MemoryError
	switch hint := backend.Remedy(err); {
	case hint != "":
		return hint
	case errors.As(err, &memory) && kind == "cuda":
		return "end what uses the card's memory (nvidia-smi lists it), or leave the card out with --device"
	case errors.As(err, &memory):
		return "end programs that use memory"
	case errors.Is(err, backend.ErrLost):
		return restart(kind)
	case errors.Is(err, context.Canceled):
		return ""
	}
	return restart(kind)
}

// restart is for a device that does not work for a reason that it does not tell.
func restart(kind string) string {
	switch kind {
	case "cuda":
		return "see whether nvidia-smi shows the card, and the kernel's log (sudo dmesg | grep Xid); restart the machine; where it stays, update the NVIDIA driver"
	case "metal":
		return "restart the Mac; where it stays, update macOS"
	}
	return "run it again; where it stays, please report it"
}

// wrong is for results that are not what they should be.
func wrong(kind string) string {
	switch kind {
	case "cuda":
		return "run it again: what comes and goes is a faulty card, overclocking or its power (nvidia-smi -q -d ECC,PERFORMANCE); what stays the same may be the driver: update it, or report this line"
	case "metal":
		return "run it again after updating macOS; where it stays, please report this line"
	}
	return "run it again: what comes and goes is faulty memory or an overclocked CPU; with DROVER_CPU=generic other kernels run; please report what stays"
}

func gib(n uint64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
