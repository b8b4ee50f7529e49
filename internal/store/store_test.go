package store

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"drover/internal/bench"
)

func record(gen int) bench.Record {
	limit := 20.0
	return bench.Record{Schema: bench.Schema, Fingerprint: "01234567-89abcdef", Backends: "cpu", ISA: "avx2", ModelType: "llama 6.7B Q4_0",
		ModelParams: 6_738_415_616, Batch: 2048, TypeK: "f16", TypeV: "f16", Gen: gen, Sequences: 1, AvgTS: 15, LimitTS: &limit,
		SamplesNS: []int64{8_000_000_000}, SamplesTS: []float64{15}, TestTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func read(t *testing.T, s *Store) ([]bench.Record, int) {
	t.Helper()
	records, skipped, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	return records, skipped
}

func TestAppend(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "not", "there"))
	if records, skipped := read(t, s); len(records) != 0 || skipped != 0 {
		t.Errorf("a store that is not there has %d records, %d damaged", len(records), skipped)
	}
	for _, some := range [][]bench.Record{{record(1), record(2)}, nil, {record(3)}} {
		if err := s.Append(some); err != nil {
			t.Fatal(err)
		}
	}
	got, skipped := read(t, s)
	want := []bench.Record{record(1), record(2), record(3)}
	if skipped != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d damaged, %+v, want %+v", skipped, got, want)
	}
}

// What is no record costs itself alone, and what follows a line that was cut off
// begins a new one.
func TestDamage(t *testing.T) {
	s := Open(t.TempDir())
	if err := s.Append([]bench.Record{record(1)}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	line := string(text)
	newer := strings.Replace(line, `"schema":1`, `"schema":99`, 1)
	slow := strings.Replace(line, `"avg_ts":15`, `"avg_ts":-15`, 1)
	long := `{"plan":"` + strings.Repeat("x", maxLine) + "\"}\n"
	if err := os.WriteFile(s.Path(), []byte(line+"\n"+newer+slow+"nonsense\n{}\n"+long+line+line[:len(line)/2]), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Append([]bench.Record{record(2)}); err != nil {
		t.Fatal(err)
	}
	got, skipped := read(t, s)
	if len(got) != 3 || got[2].Gen != 2 || skipped != 6 {
		t.Errorf("%d records, %d damaged, want 3 and 6", len(got), skipped)
	}
}

func TestTogether(t *testing.T) {
	dir := t.TempDir()
	const writers, rounds = 8, 25
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for i := range rounds {
				if err := Open(dir).Append([]bench.Record{record(i + 1), record(i + 1)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, skipped := read(t, Open(dir)); len(got) != 2*writers*rounds || skipped != 0 {
		t.Errorf("%d records, %d damaged, want %d and 0", len(got), skipped, 2*writers*rounds)
	}
}

func TestRefuse(t *testing.T) {
	bad := record(1)
	bad.AvgTS = 0
	s := Open(t.TempDir())
	if err := s.Append([]bench.Record{record(1), bad}); err == nil {
		t.Error("a record without a speed was kept")
	}
	if got, _ := read(t, s); len(got) != 0 {
		t.Errorf("%d records of a list that was refused", len(got))
	}
	if err := Open("").Append([]bench.Record{record(1)}); err == nil || !strings.Contains(err.Error(), "XDG_DATA_HOME") {
		t.Errorf("without a folder: %v, want what to set", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Open(file).Append([]bench.Record{record(1)}); err == nil {
		t.Error("a file served as the folder")
	}
}

func TestDir(t *testing.T) {
	data := t.TempDir()
	t.Setenv("XDG_DATA_HOME", data)
	if got, want := Dir(), filepath.Join(data, "drover", "bench"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	t.Setenv("XDG_DATA_HOME", "relative")
	if got := Dir(); strings.Contains(got, "relative") {
		t.Errorf("%s: a relative folder is to be ignored", got)
	}
}
