// counts says what the CUDA backend does for a token, as the software device
// counts it: launches, instructions, bytes, products on tensor cores. What it
// prints is docs/cuda-counts.txt.
//
//	counts DROVER LIBRARY
//
// A token's counts are those of a run less those of a run that is one token
// shorter. Kernels are told apart by what their names begin with: matvec and
// matmul are those that multiply by weights.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
		fmt.Fprintln(os.Stderr, "usage: counts DROVER LIBRARY")
		os.Exit(2)
	}
	c := counter{drover: os.Args[1], library: os.Args[2]}
	if err := errors.Join(c.decode(), c.prompts()); err != nil {
		fmt.Fprintln(os.Stderr, "counts:", err)
		os.Exit(1)
	}
}

// counts are of one kernel, or of some together.
type counts struct {
	Launches, Instructions, Barriers, MMA, MACs uint64

	Read   uint64    `json:"distinct_read"` // sectors of 32 bytes that launches read, each once a launch
	Loaded [5]uint64 `json:"bytes_read"`    // asked for, by loads of 1, 2, 4, 8, 16 bytes
}

func (a *counts) add(b counts, sign uint64) {
	a.Launches += sign * b.Launches
	a.Instructions += sign * b.Instructions
	a.Barriers += sign * b.Barriers
	a.MMA += sign * b.MMA
	a.MACs += sign * b.MACs
	a.Read += sign * b.Read
	for i := range a.Loaded {
		a.Loaded[i] += sign * b.Loaded[i]
	}
}

// kernels are counts by name.
type kernels map[string]counts

// of sums up the kernels whose names begin so.
func (k kernels) of(prefix string) (sum counts) {
	for name, c := range k {
		if strings.HasPrefix(name, prefix) {
			sum.add(c, 1)
		}
	}
	return sum
}

// less is what k has more than other.
func (k kernels) less(other kernels) kernels {
	d := kernels{}
	for name, c := range k {
		c.add(other[name], ^uint64(0))
		if c.Launches > 0 {
			d[name] = c
		}
	}
	return d
}

type counter struct{ drover, library string }

// run counts a run of a synthetic model: a prompt of so many tokens, and then
// tokens more.
func (c counter) run(model string, prompt, tokens int) (kernels, error) {
	dir, err := os.MkdirTemp("", "counts")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ids := strings.TrimSuffix(strings.Repeat("7,", prompt), ",")
	cmd := exec.Command(c.drover, "run", "-m", "synthetic:"+model, "--device", "cuda", "--tokens", ids, "-n", fmt.Sprint(tokens), "--temp", "0", "--ignore-eos", "--raw")
	file := filepath.Join(dir, "counts")
	cmd.Env = append(os.Environ(), "DROVER_CUDA_LIBRARY="+c.library, "DROVER_SIM_CUDA=name=Counted,cc=8.0,mem=4GiB", "DROVER_SIM_COUNTS="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseCounts(text)
}

// parseCounts reads the device's file: a line of JSON for each kernel.
func parseCounts(text []byte) (kernels, error) {
	all := kernels{}
	for line := range bytes.Lines(text) {
		var k struct {
			Kernel string
			counts
		}
		if err := json.Unmarshal(line, &k); err != nil {
			return nil, fmt.Errorf("counts: %q: %w", line, err)
		}
		sum := all[k.Kernel]
		sum.add(k.counts, 1)
		all[k.Kernel] = sum
	}
	if len(all) == 0 {
		return nil, errors.New("counts: the device counted nothing")
	}
	return all, nil
}

// token is what one decoded token costs.
func (c counter) token(model string) (kernels, error) {
	short, err := c.run(model, 4, 3)
	if err != nil {
		return nil, err
	}
	long, err := c.run(model, 4, 4)
	return long.less(short), err
}

func (c counter) decode() error {
	fmt.Print("One decoded token, one layer of llama-7b's shape (dim 4096, 32 heads, feed-forward 11008) and a head of 320 rows,\n" +
		"compute capability 8.0, as the software device counts. read: bytes of the 32-byte sectors that products by weights\n" +
		"read, each once a launch, by the bytes of the weights. wide: share of bytes that these products ask for 16 at a time; the rest is scales of activations, by 8.\n" +
		"a layer: launches of two layers less those of one.\n\n")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "weights\tlaunches\ta layer\tweight bytes\tread\twide\tinstructions\tby 512 weights\tbarriers\tmma\t")
	for _, f := range decoded() {
		all, err := c.token(layer + ":" + f.name)
		if err != nil {
			return err
		}
		one, err := c.token(fmt.Sprintf(small, 1) + ":" + f.name)
		if err != nil {
			return err
		}
		two, err := c.token(fmt.Sprintf(small, 2) + ":" + f.name)
		if err != nil {
			return err
		}
		size, products, total := layerWeights*f.bytes, all.of("matvec"), all.of("")
		wide := float64(products.Loaded[4]) / float64(products.Loaded[0]+products.Loaded[1]+products.Loaded[2]+products.Loaded[3]+products.Loaded[4])
		read := float64(32*products.Read) / size
		perLayer := two.of("").Launches - one.of("").Launches
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.4f\t%.3f\t%d\t%.1f\t%d\t%d\t\n", f.name, total.Launches, perLayer, size, read, wide,
			total.Instructions, float64(products.Instructions)/(layerWeights/512), total.Barriers, total.MMA)
		if perLayer > 10 {
			return fmt.Errorf("%s: %d launches a layer, at most 10", f.name, perLayer)
		}
		if read > 1.02 {
			return fmt.Errorf("%s: products read %.4f of the weights, at most 1.02", f.name, read)
		}
	}
	return w.Flush()
}

func (c counter) prompts() error {
	fmt.Printf("\nA prompt of %d tokens, a layer of dim 512 and feed-forward 768. done: multiplications on tensor cores by those needed.\n\n", promptRows)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "weights\tlaunches\tmma\tdone\tinstructions by mma\t")
	for _, name := range prompted() {
		all, err := c.run(fmt.Sprintf(small, 1)+":"+name, promptRows, 1)
		if err != nil {
			return err
		}
		products := all.of("matmul")
		each := "-"
		if products.MMA > 0 {
			each = fmt.Sprintf("%.1f", float64(products.Instructions)/float64(products.MMA))
		}
		done := float64(products.MACs) / (promptRows * promptWeights)
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t%s\t\n", name, products.Launches, products.MMA, done, each)
		if name != "F32" && done < 1 {
			return fmt.Errorf("%s: prompts do not go through tensor cores", name)
		}
	}
	return w.Flush()
}
