package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/urfave/cli/v2"

	"drover/backend"
	"drover/internal/chat"
	"drover/internal/demo"
	"drover/internal/gguf"
	"drover/internal/model"
	"drover/internal/quant"
	"drover/internal/token"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:        "inspect",
		Usage:       "show what is in a model file, and what is wrong with it",
		UsageText:   "drover inspect [FILE]",
		Description: "The file is read and checked, never computed with. Exit status 3 means that drover cannot run it.",
		Flags:       []cli.Flag{modelFlag()},
		Action:      inspect,
	}
}

// inspectDoc is a model file in JSON.
type inspectDoc struct {
	Schema   int            `json:"schema"`
	Model    modelDoc       `json:"model"`
	File     *fileDoc       `json:"file"`  // null for synthetic models
	Shape    *shapeDoc      `json:"shape"` // null where the file holds no model that drover runs
	Metadata []metadataDoc  `json:"metadata"`
	Tensors  []tensorDoc    `json:"tensors"`
	Formats  map[string]int `json:"formats"` // tensors of each format
	Problems []string       `json:"problems"`
}

type fileDoc struct {
	Path    string `json:"path"`
	Format  string `json:"format"`
	Version uint32 `json:"version"`
	Parts   int    `json:"parts"`
	Bytes   uint64 `json:"bytes"`
}

type shapeDoc struct {
	Dim         int `json:"dim"`
	Layers      int `json:"layers"`
	Heads       int `json:"heads"`
	KVHeads     int `json:"kv_heads"`
	HeadDim     int `json:"head_dim"`
	FFN         int `json:"ffn"`
	Vocab       int `json:"vocab"`
	Context     int `json:"context"`
	Window      int `json:"window"`
	Experts     int `json:"experts"`
	ExpertsUsed int `json:"experts_used"`
}

type metadataDoc struct {
	Key   string `json:"key"`
	Type  string `json:"type"`
	Value string `json:"value"` // long texts and arrays cut short
}

type tensorDoc struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Shape []uint64 `json:"shape"` // the fastest dimension first, as GGUF has it
	Bytes uint64   `json:"bytes"`
}

func inspect(c *cli.Context) error {
	if err := wrongArgs(c, 1); err != nil {
		return err
	}
	spec := c.String("model")
	if c.NArg() == 1 {
		if given(c, "model") {
			return usageError("drover inspect FILE", "two models: %s and --model", c.Args().First())
		}
		spec = c.Args().First()
	}
	doc, unusable, err := inspectModel(c, spec)
	if err != nil {
		return err
	}
	if wantJSON(c) {
		err = writeJSON(c.App.Writer, doc)
	} else {
		err = doc.print(c)
	}
	if err == nil && unusable != nil {
		f := *classify(modelError(unusable))
		f.told = true
		return &f
	}
	return err
}

// inspectModel describes a model. unusable is why drover cannot run it; err
// that it is no model file at all.
func inspectModel(c *cli.Context, spec string) (doc inspectDoc, unusable, err error) {
	doc = inspectDoc{Schema: 1, Metadata: []metadataDoc{}, Tensors: []tensorDoc{}, Formats: map[string]int{}, Problems: []string{}}
	var f *model.File
	switch {
	case spec == "" || strings.HasPrefix(spec, "synthetic:"):
		if f, err = openModel(c, spec, true); err != nil {
			return doc, nil, err
		}
		defer f.Close()
		if meta, err := gguf.OpenBytes(demo.Name, demo.File()); spec == "" && err == nil {
			defer meta.Close()
			doc.addFile(meta)
		} else {
			doc.addTensors(f.Model)
		}
	default:
		meta, err := gguf.Open(spec)
		if err != nil {
			return doc, nil, openError(spec, fmt.Errorf("%s: %w", spec, err))
		}
		defer meta.Close()
		doc.addFile(meta)
		if f, unusable = model.Open(spec); unusable != nil {
			doc.Problems = append(doc.Problems, unusable.Error())
			vocab, err := model.OpenVocab(spec)
			if err != nil {
				return doc, unusable, nil
			}
			if len(meta.Tensors()) == 0 {
				unusable = nil // a vocabulary is all that such a file is for
			}
			f = vocab
		}
		defer f.Close()
	}
	doc.addModel(f)
	if vocab := f.Vocab(); vocab.Model != "" {
		if _, err := token.New(vocab); err != nil {
			doc.Problems = append(doc.Problems, err.Error())
			unusable = errors.Join(unusable, fmt.Errorf("%s: %w", spec, err))
		}
	}
	return doc, unusable, nil
}

