package token

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// readVocab reads the vocabulary of a GGUF file, plain or gzip-compressed. It is
// for files that are known to be good.
func readVocab(t testing.TB, path string) Config {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if data, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	r := &ggufReader{b: data}
	r.u32() // magic
	r.u32() // version
	r.u64() // tensors
	kv := make(map[string]any)
	for range r.u64() {
		key := r.str()
		kv[key] = r.value(r.u32())
	}
	return vocabConfig(kv)
}

func vocabConfig(kv map[string]any) Config {
	const p = "tokenizer.ggml."
	id := func(name string) int32 {
		if v, ok := kv[p+name+"_token_id"].(uint32); ok {
			return int32(v)
		}
		return -1
	}
	flag := func(name string) *bool {
		if v, ok := kv[p+name].(bool); ok {
			return &v
		}
		return nil
	}
	var c Config
	c.Model, _ = kv[p+"model"].(string)
	c.Pre, _ = kv[p+"pre"].(string)
	c.Tokens, _ = kv[p+"tokens"].([]string)
	c.Scores, _ = kv[p+"scores"].([]float32)
	c.Types, _ = kv[p+"token_type"].([]int32)
	c.Merges, _ = kv[p+"merges"].([]string)
	c.BOS, c.EOS, c.UNK, c.SEP = id("bos"), id("eos"), id("unknown"), id("seperator")
	c.PAD, c.EOT, c.EOM = id("padding"), id("eot"), id("eom")
	c.AddBOS, c.AddEOS, c.AddSpacePrefix = flag("add_bos_token"), flag("add_eos_token"), flag("add_space_prefix")
	return c
}

type ggufReader struct{ b []byte }

func (r *ggufReader) take(n uint64) []byte {
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *ggufReader) str() string { return string(r.take(r.u64())) }

// value reads a value of a GGUF type; strings, float32 and int32 come as slices
// where they are arrays.
func (r *ggufReader) value(typ uint32) any {
	switch typ {
	case 0, 1:
		return r.take(1)[0]
	case 2, 3:
		return binary.LittleEndian.Uint16(r.take(2))
	case 4:
		return r.u32()
	case 5:
		return int32(r.u32())
	case 6:
		var f float32
		binary.Decode(r.take(4), binary.LittleEndian, &f)
		return f
	case 7:
		return r.take(1)[0] != 0
	case 8:
		return r.str()
	case 10, 11, 12:
		return r.u64()
	case 9:
		return r.array()
	}
	panic(fmt.Sprintf("BUG: GGUF type %d", typ))
}

func (r *ggufReader) array() any {
	elem, n := r.u32(), r.u64()
	switch elem {
	case 8:
		s := make([]string, n)
		for i := range s {
			s[i] = r.str()
		}
		return s
	case 6:
		f := make([]float32, n)
		binary.Decode(r.take(4*n), binary.LittleEndian, f)
		return f
	case 5:
		v := make([]int32, n)
		binary.Decode(r.take(4*n), binary.LittleEndian, v)
		return v
	}
	for range n {
		r.value(elem)
	}
	return nil
}
