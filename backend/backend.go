// Package backend is the contract between the engine and the devices. It says
// what a device carries (a stage: runs of a model's blocks), what goes in (a
// batch of rows) and what comes out. It knows no device: cuda, metal and cpu
// import it, never the reverse.
package backend

import (
	"context"
	"errors"
	"fmt"

	"drover/internal/quant"
)

// PageRows is the number of positions in a cache page.
const PageRows = 64

// Device is one thing that can run blocks: a GPU, or the CPU with one kernel
// set.
type Device interface {
	// Info describes the device. Free is as of the call.
	Info() Info
	// Measure times the device for about a second.
	Measure(ctx context.Context) (Rates, error)
	// Sensors reads power, clocks and temperature where the system tells.
	Sensors() Sensors
	// Need is the memory that Load would take. It is a pure function of Info.
	Need(m *Model, runs []Range, l Limits) (Need, error)
	// Load puts runs of blocks on the device, all or nothing. progress, if not
	// nil, is called with bytes done and in total, from one goroutine at a time.
	// Errors: ErrMemory, ErrUnsupported, ErrLost, a Source's error, ctx's error.
	Load(ctx context.Context, m *Model, runs []Range, l Limits, progress func(done, total uint64)) (Stage, error)
}

// Stage is what one device carries of a model. It is used by one goroutine at
// a time; different stages may run at once.
type Stage interface {
	// Forward sends the batch through run (an index into Load's runs) and
	// returns when the results are complete. ctx is checked between blocks;
	// after cancellation the batch's cache rows are undefined.
	Forward(ctx context.Context, run int, b *Batch) error
	Close() error
}

// Range is the blocks [Lo, Hi). Block 0 is the embedding, 1+2l the attention
// and 2+2l the feed-forward of layer l, 1+2*Layers the head.
type Range struct{ Lo, Hi int }

// Need is memory in bytes: Weights, Cache and Scratch on the device, Host
// beside it in the computer's memory (for the CPU, Host is 0).
type Need struct{ Weights, Cache, Scratch, Host uint64 }

// Total is the device's share of a Need.
func (n Need) Total() uint64 { return n.Weights + n.Cache + n.Scratch }

// Limits bounds what a stage will be asked; its memory follows from them.
type Limits struct {
	Pages   int        // cache pages, PageRows positions each
	Rows    int        // most rows in a batch
	Seqs    int        // most sequences in a batch
	Context int        // most positions in a sequence
	Outs    int        // most rows with results
	K, V    quant.Type // cache formats: F32, F16 or Q8_0 (blocks of 32 within a head)
}

// Batch is rows of one or more sequences, and what is wanted of them.
type Batch struct {
	Tokens []int32   // (rows)
	Pos    []int32   // (rows) position in the sequence; a sequence's positions ascend by one
	Seqs   []Seq     // rows of one sequence are consecutive
	Hidden []float32 // (rows, dim): in unless the run begins with embed, out unless it ends with head
	Out    []int32   // rows whose results are wanted, ascending
	Logits []float32 // (len(Out), vocab), or nil

	// Top > 0 asks for the Top largest logits of each row of Out: TopIDs and
	// TopLogits (len(Out), Top), largest first, ties by lower id, and LogSum
	// (len(Out)), the log of the sum of exponentials over the whole row.
	Top               int
	TopIDs            []int32
	TopLogits, LogSum []float32

	Norm  []float32                           // (len(Out), dim) rows after the final norm, or nil
	Trace func(layer int, op Op, x []float32) // verify and tests only; x is valid during the call
}

// Seq is one sequence's part of a batch.
type Seq struct {
	Rows  int     // how many rows of the batch are its
	Pages []int32 // page i holds positions [i*PageRows, (i+1)*PageRows); -1: wholly before every window, never read
}

// Op names a point of the forward pass, for Trace.
type Op uint8

// The points in the order in which they are passed. Layer is -1 for OpEmbed,
// and Layers for OpNorm and OpLogits.
const (
	OpEmbed     Op = iota // (rows, dim) token embeddings
	OpQ                   // (rows, heads*headDim) queries after RoPE
	OpK                   // (rows, kvHeads*headDim) keys after RoPE, before the cache's rounding
	OpV                   // (rows, kvHeads*headDim) values
	OpAttention           // (rows, heads*headDim) attention before the output matrix
	OpAttnOut             // (rows, dim) hidden state after the attention block
	OpAct                 // (rows, ffn) gated activation; absent for mixtures of experts
	OpFFNOut              // (rows, dim) hidden state after the feed-forward block
	OpNorm                // (outs, dim) rows of Out after the final norm
	OpLogits              // (outs, vocab)
)

