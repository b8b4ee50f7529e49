package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/device"
	"drover/internal/verify"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "hold the devices that run a model to the reference, block by block",
		UsageText: "drover verify [-m MODEL] [--device LIST] [--against ref|cpu] [--full]",
		Description: "Sends prompts, single tokens and two sequences in turn through the blocks of a model, on the devices on\n" +
			"which run would have them, and compares every op with the reference, which is plain and slow: of large\n" +
			"models some layers are verified, in half a minute or so. docs/verify.md says what is compared with what.\n" +
			"Exit status 6: something is beyond its tolerance.",
		Flags: append([]cli.Flag{
			stringFlag(catVerify, "", "against", "ref", "`WHAT` the devices are held to: ref, or cpu, which is faster and less exact"),
			boolFlag(catVerify, "", "full", false, "all layers, not some"),
			intFlag(catVerify, "", "seed", 1, "of the tokens, which are random", "s"),
		}, sessionFlags(0)...),
		Action: runVerify,
	}
}

const catVerify = "VERIFYING"

func runVerify(c *cli.Context) (err error) {
	if err := wrongArgs(c, 0); err != nil {
		return err
	}
	if c.Int("seed") < 0 {
		return usageError("1 is the default", "flag --seed: %d is negative", c.Int("seed"))
	}
	if a := c.String("against"); a != "ref" && a != "cpu" {
		return usageError("ref and cpu are possible", "flag --against: unknown value %q", a)
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	bar := newProgress(c.App.ErrWriter, "verifying "+s.file.Path)
	defer bar.end()
	s.place(c, c.Int("ctx-size"), bar)
	plan, err := s.placer.plan(c.Context, nil)
	if err != nil {
		return err
	}
	o := verify.Options{Full: c.Bool("full"), Seed: uint64(c.Int("seed")), Context: plan.Limits.Context, Batch: plan.Limits.Rows,
		K: s.compute.K, V: s.compute.V, Progress: bar.step}
	var places []verify.Place
	for _, p := range plan.Places {
		places = append(places, verify.Place{Device: p.Device, Runs: p.Runs})
	}
	if err := s.against(c, places, &o); err != nil {
		return err
	}
	r, err := verify.Run(c.Context, s.file.Model, places, o)
	if err != nil {
		return referenceError(err)
	}
	bar.end()
	return s.tellVerified(c, r)
}

// against sets what the places are held to.
func (s *session) against(c *cli.Context, places []verify.Place, o *verify.Options) error {
	found, err := device.Find("cpu", deviceOptions(s.compute))
	if err != nil {
		return deviceError("cpu", err)
	}
	if c.String("against") == "ref" {
		o.Memory = found[0].Info().Free
		return nil
	}
	o.Against = found[0]
	if !slices.ContainsFunc(places, func(p verify.Place) bool { return p.Device.Info().Kind != "cpu" }) {
		return usageError("--against ref holds it to the reference", "--against cpu: nothing but the CPU carries the model, and would be held to itself")
	}
	return nil
}

// referenceError gives a lack of memory for the reference its own remedy.
func referenceError(err error) error {
	var memory *backend.MemoryError
	if errors.As(err, &memory) && memory.Device == "ref" {
		return &failure{exit: exitMemory, code: "memory", device: "ref", err: err,
			hint: "the reference has a block's weights in float32: end programs that use memory, or use --against cpu beside a GPU"}
	}
	return err
}

// verifiedDoc is verify's JSON object.
type verifiedDoc struct {
	Schema  int              `json:"schema"`
	Model   modelDoc         `json:"model"`
	Plan    any              `json:"plan"`
	Against string           `json:"against"`
	Seed    uint64           `json:"seed"`
	Layers  []int            `json:"layers"`       // that were verified
	Of      int              `json:"model_layers"` // how many the model has
	Rows    int              `json:"rows"`
	Length  int              `json:"positions"`
	Blocks  []verifyBlockDoc `json:"blocks"`
	Logits  verifyLogitsDoc  `json:"logits"`
	First   *verifyOpDoc     `json:"first_wrong"`
	Worst   *verifyOpDoc     `json:"worst"`
	Notes   []string         `json:"notes"`
	OK      bool             `json:"ok"`
}

type verifyBlockDoc struct {
	Block      int           `json:"block"`
	Name       string        `json:"name"`
	Layer      *int          `json:"layer,omitempty"`
	Device     string        `json:"device"`
	Arithmetic string        `json:"arithmetic"`
	Ops        []verifyOpDoc `json:"ops"`
	OK         bool          `json:"ok"`
}

// verifyOpDoc is an op; block and device stand where it is not within a block.
type verifyOpDoc struct {
	Block   string   `json:"block,omitempty"`
	Device  string   `json:"device,omitempty"`
	Op      string   `json:"op"`
	Fused   bool     `json:"fused"`
	Tensors []string `json:"tensors,omitempty"`
	Types   []string `json:"types,omitempty"`
	NMSE    *float64 `json:"nmse"` // of the row that is furthest off; null: no number
	Limit   float64  `json:"nmse_limit"`
	Where   string   `json:"where"`
	Rows    int      `json:"rows"`
	OK      bool     `json:"ok"`
}

type verifyLogitsDoc struct {
	Rows          int                  `json:"rows"`
	NMSE          *float64             `json:"nmse"`
	Limit         float64              `json:"nmse_limit"`
	Together      *float64             `json:"together_nmse"`
	TogetherLimit float64              `json:"together_nmse_limit"`
	KL            *float64             `json:"kl_mean"`
	KLMost        *float64             `json:"kl_max"`
	Top1          int                  `json:"top1"`
	Unclear       int                  `json:"unclear_rows"`
	Divergence    *verifyDivergenceDoc `json:"divergence"`
	Greedy        string               `json:"greedy,omitempty"`
	OK            bool                 `json:"ok"`
}

type verifyDivergenceDoc struct {
	Where   string  `json:"where"`
	Token   int32   `json:"token"`
	Wanted  int32   `json:"wanted"`
	Gap     float64 `json:"gap"`
	NearTie bool    `json:"near_tie"`
}

// number is x for JSON, which has none that is not one.
func number(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func verifyOp(f *verify.Finding, within bool) *verifyOpDoc {
	if f == nil {
		return nil
	}
	o := f.Op
	doc := &verifyOpDoc{Op: o.Op.String(), Fused: !o.Traced, Tensors: o.Tensors, NMSE: number(o.NMSE), Limit: o.Limit, Where: o.Where, Rows: o.Rows, OK: o.OK}
	for _, t := range o.Types {
		doc.Types = append(doc.Types, t.String())
	}
	if !within {
		doc.Block, doc.Device = f.Block.Name, f.Block.Device
	}
	return doc
}

func (s *session) verifiedDoc(c *cli.Context, r *verify.Report) *verifiedDoc {
	l := &r.Logits
	doc := &verifiedDoc{Schema: 1, Model: describeModel(s.file), Plan: s.placer.current(), Against: c.String("against"), Seed: r.Seed, Layers: r.Layers, Of: r.Of,
		Rows: r.Rows, Length: r.Positions, First: verifyOp(r.First, false), Worst: verifyOp(r.Worst, false), Notes: append([]string{}, r.Notes...), OK: r.OK,
		Logits: verifyLogitsDoc{Rows: l.Rows, NMSE: number(l.NMSE), Limit: l.Limit, Together: number(l.Together), TogetherLimit: l.TogetherLimit,
			KL: number(l.KL), KLMost: number(l.KLMost), Top1: l.Top1, Unclear: l.Unclear, Greedy: l.Greedy, OK: l.OK}}
	if d := l.Diverges; d != nil {
		doc.Logits.Divergence = &verifyDivergenceDoc{d.Where, d.Got, d.Want, d.Gap, d.Gap <= d.Tie}
	}
	for _, k := range r.Blocks {
		b := verifyBlockDoc{Block: k.Block, Name: k.Name, Device: k.Device, Arithmetic: k.Arithmetic, OK: k.OK, Ops: []verifyOpDoc{}}
		if k.Layer >= 0 && k.Layer < r.Of {
			b.Layer = &k.Layer
		}
		for _, o := range k.Ops {
			b.Ops = append(b.Ops, *verifyOp(&verify.Finding{Block: k, Op: o}, true))
		}
		doc.Blocks = append(doc.Blocks, b)
	}
	return doc
}

// tellVerified writes the report, and gives the error of what is wrong.
func (s *session) tellVerified(c *cli.Context, r *verify.Report) error {
	f := &failure{exit: exitVerify, code: "verify", err: errors.New(r.Wrong()),
		hint: "drover doctor checks the device with small models; run verify again with another --seed: what comes and goes is a faulty device"}
	if r.First != nil {
		f.device = r.First.Block.Device
	}
	doc := s.verifiedDoc(c, r)
	if wantJSON(c) && r.OK {
		return writeJSON(c.App.Writer, doc)
	}
	if wantJSON(c) {
		f.partly = map[string]any{"model": doc.Model, "plan": doc.Plan, "against": doc.Against, "seed": doc.Seed, "layers": doc.Layers, "model_layers": doc.Of, "rows": doc.Rows,
			"positions": doc.Length, "blocks": doc.Blocks, "logits": doc.Logits, "first_wrong": doc.First, "worst": doc.Worst, "notes": doc.Notes, "ok": false}
		return f
	}
	if err := writeVerified(c.App.Writer, doc, r); err != nil || r.OK {
		return err
	}
	return f
}

func writeVerified(w io.Writer, doc *verifiedDoc, r *verify.Report) error {
	var b strings.Builder
	which := fmt.Sprintf("all layers (%d)", r.Of)
	if len(r.Layers) < r.Of {
		which = fmt.Sprintf("%d of %d layers in a row (%s; --full: all)", len(r.Layers), r.Of, commas(r.Layers))
	}
	fmt.Fprintf(&b, "%s against %s: %s, %d rows in prompts and single steps, up to position %d, seed %d\n", doc.Model.Name, doc.Against, which, r.Rows, r.Positions-1, r.Seed)
	for _, k := range r.Blocks {
		worst := k.Ops[0]
		for _, o := range k.Ops {
			if !(o.NMSE/o.Limit <= worst.NMSE/worst.Limit) {
				worst = o
			}
		}
		fmt.Fprintf(&b, "%s  %-24s %-8s %-9v NMSE %.1e, at most %.0e\n", verdict(k.OK), k.Name, k.Device, worst.Op, worst.NMSE, worst.Limit)
		if !k.OK {
			fmt.Fprintf(&b, "      %s%s\n", worst.Where, reads(worst))
		}
	}
	l := &r.Logits
	fmt.Fprintf(&b, "%s  %-24s NMSE %.1e, at most %.0e; together as alone: %.1e, at most %.0e\n", verdict(l.OK), "logits of all blocks", l.NMSE, l.Limit, l.Together, l.TogetherLimit)
	fmt.Fprintf(&b, "      KL divergence %.1e nats, at most %.1e; the likeliest token is the same in %d of %d rows\n", l.KL, l.KLMost, l.Top1, l.Rows)
	if d := l.Diverges; d != nil {
		tie := ""
		if d.Gap <= d.Tie {
			tie = ", a near tie"
		}
		fmt.Fprintf(&b, "      first another in %s: %d instead of %d, logits %.2g apart%s\n", d.Where, d.Got, d.Want, d.Gap, tie)
	}
	if l.Unclear > 0 {
		fmt.Fprintf(&b, "      against the reference they are not judged: in %d rows the choice of experts hangs by a hair\n", l.Unclear)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note  %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// reads names the tensors that an op reads.
func reads(o *verify.Op) string {
	if len(o.Tensors) == 0 {
		return "; reads the cache"
	}
	return "; reads " + strings.Join(o.Tensors, ", ")
}

func verdict(ok bool) string {
	if ok {
		return "pass"
	}
	return "FAIL"
}

func commas(all []int) string {
	var texts []string
	for _, n := range all {
		texts = append(texts, fmt.Sprint(n))
	}
	return strings.Join(texts, ", ")
}
