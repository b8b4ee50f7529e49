// Package store keeps the records of benchmarks, so that a machine's past can be
// read. It knows files and records, and nothing of how they are made or compared.
package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"drover/internal/bench"
)

// Store is a folder with one file, a record a line. Several processes may append
// to it at once.
type Store struct {
	dir string // empty: it keeps nothing
}

// Open gives the store in a folder, which is made when something is appended.
func Open(dir string) *Store { return &Store{dir} }

// Dir is where the store of this user lies: drover/bench in $XDG_DATA_HOME where
// that is set, else where the system keeps a program's data; empty where it has
// no such place.
func Dir() string {
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) {
		home, err := os.UserHomeDir()
		switch runtime.GOOS {
		case "windows":
			data, err = os.UserCacheDir() // %LocalAppData%
		case "darwin":
			data = filepath.Join(home, "Library", "Application Support")
		default:
			data = filepath.Join(home, ".local", "share")
		}
		if err != nil {
			return ""
		}
	}
	return filepath.Join(data, "drover", "bench")
}

// maxLine bounds a record's line, in bytes.
const maxLine = 16 << 20

// Path is the file that holds the records; empty where there is none.
func (s *Store) Path() string {
	if s.dir == "" {
		return ""
	}
	return filepath.Join(s.dir, "records.jsonl")
}

// Append adds records at the end, all by one write: of processes that append at
// once each one's lines stay whole.
func (s *Store) Append(records []bench.Record) (err error) {
	if len(records) == 0 {
		return nil
	}
	if s.dir == "" {
		return errors.New("the system has no folder for a program's data: set XDG_DATA_HOME")
	}
	var text bytes.Buffer
	for i := range records {
		if err := records[i].Check(); err != nil {
			return fmt.Errorf("keep a record: %w", err)
		}
		line, err := json.Marshal(&records[i])
		if err != nil {
			return fmt.Errorf("keep a record: %w", err)
		}
		if len(line) > maxLine {
			return fmt.Errorf("keep a record: %d bytes, more than %d", len(line), maxLine)
		}
		text.Write(line)
		text.WriteByte('\n')
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("keep records: %w", err)
	}
	f, err := os.OpenFile(s.Path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("keep records: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	whole := text.Bytes()
	if cut(f) {
		whole = append([]byte{'\n'}, whole...)
	}
	if _, err := f.Write(whole); err != nil {
		return fmt.Errorf("keep records: %w", err)
	}
	return nil
}

// cut says that the last line has no end: a process died, or the disk was full,
// while it was written.
func cut(f *os.File) bool {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, size-1)
	return err == nil && last[0] != '\n'
}

// Read gives all records, the oldest first, and how many lines are none. A store
// that was never written to is empty.
func (s *Store) Read() (records []bench.Record, skipped int, err error) {
	if s.dir == "" {
		return nil, 0, nil
	}
	f, err := os.Open(s.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the kept records: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	for {
		line, whole, err := readLine(in)
		if len(bytes.TrimSpace(line)) > 0 || !whole {
			if r, bad := bench.Decode(line); whole && bad == nil {
				records = append(records, r)
			} else {
				skipped++
			}
		}
		if errors.Is(err, io.EOF) {
			return records, skipped, nil
		}
		if err != nil {
			return records, skipped, fmt.Errorf("read the kept records: %w", err)
		}
	}
}

// readLine is the next line; whole is false where it is longer than maxLine, of
// which no more is kept.
func readLine(in *bufio.Reader) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := in.ReadSlice('\n')
		if whole = whole && len(line)+len(part) <= maxLine+1; whole {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, whole, err
		}
	}
}
