//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

import (
	"errors"
	"fmt"
	"sync"
)

// stageKernels are the pipelines of a stage.
type stageKernels struct {
	norm, act, combine, router, route, list, mix, mixNorm, topParts, topMerge *pipeline

	rope, attention, prompt *pipeline // prompt is nil where rows of a prompt go through attention

	weights map[*format]*weightKernels
}

// weightKernels are those of a weight format.
type weightKernels struct {
	f                  *format
	matvec, gate       [2]*pipeline // for one row, and for up to decodeRows
	matmul32, matmul64 *pipeline
	embed              *pipeline
}

// set is some kernels of one source, and where they are wanted.
type set struct {
	source string
	names  []string
	least  []int // threads of the largest threadgroup that each is dispatched with
	to     []**pipeline
}

func (s *set) add(name string, threads int, to **pipeline) {
	s.names, s.least, s.to = append(s.names, name), append(s.least, threads), append(s.to, to)
}

// kernels compiles what a stage wants, every source beside the others.
func (d *device) kernels(l *layout) (*stageKernels, error) {
	k := &stageKernels{weights: map[*format]*weightKernels{}}
	sets := []*set{rowKernels(k)}
	if l.attends {
		sets = append(sets, cacheKernels(k, l)...)
	}
	for _, m := range l.tensors {
		if k.weights[m.f] == nil {
			w := &weightKernels{f: m.f}
			k.weights[m.f] = w
			sets = append(sets, w.set())
		}
	}
	errs := make([]error, len(sets))
	var running sync.WaitGroup
	for i, s := range sets {
		running.Go(func() { errs[i] = d.fill(s) })
	}
	running.Wait()
	return k, errors.Join(errs...)
}

// fill compiles a set.
func (d *device) fill(s *set) error {
	found, err := d.library(s.source, s.names)
	if err != nil {
		return err
	}
	for i, name := range s.names {
		p := found[name]
		if p.threads < s.least[i] {
			return fmt.Errorf("metal: %s runs at most %d threads in a threadgroup here, and is dispatched with up to %d", name, p.threads, s.least[i])
		}
		*s.to[i] = p
	}
	return nil
}

func rowKernels(k *stageKernels) *set {
	s := &set{source: rowSource()}
	s.add("norm", mostNormThreads, &k.norm)
	s.add("act", 256, &k.act)
	s.add("combine", 256, &k.combine)
	s.add("router", mostNormThreads, &k.router)
	s.add("route", 256, &k.route)
	s.add("list_experts", 256, &k.list)
	s.add("mix_experts", 256, &k.mix)
	s.add("mix_norm", mostNormThreads, &k.mixNorm)
	s.add("top_parts", 256, &k.topParts)
	s.add("top_merge", 256, &k.topMerge)
	return s
}

// cacheKernels are compiled for the formats of the cache and the shape of heads.
func cacheKernels(k *stageKernels, l *layout) []*set {
	kt, vt, headDim := l.lim.K, l.lim.V, l.c.HeadDim
	end := cacheSuffix(kt, vt)
	rope := &set{source: cacheSource(kt, vt, "rope")}
	rope.add("rope"+end, 128, &k.rope)
	width := 64
	for width < headDim {
		width *= 2
	}
	defines := []string{fmt.Sprintf("HEADS %d", attentionHeads(l.c.Group(), headDim)), fmt.Sprintf("WIDTH %d", width)}
	if headDim%8 != 0 {
		defines = append(defines, "ODD")
	}
	attention := &set{source: cacheSource(kt, vt, "attention", defines...)}
	attention.add("attention"+end, 256, &k.attention)
	if headDim%8 != 0 || l.lim.Rows <= decodeRows {
		return []*set{rope, attention}
	}
	prompt := &set{source: cacheSource(kt, vt, "prompt_attention", fmt.Sprintf("WIDTH %d", pad(headDim, 32)))}
	prompt.add("prompt_attention"+end, 128, &k.prompt)
	return []*set{rope, attention, prompt}
}

func (w *weightKernels) set() *set {
	s := &set{source: w.f.source()}
	for i, n := range []int{1, decodeRows} {
		s.add(w.f.matvecName(n), 64, &w.matvec[i])
		s.add(w.f.gateName(n), 64, &w.gate[i])
	}
	s.add(w.f.matmulName(32), 128, &w.matmul32)
	s.add(w.f.matmulName(64), 128, &w.matmul64)
	s.add(w.f.embedName(), 64, &w.embed)
	return s
}

// decode picks of two kernels the one for n rows of the decode class.
func decodeKernel(pair [2]*pipeline, n int) *pipeline {
	if n == 1 {
		return pair[0]
	}
	return pair[1]
}
