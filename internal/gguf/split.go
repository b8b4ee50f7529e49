package gguf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// A split set is files PREFIX-00001-of-0000N.gguf, each with split.no (from 0)
// and split.count; split.tensors.count is the tensors of the whole set
// (llama.cpp, tools/gguf-split).

// maxParts bounds the files of a set.
const maxParts = 9999

// splitCount is the number of files in the set that f belongs to.
func (f *File) splitCount() (int, error) {
	n, err := f.Uint("split.count")
	switch {
	case errors.Is(err, ErrMissing):
		return 1, nil
	case err != nil:
		return 0, bad("%w", err)
	case n > maxParts:
		return 0, bad("split.count is %d; at most %d files are supported", n, maxParts)
	}
	return max(1, int(n)), nil
}

// openSplits opens the other files of the set.
func (f *File) openSplits() error {
	n, err := f.splitCount()
	if err != nil || n == 1 {
		return err
	}
	no, err := f.Uint("split.no")
	if err != nil {
		return bad("one of %d files: %w", n, err)
	}
	prefix, ok := splitPrefix(f.Path, no, n)
	if no != 0 {
		first := "the one that ends in " + splitSuffix(0, n)
		if ok {
			first = filepath.Base(prefix + splitSuffix(0, n))
		}
		return bad("this is file %d of %d: open the first one, %s", no+1, n, first)
	}
	if !ok {
		return bad("it is the first of %d files, so its name must end in %s for the others to be found", n, splitSuffix(0, n))
	}
	for i := 1; i < n; i++ {
		if err := f.addSplit(prefix+splitSuffix(i, n), i, n); err != nil {
			return err
		}
	}
	want, err := f.Uint("split.tensors.count")
	if err != nil && !errors.Is(err, ErrMissing) {
		return bad("%w", err)
	}
	if err == nil && want != uint64(len(f.tensors)) {
		return bad("split.tensors.count is %d and the %d files hold %d tensors", want, n, len(f.tensors))
	}
	return nil
}

// addSplit opens file i of n.
func (f *File) addSplit(path string, i, n int) error {
	p, err := openPart(path)
	if err != nil {
		return fmt.Errorf("file %d of %d: %w", i+1, n, err)
	}
	err = checkSplit(p, i, n)
	if err == nil {
		err = f.add(p)
	}
	if err != nil {
		p.close()
		return fmt.Errorf("file %d of %d, %s: %w", i+1, n, filepath.Base(path), err)
	}
	return nil
}

// checkSplit sees that a file says of itself that it is number i of n.
func checkSplit(p *part, i, n int) error {
	h, err := parse(p.data)
	if err != nil {
		return err
	}
	own := &File{values: h.values}
	no, err := own.Uint("split.no")
	if err != nil {
		return bad("%w", err)
	}
	count, err := own.Uint("split.count")
	if err != nil {
		return bad("%w", err)
	}
	if no != uint64(i) || count != uint64(n) {
		return bad("its metadata say that it is file %d of %d: another set's file, or renamed", no+1, count)
	}
	return nil
}

func splitSuffix(i, n int) string { return fmt.Sprintf("-%05d-of-%05d.gguf", i+1, n) }

// splitPrefix is the part of path in front of the suffix of file no of n.
func splitPrefix(path string, no uint64, n int) (string, bool) {
	if no >= uint64(n) {
		return "", false
	}
	return strings.CutSuffix(path, splitSuffix(int(no), n))
}
