//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"errors"
	"fmt"
	"unsafe"

	"drover/backend"
)

// queue writes the dispatches of a batch into command buffers, until one fails: of
// those that were committed it waits for the oldest before a third.
type queue struct {
	s     *stage
	enc   encoder // into the command buffer that is open, if one is
	label string  // of it
	block int     // under way
	units float64 // of work in it: rows of blocks
	slot  int     // of args, that the next dispatch takes

	normed bool // the next norm is done

	wanted, bound [arguments]binding // by the next dispatch; in the encoder
	pipeline      object             // likewise

	flight [2]command
	flying int
	err    error
}

// The arguments of kernels, by what they are; weights are the first of up to three.
const (
	argArgs, argWeights                           = 0, 1
	argScratch, argCache, argConstants, arguments = 4, 5, 6, 7
)

type binding struct {
	b  object
	at uint64
}

// command is a command buffer that was committed.
type command struct {
	enc   encoder
	label string
	units float64
}

// bind sets an argument of the dispatches that follow, in whichever command buffer.
func (q *queue) bind(i int, b buffer, at uint64) { q.wanted[i] = binding{b.id, at} }

// open begins a command buffer, if none is open.
func (q *queue) open() {
	if q.enc.id == 0 {
		q.label = fmt.Sprintf("a batch of %d rows from block %d on", q.s.pass.rows, q.block)
		q.enc = q.s.d.begin(q.label)
		q.bound, q.pipeline = [arguments]binding{}, 0
	}
}

// encode tells the encoder what the next dispatch wants and it does not have.
func (q *queue) encode(p *pipeline) {
	for i, want := range q.wanted {
		switch was := q.bound[i]; {
		case was == want:
		case was.b == want.b:
			q.enc.move(i, int(want.at))
		default:
			q.enc.bind(i, buffer{id: want.b}, int(want.at))
		}
	}
	q.bound = q.wanted
	if q.pipeline != p.id {
		q.pipeline = p.id
		q.enc.use(*p)
	}
}

// dispatch runs a kernel with args in the next slot.
func dispatch[T any](q *queue, p *pipeline, l launch, args *T) {
	if q.err != nil {
		return
	}
	from := bytesFrom(args)
	n := len(from)
	if n > argBytes {
		panic("BUG: arguments of " + p.name + " do not fit")
	}
	if q.slot == q.s.argSlots { // those before must be done with the slots
		q.finish()
		q.slot = 0
	}
	at := q.slot * argBytes
	q.slot++
	copy(q.s.argsBuffer.data[at:], from)
	q.bind(argArgs, q.s.argsBuffer, uint64(at))
	q.open()
	q.encode(p)
	q.enc.run(l.groups, l.threads)
}

// bytesFrom is a kernel's arguments as it reads them.
func bytesFrom[T any](args *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
}

// commit sends what was written off.
func (q *queue) commit() {
	if q.enc.id == 0 {
		return
	}
	if q.flying == len(q.flight) {
		q.wait()
	}
	q.enc.commit()
	q.flight[q.flying] = command{q.enc, q.label, q.units}
	q.flying++
	q.enc, q.units = encoder{}, 0
}

// wait waits for the oldest command buffer.
func (q *queue) wait() {
	c := q.flight[0]
	q.flight[0] = q.flight[1]
	q.flying--
	seconds, err := c.enc.wait("run " + c.label)
	if q.err == nil {
		q.err = q.s.d.failed(err, q.s.used)
	}
	if err == nil && c.units > 0 {
		q.s.unitSeconds = seconds / c.units
	}
}

// finish sends off what was written and waits for all.
func (q *queue) finish() {
	if q.err != nil {
		q.drop()
	}
	q.commit()
	for q.flying > 0 {
		q.wait()
	}
}

// drop gives up what was written and not sent off.
func (q *queue) drop() {
	if q.enc.id != 0 {
		q.enc.end()
		q.enc = encoder{}
	}
}

// commandSeconds is about how long a command buffer of a prompt takes: longer ones
// freeze the display, and much longer ones the system ends.
const commandSeconds = 0.1

// worked notes that units of work were written, and sends them off where that is
// enough: the first ones alone, since how long they take is not known.
func (q *queue) worked(units float64) {
	q.units += units
	if q.s.unitSeconds == 0 || (q.units+units)*q.s.unitSeconds > commandSeconds {
		q.commit()
	}
}

// failed makes an error of a command buffer's: MTLCommandBufferError.
func (d *device) failed(err error, used backend.Need) error {
	const accessRevoked, outOfMemory, deviceRemoved = 4, 8, 11
	var e *Error
	if !errors.As(err, &e) || e.Domain != "MTLCommandBufferErrorDomain" {
		return err
	}
	switch e.Code {
	case accessRevoked, deviceRemoved:
		return fmt.Errorf("%w: %w", backend.ErrLost, err)
	case outOfMemory:
		return fmt.Errorf("%w: %w", &backend.MemoryError{Device: "metal", Need: used.Total(), Free: d.free()}, err)
	}
	return err
}
