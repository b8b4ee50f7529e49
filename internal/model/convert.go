package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"drover/backend"
	"drover/internal/gguf"
	"drover/internal/quant"
)

// item is a tensor to be written.
type item struct {
	info gguf.Info
	rows int
	row  int // bytes
	src  backend.Source
}

// Write writes the model as a GGUF file of version 3 at path, which is replaced
// only when the new file is complete. progress, if not nil, is called with
// bytes done and in total, from one goroutine at a time.
func Write(f *File, path string, progress func(done, total uint64)) error {
	return WriteContext(context.Background(), f, path, progress)
}

// WriteContext is Write that ends with ctx's error when ctx is done.
func WriteContext(ctx context.Context, f *File, path string, progress func(done, total uint64)) error {
	items := f.items()
	infos := make([]gguf.Info, len(items))
	for i := range items {
		infos[i] = items[i].info
	}
	l, err := gguf.NewLayout(f.Metadata(), infos)
	if err != nil {
		return fmt.Errorf("lay out %s: %w", path, err)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is there and is not a file", path)
	}
	part := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x.part", filepath.Base(path), rand.Uint32()))
	out, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = writeTensors(ctx, out, l, items, progress)
	if err == nil {
		err = out.Truncate(int64(l.Size)) // the padding after the last tensor
	}
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		os.Remove(part)
		if diskFull(err) {
			return fmt.Errorf("write %s: the disk is full; the file takes %d bytes: %w", path, l.Size, err)
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// diskFull: no space, or no more of the user's share of it.
func diskFull(err error) bool {
	const windowsDiskFull = syscall.Errno(112)
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || runtime.GOOS == "windows" && errors.Is(err, windowsDiskFull)
}

// chunkBytes is about how much is written at once.
const chunkBytes = 4 << 20

// writeTensors writes the header and, from as many goroutines as there are
// processors, the tensors.
func writeTensors(ctx context.Context, out io.WriterAt, l *gguf.Layout, items []item, progress func(done, total uint64)) error {
	if _, err := out.WriteAt(l.Header, 0); err != nil {
		return err
	}
	type chunk struct{ item, lo, hi int }
	var chunks []chunk
	total := uint64(0)
	for i, it := range items {
		total += l.Sizes[i]
		step := max(1, chunkBytes/it.row)
		for lo := 0; lo < it.rows; lo += step {
			chunks = append(chunks, chunk{i, lo, min(it.rows, lo+step)})
		}
	}
	var (
		next  atomic.Int64
		mu    sync.Mutex
		done  uint64
		first error
		wg    sync.WaitGroup
	)
	finish := func(n uint64, err error) (stop bool) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		if done += n; progress != nil && first == nil {
			progress(done, total)
		}
		return first != nil
	}
	for range min(runtime.GOMAXPROCS(0), len(chunks)) {
		wg.Go(func() {
			var buf []byte
			for {
				i := int(next.Add(1)) - 1
				if i >= len(chunks) {
					return
				}
				c := chunks[i]
				at := l.Offsets[c.item] + uint64(c.lo)*uint64(items[c.item].row)
				err := ctx.Err()
				if err == nil {
					err = items[c.item].write(out, int64(at), c.lo, c.hi, &buf)
				}
				if finish(uint64(c.hi-c.lo)*uint64(items[c.item].row), err) {
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// write copies rows [lo, hi) to at; buf is kept for the next ones.
func (it *item) write(out io.WriterAt, at int64, lo, hi int, buf *[]byte) error {
	b := it.src.Mapped()
	if b != nil {
		b = b[lo*it.row : hi*it.row]
	} else {
		if n := (hi - lo) * it.row; cap(*buf) < n {
			*buf = make([]byte, n)
		}
		b = (*buf)[:(hi-lo)*it.row]
		if err := it.src.Rows(b, lo, hi); err != nil {
			return fmt.Errorf("tensor %q: %w", it.info.Name, err)
		}
	}
	_, err := out.WriteAt(b, at)
	it.src.Drop(lo, hi)
	return err
}

// items lists what is to be written: the file's tensors as they are, but for
// experts that were joined; or a synthetic model's.
func (f *File) items() []item {
	var all []item
	there := map[string]bool{}
	if f.Meta != nil {
		for i := range f.Meta.Tensors() {
			t := &f.Meta.Tensors()[i]
			if f.Model != nil && isPart(f.Meta, t.Name) {
				continue
			}
			there[t.Name] = true
			all = append(all, fileItem(t))
		}
	}
	if f.Model == nil {
		return all
	}
	c := &f.Model.Config
	for _, t := range f.Model.Tensors(backend.Range{Lo: 0, Hi: c.Blocks()}) {
		if there[t.Name] {
			continue
		}
		there[t.Name] = true
		dims := []uint64{uint64(t.Cols), uint64(t.Rows)}
		switch {
		case strings.HasSuffix(t.Name, "_exps.weight"):
			dims = []uint64{uint64(t.Cols), uint64(t.Rows / c.Experts), uint64(c.Experts)}
		case strings.HasSuffix(t.Name, "_norm.weight") || strings.HasSuffix(t.Name, ".bias"):
			dims = dims[:1]
		}
		all = append(all, item{gguf.Info{Name: t.Name, Type: gguf.TensorType(t.Type), Dims: dims}, t.Rows, t.Type.RowBytes(t.Cols), t.Source})
	}
	if f.Meta == nil && c.Rope.Factors != nil {
		all = append(all, factorsItem(c.Rope.Factors))
	}
	return all
}

// fileItem is a file's tensor, taken as rows of its fastest dimension.
func fileItem(t *gguf.Tensor) item {
	rows := 1
	if len(t.Dims) > 0 {
		rows = int(t.Elems() / t.Dims[0])
	}
	row := len(t.Data()) / rows
	return item{gguf.Info{Name: t.Name, Type: t.Type, Dims: t.Dims}, rows, row, &mapped{t, uint64(row)}}
}

// isPart reports whether name is one expert's matrix, which the model has
// joined to the others'.
func isPart(file *gguf.File, name string) bool {
	var layer, expert int
	for _, kind := range []string{"ffn_gate", "ffn_up", "ffn_down"} {
		n, _ := fmt.Sscanf(name, "blk.%d."+kind+".%d.weight", &layer, &expert)
		if n == 2 && name == fmt.Sprintf("blk.%d.%s.%d.weight", layer, kind, expert) {
			return file.Tensor(fmt.Sprintf("blk.%d.%s_exps.weight", layer, kind)) == nil
		}
	}
	return false
}

// factorsItem is Llama 3's rope_freqs.
func factorsItem(factors []float32) item {
	b := make([]byte, 4*len(factors))
	if err := quant.Quantize(quant.F32, b, factors); err != nil {
		panic("BUG: " + err.Error())
	}
	return item{gguf.Info{Name: "rope_freqs.weight", Type: gguf.TensorType(quant.F32), Dims: []uint64{uint64(len(factors))}}, 1, len(b), memory(b)}
}

// memory is one row of bytes.
type memory []byte

func (m memory) Rows(dst []byte, lo, hi int) error { copy(dst, m[lo*len(m):hi*len(m)]); return nil }
func (m memory) Mapped() []byte                    { return m }
func (m memory) Drop(_, _ int)                     {}
