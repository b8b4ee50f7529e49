// metal_counts says what the Metal backend does for a token, as the software device
// counts it: dispatches, messages, bytes, products of simdgroup matrices. What it
// prints is docs/metal-counts.txt.
//
//	metal_counts DROVER LIBRARY
//
// A token's counts are those of a run less those of a run that is one token shorter.
// Kernels that begin with matvec and matmul are those that multiply by weights.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// layer is one layer of llama-7b's shape with a small vocabulary.
const (
	layer        = "dim=4096,layers=1,heads=32,kv=32,ffn=11008,vocab=320"
	layerWeights = 4*4096*4096 + 3*4096*11008 + 320*4096
)

// small has matrices of every kind; promptWeights are those that each row of a
// prompt is multiplied by, in a layer.
const (
	small         = "dim=512,layers=%d,heads=8,kv=4,ffn=768,vocab=320"
	mixture       = small + ",experts=8,used=2"
	promptWeights = 2*512*512 + 2*512*256 + 3*512*768
	promptRows    = 64
)

// format is a weight format of a model, and the bytes of a weight.
type format struct {
	name  string
	bytes float64
}

// decoded are the formats of the layers that are decoded.
func decoded() []format {
	return []format{{"F16", 2}, {"Q8_0", 34. / 32}, {"Q6_K", 210. / 256}, {"Q4_0", 18. / 32}, {"Q4_K", 144. / 256}}
}

// prompted are the formats that prompts are read in.
func prompted() []string {
	return strings.Fields("F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 " +
		"IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0 NVFP4 Q1_0 Q2_0")
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: metal_counts DROVER LIBRARY")
		os.Exit(2)
	}
	c := counter{drover: os.Args[1], library: os.Args[2]}
	if err := errors.Join(c.decode(), c.prompts()); err != nil {
		fmt.Fprintln(os.Stderr, "metal_counts:", err)
		os.Exit(1)
	}
}

// counts are of one kernel, or of some together. Bytes are those of each dispatch,
// each once.
type counts struct {
	Dispatches, Threadgroups, Barriers, Multiplies int

	weights, read, written int // weights: read from the buffers of weights
}

func (a *counts) add(b counts, sign int) {
	a.Dispatches += sign * b.Dispatches
	a.Threadgroups += sign * b.Threadgroups
	a.Barriers += sign * b.Barriers
	a.Multiplies += sign * b.Multiplies
	a.weights += sign * b.weights
	a.read += sign * b.read
	a.written += sign * b.written
}

// tally is what a run did: its messages, and kernels by name.
type tally struct {
	messages int
	kernels  map[string]counts
}

// of sums up the kernels whose names begin so.
func (t tally) of(prefix string) (sum counts) {
	for name, c := range t.kernels {
		if strings.HasPrefix(name, prefix) {
			sum.add(c, 1)
		}
	}
	return sum
}

// less is what t has more than other.
func (t tally) less(other tally) tally {
	d := tally{t.messages - other.messages, map[string]counts{}}
	for name, c := range t.kernels {
		if c.add(other.kernels[name], -1); c.Dispatches > 0 {
			d.kernels[name] = c
		}
	}
	return d
}

// parse reads the device's file: a line of JSON for the messages, and one for each
// kernel.
func parse(text []byte) (tally, error) {
	t := tally{kernels: map[string]counts{}}
	for line := range bytes.Lines(text) {
		var k struct {
			Messages int
			Kernel   string
			counts
			Buffers []struct {
				Index   int
				Read    int `json:"distinct_read"`
				Written int `json:"distinct_written"`
			}
		}
		if err := json.Unmarshal(line, &k); err != nil {
			return t, fmt.Errorf("%q: %w", line, err)
		}
		t.messages += k.Messages
		if k.Kernel == "" {
			continue
		}
		for _, b := range k.Buffers {
			k.read += b.Read
			k.written += b.Written
			if b.Index >= 1 && b.Index <= 3 {
				k.weights += b.Read
			}
		}
		sum := t.kernels[k.Kernel]
		sum.add(k.counts, 1)
		t.kernels[k.Kernel] = sum
	}
	if len(t.kernels) == 0 {
		return t, errors.New("the device counted nothing")
	}
	return t, nil
}

type counter struct{ drover, library string }