func (o Op) String() string {
	names := [...]string{"embed", "q", "k", "v", "attention", "attn_out", "act", "ffn_out", "norm", "logits"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// Info describes a device.
type Info struct {
	ID     string // as --device names it: "cpu", "cuda:0", "metal"
	Kind   string // "cpu", "cuda", "metal"
	Name   string // as its maker calls it
	UUID   string // stable across restarts and reordering, or empty
	ISA    string // the kernel set in use: generic avx2 avxvnni avx512 amx neon i8mm, sm_80, apple7
	Driver string // driver version, or empty
	Link   string // how it is attached: "PCIe 4.0 x16", or empty
	Cores  int    // physical cores, multiprocessors
	Total  uint64 // memory, bytes
	Free   uint64 // memory, bytes, as of the call

	Simulated bool // a software device: its time says nothing about a real one
}

// Rates is what Measure finds.
type Rates struct {
	Read   float64                // bytes/s read by all units together
	Copy   float64                // bytes/s read plus written
	Matrix float64                // operations/s (a multiply and an add are two) of the prompt kernels
	Float  float64                // the same in float32, as attention computes, and the CPU with float weights; 0: not measured
	Format map[quant.Type]float64 // bytes/s of weights in decode, per format measured
	Launch float64                // seconds to launch one kernel (CPU: one barrier)
	Link   float64                // bytes/s from the host, 0 where there is no link

	Latency float64 // seconds that a crossing of the link takes beside its bytes; 0: not measured

	Layers   map[quant.Type][]LayerTime // per format timed, the smallest first; nil: none
	Mixtures []MixtureTime              // layers with experts that were timed
}

// Work is operations, a multiply and an add being two.
type Work struct {
	Quantised float64 // products with quantised weights
	Float     float64 // products with float weights
	Attention float64 // queries by keys, weights by values
}

// Plus is the sum of two works.
func (w Work) Plus(v Work) Work {
	return Work{w.Quantised + v.Quantised, w.Float + v.Float, w.Attention + v.Attention}
}

// Times is n works of one kind.
func (w Work) Times(n float64) Work { return Work{n * w.Quantised, n * w.Float, n * w.Attention} }

// Seconds is how long the work takes a device of a kind ("cpu", ...) by its arithmetic
// alone, +Inf where there is some whose rate is not known. The CPU multiplies with float
// weights in float32, as it computes attention; GPUs do in their matrix units.
func (r *Rates) Seconds(kind string, w Work) float64 {
	rate := r.Float
	if rate == 0 {
		rate = r.Matrix
	}
	matrix, float := w.Quantised+w.Float, w.Attention
	if kind == "cpu" {
		matrix, float = w.Quantised, w.Float+w.Attention
	}
	seconds := 0.0
	if matrix > 0 {
		seconds = matrix / r.Matrix
	}
	if float > 0 {
		seconds += float / rate
	}
	return seconds
}

// LayerTime is how long a layer takes that has so many weights, all in one format.
type LayerTime struct {
	Weights float64 // of its matrices
	Decode  float64 // seconds of one row at the start of a sequence
	Prompt  float64 // seconds of the first 512 rows
}

// MixtureTime is how long a layer with experts takes, every matrix in one format but
// the router. Weights are those that a row is multiplied by: all of attention's, and of
// the experts in use.
type MixtureTime struct {
	Mixture
	LayerTime
}

// Mixture says which layers with experts take the same time.
type Mixture struct {
	Format        quant.Type
	Dim, FFN      int
	Experts, Used int
}

// MixtureOf is the mixture of a shape with experts, in a format.
func MixtureOf(c *Config, t quant.Type) Mixture {
	return Mixture{t, c.Dim, c.FFN, c.Experts, c.ExpertsUsed}
}

// Mixture is the time of a layer with experts of this shape and format, nil where it
// was not timed.
func (r *Rates) Mixture(c *Config, t quant.Type) *LayerTime {
	for i := range r.Mixtures {
		if r.Mixtures[i].Mixture == MixtureOf(c, t) {
			return &r.Mixtures[i].LayerTime
		}
	}
	return nil
}

// Sensors is what the system tells; nil where it does not.
type Sensors struct {
	Watts, Celsius, MHz *float64
	Limit               *float64 // watts that the device may take
	Joules              *float64 // taken since some moment of the past; only grows
	Throttle            []string // why it runs slower than it could, empty: it does not; nil: not told
}

// ErrMemory: it does not fit. The error is a *MemoryError.
var ErrMemory = errors.New("out of memory")

// ErrLost: the device is gone and its stages with it.
var ErrLost = errors.New("device lost")

// ErrUnsupported: the device cannot run this model, whatever its memory.
var ErrUnsupported = errors.New("not supported by this device")

// MemoryError is ErrMemory with the figures, in bytes.
type MemoryError struct {
	Device     string
	Need, Free uint64
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("%s: needs %.1f MiB and %.1f MiB are free", e.Device, float64(e.Need)/(1<<20), float64(e.Free)/(1<<20))
}

func (e *MemoryError) Is(target error) bool { return target == ErrMemory }
