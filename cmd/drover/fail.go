package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/model"
)

// Exit statuses (CLI.md).
const (
	exitRuntime     = 1
	exitUsage       = 2
	exitModel       = 3
	exitDevice      = 4
	exitMemory      = 5
	exitVerify      = 6
	exitInterrupted = 130
)

// failure is an error with its exit status and what --json says of it.
type failure struct {
	exit   int
	code   string // a short word for scripts
	hint   string // the remedy, or empty
	device string // the device concerned, or empty
	err    error
	partly map[string]any // what was reached before the error, beside "error" in JSON
	told   bool           // stdout already holds the output that tells of it
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usageError is exit status 2.
func usageError(hint, format string, args ...any) error {
	return &failure{exit: exitUsage, code: "usage", hint: hint, err: fmt.Errorf(format, args...)}
}

// modelError is exit status 3 for whatever keeps a model file from being read,
// but 2 for a synthetic spec that does not parse.
func modelError(err error) error {
	if err == nil || errors.Is(err, model.ErrSpec) || errors.As(err, new(*failure)) {
		return err
	}
	return &failure{exit: exitModel, code: "model", err: err}
}

// classify finds the exit status of any error.
func classify(err error) *failure {
	var f *failure
	var memory *backend.MemoryError
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, context.Canceled):
		return &failure{exit: exitInterrupted, code: "interrupted", err: errors.New("interrupted")}
	case errors.Is(err, model.ErrSpec), errors.Is(err, device.ErrSpec):
		return &failure{exit: exitUsage, code: "usage", err: err}
	case errors.Is(err, model.ErrBad):
		return &failure{exit: exitModel, code: "model", err: err}
	case errors.As(err, &memory):
		return &failure{exit: exitMemory, code: "memory", device: memory.Device, err: err,
			hint: "a smaller context (-c), a smaller cache format (-ctk q8_0 -ctv q8_0) or a smaller model takes less"}
	case errors.Is(err, backend.ErrMemory):
		return &failure{exit: exitMemory, code: "memory", err: err}
	case errors.Is(err, backend.ErrUnsupported):
		return &failure{exit: exitDevice, code: "device", err: err, hint: cmp.Or(device.Remedy(err), "drover devices shows what is here")}
	case errors.Is(err, device.ErrUnavailable), errors.Is(err, backend.ErrLost):
		return &failure{exit: exitDevice, code: "device", err: err, hint: cmp.Or(device.Remedy(err), "drover doctor checks what is here, and says what to do")}
	}
	return &failure{exit: exitRuntime, code: "runtime", err: err}
}

// report tells of the failure on out (JSON) or errs (text).
func (f *failure) report(asJSON bool, out, errs io.Writer) {
	if f.told || !asJSON {
		fmt.Fprintf(errs, "drover: %v\n", f.err)
		if f.hint != "" {
			fmt.Fprintf(errs, "        %s\n", f.hint)
		}
		return
	}
	doc := map[string]any{"schema": 1, "error": map[string]string{"code": f.code, "message": f.err.Error(), "hint": f.hint, "device": f.device}}
	for k, v := range f.partly {
		doc[k] = v
	}
	if writeJSON(out, doc) != nil {
		fmt.Fprintf(errs, "drover: %v\n", f.err)
	}
}

// wantJSON says whether the command's result is to be one JSON object.
func wantJSON(c *cli.Context) bool { return c.Bool("json") }

// writeJSON writes v and a newline.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