// run counts a run of a synthetic model: a prompt of so many tokens, and so many
// that follow, the first of which comes with the prompt.
func (c counter) run(model string, prompt, tokens int) (tally, error) {
	dir, err := os.MkdirTemp("", "counts")
	if err != nil {
		return tally{}, err
	}
	defer os.RemoveAll(dir)
	ids := strings.TrimSuffix(strings.Repeat("7,", prompt), ",")
	cmd := exec.Command(c.drover, "run", "-m", "synthetic:"+model, "--device", "metal", "--tokens", ids, "-n", fmt.Sprint(tokens), "--temp", "0", "--ignore-eos", "--raw")
	file := filepath.Join(dir, "counts")
	cmd.Env = append(os.Environ(), "DROVER_METAL_LIBRARY="+c.library, "DROVER_METALSIM_COUNTS="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return tally{}, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return tally{}, err
	}
	return parse(text)
}

// token is what one decoded token costs.
func (c counter) token(model string) (tally, error) {
	short, err := c.run(model, 1, 2)
	if err != nil {
		return tally{}, err
	}
	long, err := c.run(model, 1, 3)
	return long.less(short), err
}

// aLayer is what two layers take more than one, in a decoded token.
func (c counter) aLayer(shape, format string) (dispatches, messages int, err error) {
	one, err := c.token(fmt.Sprintf(shape, 1) + ":" + format)
	if err != nil {
		return 0, 0, err
	}
	two, err := c.token(fmt.Sprintf(shape, 2) + ":" + format)
	if err != nil {
		return 0, 0, err
	}
	if dispatches = two.of("").Dispatches - one.of("").Dispatches; dispatches > 10 {
		return 0, 0, fmt.Errorf("%s: %d dispatches a layer, at most 10", shape, dispatches)
	}
	return dispatches, two.messages - one.messages, nil
}

func (c counter) decode() error {
	fmt.Print("One decoded token, one layer of llama-7b's shape (dim 4096, 32 heads, feed-forward 11008) and a head of 320 rows, as the\n" +
		"software device counts. read: bytes that products by weights read of these, each once a dispatch, by the bytes of the weights.\n" +
		"a layer: what two layers take more than one.\n\n")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "weights\tdispatches\ta layer\tmessages\ta layer\tweight bytes\tread\tall bytes\t")
	byKernel := tally{}
	for _, f := range decoded() {
		all, err := c.token(layer + ":" + f.name)
		if err != nil {
			return err
		}
		dispatches, messages, err := c.aLayer(small, f.name)
		if err != nil {
			return err
		}
		size, total := layerWeights*f.bytes, all.of("")
		read := float64(all.of("matvec").weights) / size
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%.0f\t%.4f\t%d\t\n", f.name, total.Dispatches, dispatches, all.messages, messages, size, read, total.read+total.written)
		if read > 1.02 {
			return fmt.Errorf("%s: products read %.4f of the weights, at most 1.02", f.name, read)
		}
		byKernel = all
	}
	if err := w.Flush(); err != nil {
		return err
	}
	dispatches, messages, err := c.aLayer(mixture, "Q4_0")
	if err != nil {
		return err
	}
	fmt.Printf("\nA layer with experts, 2 of 8: %d dispatches, %d messages.\n\nThe last format by kernel.\n\n", dispatches, messages)
	fmt.Fprintln(w, "kernel\tdispatches\tthreadgroups\tbarriers\tread\twritten\t")
	for _, name := range slices.Sorted(maps.Keys(byKernel.kernels)) {
		k := byKernel.kernels[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, k.Dispatches, k.Threadgroups, k.Barriers, k.read, k.written)
	}
	return w.Flush()
}

func (c counter) prompts() error {
	fmt.Printf("\nA prompt of %d tokens, a layer of dim 512 and feed-forward 768. done: multiplications of simdgroup matrices by those needed.\n\n", promptRows)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "weights\tdispatches\tmultiplies\tdone\t")
	for _, name := range prompted() {
		all, err := c.run(fmt.Sprintf(small, 1)+":"+name, promptRows, 1)
		if err != nil {
			return err
		}
		products := all.of("matmul")
		done := 512 * float64(products.Multiplies) / (promptRows * promptWeights)
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t\n", name, products.Dispatches, products.Multiplies, done)
		if done < 1 {
			return fmt.Errorf("%s: prompts do not go through simdgroup matrices", name)
		}
	}
	return w.Flush()
}