func (d *inspectDoc) addFile(meta *gguf.File) {
	d.File = &fileDoc{Path: meta.Path, Format: "GGUF", Version: meta.Version, Parts: meta.Parts, Bytes: meta.Size}
	d.Model.Name, d.Model.Bytes = meta.Path, 0
	for _, key := range meta.Keys() {
		v, _ := meta.Value(key)
		kind := v.Type.String()
		if v.Type == gguf.Array {
			kind += " of " + v.Elem.String()
		}
		d.Metadata = append(d.Metadata, metadataDoc{key, kind, v.String()})
	}
	for _, t := range meta.Tensors() {
		format := quant.Type(t.Type).String()
		d.Formats[format]++
		d.Tensors = append(d.Tensors, tensorDoc{t.Name, format, append([]uint64{}, t.Dims...), uint64(len(t.Data()))})
		d.Model.Bytes += uint64(len(t.Data()))
		d.Model.Params += t.Elems()
	}
	if arch, err := meta.Text("general.architecture"); err == nil {
		d.Model.Arch = arch
	}
}

// addTensors lists a synthetic model's tensors.
func (d *inspectDoc) addTensors(m *backend.Model) {
	seen := map[*backend.Tensor]bool{}
	for _, t := range m.Tensors(backend.Range{Lo: 0, Hi: m.Config.Blocks()}) {
		if seen[t] {
			continue
		}
		seen[t] = true
		d.Formats[t.Type.String()]++
		d.Tensors = append(d.Tensors, tensorDoc{t.Name, t.Type.String(), []uint64{uint64(t.Cols), uint64(t.Rows)}, t.Bytes()})
	}
}

func (d *inspectDoc) addModel(f *model.File) {
	d.Problems = append(d.Problems, f.Problems...)
	if f.ChatTemplate != "" {
		if _, ok := chat.Detect(f.ChatTemplate, false); !ok {
			d.Problems = append(d.Problems, "the chat template is not known: run reads prompts raw")
		}
	}
	if f.Model == nil {
		return
	}
	d.Model = describeModel(f)
	k := &f.Model.Config
	d.Shape = &shapeDoc{Dim: k.Dim, Layers: k.Layers, Heads: k.Heads, KVHeads: k.KVHeads, HeadDim: k.HeadDim, FFN: k.FFN,
		Vocab: k.Vocab, Context: k.Context, Window: k.Window, Experts: k.Experts, ExpertsUsed: k.ExpertsUsed}
}

// printable keeps what a file says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func (d *inspectDoc) print(c *cli.Context) error {
	w := tabwriter.NewWriter(c.App.Writer, 0, 8, 2, ' ', 0)
	m := d.Model
	fmt.Fprintf(w, "model\t%s\n", printable(m.Name))
	if d.File != nil {
		fmt.Fprintf(w, "file\t%s, %s version %d, %d part(s), %s\n", d.File.Path, d.File.Format, d.File.Version, d.File.Parts, byteSize(d.File.Bytes))
	}
	fmt.Fprintf(w, "architecture\t%s %s\n", printable(m.Arch), m.Type)
	fmt.Fprintf(w, "weights\t%d in %s\n", m.Params, byteSize(m.Bytes))
	if s := d.Shape; s != nil {
		fmt.Fprintf(w, "shape\t%d layers, width %d, heads %d/%d of %d, feed-forward %d, vocabulary %d, context %d", s.Layers, s.Dim, s.Heads, s.KVHeads, s.HeadDim, s.FFN, s.Vocab, s.Context)
		if s.Window > 0 {
			fmt.Fprintf(w, ", window %d", s.Window)
		}
		if s.Experts > 0 {
			fmt.Fprintf(w, ", %d of %d experts", s.ExpertsUsed, s.Experts)
		}
		fmt.Fprintln(w)
	}
	var formats []string
	for name, n := range d.Formats {
		formats = append(formats, fmt.Sprintf("%s:%d", name, n))
	}
	slices.Sort(formats)
	fmt.Fprintf(w, "formats\t%s\n", strings.Join(formats, " "))
	for _, p := range d.Problems {
		fmt.Fprintf(w, "problem\t%s\n", printable(p))
	}
	fmt.Fprintln(w)
	for _, e := range d.Metadata {
		fmt.Fprintf(w, "%s\t%s\t%s\n", printable(e.Key), e.Type, e.Value)
	}
	fmt.Fprintln(w)
	for _, t := range d.Tensors {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", printable(t.Name), t.Type, t.Shape, byteSize(t.Bytes))
	}
	return w.Flush()
}
