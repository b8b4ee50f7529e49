package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/engine"
	"drover/internal/model"
	"drover/internal/sched"
	"drover/internal/token"
)

// sessionFlags are those of every command that computes with a model:
// contextSize is the default of -c.
func sessionFlags(contextSize int) []cli.Flag {
	return append([]cli.Flag{
		modelFlag(),
		deviceFlag(),
		intFlag(catModel, "", "ctx-size", contextSize, "most positions of a text (0: the model's, shrunk to fit)", "c"),
		boolFlag(catModel, "", "fit", true, "shrink the context where it does not fit"),
		floatFlag(catModel, "", "rope-freq-base", 0, "base of the rotary embedding (0: the model's)"),
		floatFlag(catModel, "", "rope-freq-scale", 0, "factor on its frequencies, 0.5 for twice the context (0: the model's)"),
		boolFlag(catModel, "", "mmap", true, "map the file; =false reads all of it into memory first"),
		boolFlag(catModel, "", "mlock", false, "keep the model in memory (Linux)"),
		boolFlag(catGeneral, "", "verbose", false, "show plan, prediction and timings on stderr; a device that was not yet is measured first"),
	}, computeFlags("")...)
}

// session is a model and what it takes to compute with it.
type session struct {
	demo    bool
	file    *model.File
	tokens  *token.Tokenizer // after vocab; nil where the model has none
	machine *machine
	compute compute
	verbose bool
	notes   io.Writer // stderr

	engine *engine.Engine // after load
	placer *placer
	load   time.Duration // of the load, without planning
}

// openSession checks the flags of sessionFlags and opens device and model, but loads
// nothing yet.
func openSession(c *cli.Context) (*session, error) {
	s := &session{demo: c.String("model") == "", verbose: c.Bool("verbose"), notes: c.App.ErrWriter}
	var err error
	if s.compute, err = readCompute(c); err != nil {
		return nil, err
	}
	if n := c.Int("ctx-size"); n < 0 || n > math.MaxInt32 {
		return nil, usageError("0 means the model's own", "flag --ctx-size: %d is not a number of positions", n)
	}
	spec := c.String("device")
	if spec == "all" {
		return nil, usageError("only bench takes all devices in turn; here a list is one plan: cuda:0,cpu", "flag --device: all")
	}
	if s.machine, err = findMachine(c, spec, s.compute, s.notes, s.verbose); err != nil {
		return nil, err
	}
	if s.file, err = openModel(c, c.String("model"), c.Bool("mmap")); err != nil {
		return nil, err
	}
	trained := s.file.Model.Config.Context
	if c.Int("ctx-size") > trained {
		fmt.Fprintf(s.notes, "the model was trained for texts of %d tokens: longer ones may make no sense\n", trained)
	}
	if err := setRope(&s.file.Model.Config.Rope, c.Float64("rope-freq-base"), c.Float64("rope-freq-scale")); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// setRope overrides the model's rotary embedding as llama.cpp's flags of these
// names do; 0 leaves the model's.
func setRope(r *backend.Rope, base, scale float64) error {
	if base != 0 {
		if !(base > 0) || math.IsInf(base, 0) {
			return usageError("10000 is Llama 2's", "flag --rope-freq-base: %v is not a base", base)
		}
		r.Base = base
	}
	if scale != 0 {
		if !(scale > 0) || math.IsInf(1/scale, 0) || math.IsInf(scale, 0) {
			return usageError("0.5 stretches the context to twice its length", "flag --rope-freq-scale: %v is not a factor", scale)
		}
		r.Factor = 1 / scale
		if r.Scaling == backend.ScaleNone && scale != 1 {
			r.Scaling = backend.ScaleLinear
		}
	}
	return nil
}

// errNoVocab: the model computes with ids only.
var errNoVocab = errors.New("it cannot read or write text")

// vocab makes the model's tokenizer. Errors: errNoVocab, or what is wrong with
// the vocabulary.
func (s *session) vocab() (*token.Tokenizer, error) {
	if s.tokens != nil {
		return s.tokens, nil
	}
	config := s.file.Vocab()
	if config.Model == "" {
		return nil, usageError("give ids with --tokens, and --json", "%s has no vocabulary: %w", s.file.Path, errNoVocab)
	}
	var err error
	if s.tokens, err = token.New(config); err != nil {
		return nil, modelError(fmt.Errorf("%s: %w", s.file.Path, err))
	}
	return s.tokens, nil
}

// start loads the model for texts of context positions; 0: the model's own,
// shrunk to fit.
func (s *session) start(c *cli.Context, context int) error {
	bar := newProgress(c.App.ErrWriter, "loading "+s.file.Path)
	defer bar.end()
	began := time.Now()
	s.place(c, context, bar)
	var err error
	if s.engine, err = engine.Load(c.Context, s.file.Model, s.placer.plan, bar.step); err != nil {
		return err
	}
	s.load = time.Since(began) - s.placer.took
	bar.end()
	if p := s.placer.current(); p.Wanted > p.Context {
		fmt.Fprintf(s.notes, "the context is %d of the model's %d positions: more does not fit into memory\n", p.Context, p.Wanted)
	}
	if s.verbose {
		fmt.Fprintf(s.notes, "loaded in %.2f s\n", s.load.Seconds())
	}
	if c.Bool("mlock") {
		return lockMemory()
	}
	return nil
}

// place makes the placer of start.
func (s *session) place(c *cli.Context, context int, notes io.Writer) {
	m := s.file.Model
	asked := planning{compute: s.compute, context: context, fit: c.Bool("fit"), sequences: 1, request: sched.Usual()}
	s.placer = &placer{machine: s.machine, model: m, asked: asked, wishes: asked.wishes(c, m), notes: notes, verbose: s.verbose, auto: c.String("device") == "auto",
		title: fmt.Sprintf("%s: %s, %s, %.2f G weights", s.file.Path, m.Config.Arch, s.file.TypeName, float64(s.file.Params)/1e9)}
	s.machine.speeds.notes = notes
}

// close frees everything.
func (s *session) close() error {
	var err error
	if s.engine != nil {
		err = s.engine.Close()
	}
	return errors.Join(err, s.file.Close())
}

// modelDoc is a model in JSON.
type modelDoc struct {
	Name   string `json:"name"`
	Arch   string `json:"arch"`
	Type   string `json:"type"`
	Params uint64 `json:"params"`
	Bytes  uint64 `json:"bytes"`
}

func describeModel(f *model.File) modelDoc {
	doc := modelDoc{Name: f.Path, Type: f.TypeName, Params: f.Params, Bytes: f.Bytes}
	if f.Model != nil {
		doc.Arch = f.Model.Config.Arch
		if name := strings.TrimSpace(f.Model.Config.Name); name != "" {
			doc.Name = name
		}
	}
	return doc
}
