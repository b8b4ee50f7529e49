//go:build (linux && cgo) || windows

package cuda

import (
	"fmt"
	"slices"
	"sync"
)

// modules are the kernels that a device has compiled; they stay until the
// process ends, like its context.
type modules struct {
	mu   sync.Mutex
	have map[string]*compiled
}

type compiled struct {
	once sync.Once
	m    *module
	err  error
}

// compile gives modules by name, compiling those that are new at the same time.
func (d *device) compile(names ...string) ([]*module, error) {
	entries := make([]*compiled, len(names))
	d.modules.mu.Lock()
	for i, name := range names {
		if d.modules.have == nil {
			d.modules.have = map[string]*compiled{}
		}
		if d.modules.have[name] == nil {
			d.modules.have[name] = &compiled{}
		}
		entries[i] = d.modules.have[name]
	}
	d.modules.mu.Unlock()
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() { e.once.Do(func() { e.m, e.err = d.compileOne(names[i]) }) })
	}
	wg.Wait()
	found := make([]*module, len(names))
	for i, e := range entries {
		if e.err != nil {
			d.modules.mu.Lock()
			if d.modules.have[names[i]] == e {
				delete(d.modules.have, names[i]) // another try may go better
			}
			d.modules.mu.Unlock()
			return nil, e.err
		}
		found[i] = e.m
	}
	return found, nil
}

func (d *device) compileOne(name string) (*module, error) {
	text, err := ptx(name, d.info.ISA)
	if err != nil {
		return nil, err
	}
	m, err := d.module(text)
	if err != nil {
		return nil, fmt.Errorf("kernels %s: %w", name, err)
	}
	return m, nil
}

// finder looks kernels up and keeps the first error.
type finder struct {
	m   *module
	err error
}

func (f *finder) kernel(name string) *kernel {
	if f.err != nil {
		return nil
	}
	var k *kernel
	k, f.err = f.m.kernel(name)
	return k
}

// sharing is a kernel that may take so much dynamic shared memory.
func (f *finder) sharing(name string, shared uint32) *kernel {
	const free = 48 << 10
	k := f.kernel(name)
	if f.err == nil && shared > free {
		f.err = k.allowShared(int(shared))
	}
	return k
}

// opsKernels are those of the module ops.
type opsKernels struct {
	norm, convert, act, combine, route, list, mix, topParts, topMerge *kernel
}

// cacheKernels are those of a pair of cache formats, for one shape of heads.
type cacheKernels struct {
	rope, attention, prompt *kernel
}

// weightKernels are those of a weight format; prompt are its products for prompts,
// in the order of widths.
type weightKernels struct {
	f                       *format
	pack, embed             *kernel
	product, product2, gate *kernel
	prompt                  []*kernel
}

// stageKernels are all that a stage launches.
type stageKernels struct {
	ops     opsKernels
	cache   cacheKernels
	weights map[*format]*weightKernels
}

// kernels compiles and finds what a layout needs.
func (d *device) kernels(l *layout) (*stageKernels, error) {
	names := []string{"ops"}
	if l.attends {
		names = append(names, "attention_"+cacheType(l.lim.K)+"_"+cacheType(l.lim.V))
	}
	var used []*format
	for _, m := range l.tensors {
		if slices.Contains(used, m.f) {
			continue
		}
		used, names = append(used, m.f), append(names, m.f.module())
		if m.f.multiplies(l.tier) {
			names = append(names, m.f.promptModule())
		}
	}
	found, err := d.compile(names...)
	if err != nil {
		return nil, err
	}
	k := &stageKernels{weights: map[*format]*weightKernels{}}
	f := finder{m: found[0]}
	k.ops = opsKernels{f.kernel("norm"), f.kernel("convert"), f.kernel("act"), f.kernel("combine"), f.kernel("route"), f.kernel("list_experts"), f.kernel("mix"),
		f.kernel("top_parts"), f.kernel("top_merge")}
	found = found[1:]
	if l.attends {
		f.m, found = found[0], found[1:]
		k.cache = f.cache(l, d.multiprocessors)
	}
	for _, format := range used {
		f.m, found = found[0], found[1:]
		k.weights[format] = f.weights(format)
		if format.multiplies(l.tier) {
			f.m, found = found[0], found[1:]
			k.weights[format].prompt = f.prompt(format, l.tier)
		}
	}
	return k, f.err
}

func promptShapeOf(l *layout) promptShape {
	return newPromptShape(l.lim.K, l.lim.V, l.c.HeadDim, l.c.Group(), l.tier)
}

func (f *finder) cache(l *layout, multiprocessors int) cacheKernels {
	pair := cacheType(l.lim.K) + "_" + cacheType(l.lim.V)
	_, heads := attentionHeads(l.c.Group(), l.c.HeadDim)
	_, shared := attentionLaunch(decodeRows, l.c.Group(), l.c.KVHeads, l.c.HeadDim, l.maxCuts, multiprocessors)
	k := cacheKernels{rope: f.kernel("rope_" + pair), attention: f.sharing("attention_"+pair+"_"+heads, shared)}
	prompt := promptShapeOf(l)
	k.prompt = f.sharing(prompt.kernel, prompt.shared)
	return k
}

func (f *finder) weights(w *format) *weightKernels {
	k := &weightKernels{f: w, pack: f.kernel("pack_" + w.name), embed: f.kernel("embed_" + w.name), product: f.kernel(w.matvecName(1)), gate: f.kernel("matvec_gate_" + w.name)}
	if w.tiles == 2 {
		k.product2 = f.kernel(w.matvecName(2))
	}
	return k
}

func (f *finder) prompt(w *format, tier int) (all []*kernel) {
	shared := map[string]uint32{} // of a kernel, by the launch that takes most
	for _, width := range w.widths(tier) {
		shared[width.kernel] = max(shared[width.kernel], w.shared(width, tier))
	}
	for _, width := range w.widths(tier) {
		all = append(all, f.sharing(w.matmulKernel(width), shared[width.kernel]))
	}
	return all
}
