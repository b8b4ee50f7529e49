package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"drover/backend"
	"drover/internal/model"
	"drover/internal/quant"
)

// patterns is a table of random F32 rows, and their bytes. As an embedding it
// goes over the link into the device's memory; a kernel gathers its rows, which
// come back over the link, to the bit.
type patterns struct {
	m     *backend.Model
	bytes []byte
}

// patternRows of patternDim: 8 MiB.
const patternRows, patternDim, patternBatch = 8192, 256, 512

func newPatterns() (*patterns, error) {
	f, err := model.Open(fmt.Sprintf("synthetic:dim=%d,layers=1,heads=4,ffn=256,vocab=%d:F32:%d", patternDim, patternRows, seed))
	if err != nil {
		return nil, fmt.Errorf("memory check: %w", err)
	}
	p := &patterns{m: f.Model, bytes: make([]byte, f.Model.Embed.Bytes())}
	return p, f.Model.Embed.Read(p.bytes, 0, patternRows)
}

// memory writes the table and reads it back; false: the device cannot go on.
func (e *examination) memory(ctx context.Context, p *patterns) bool {
	const name = "memory"
	l := backend.Limits{Pages: patternBatch / backend.PageRows, Rows: patternBatch, Seqs: 1, Context: patternBatch, Outs: 1, K: quant.F16, V: quant.F16}
	s, err := e.dev.Load(ctx, p.m, []backend.Range{{Lo: 0, Hi: 1}}, l, nil)
	if err != nil {
		e.fail(name, err)
		return false
	}
	defer s.Close()
	for lo := 0; lo < patternRows; lo += patternBatch {
		b := &backend.Batch{Hidden: make([]float32, patternBatch*patternDim), Seqs: []backend.Seq{{Rows: patternBatch}}}
		for i := range patternBatch {
			b.Tokens, b.Pos = append(b.Tokens, int32(lo+i)), append(b.Pos, int32(i))
		}
		for i := range l.Pages {
			b.Seqs[0].Pages = append(b.Seqs[0].Pages, int32(i))
		}
		if err := s.Forward(ctx, 0, b); err != nil {
			e.fail(name, err)
			return false
		}
		if at, got, want, bad := p.differ(b.Hidden, lo); bad > 0 {
			c := e.fail(name, fmt.Errorf("embed: %d of %d values read back are not what was written; byte %d of the table: %08x, not %08x", bad, len(b.Hidden), at, got, want))
			c.Hint = wrong(e.kind)
			return false
		}
	}
	e.pass(name, fmt.Sprintf("%d MiB written, gathered by a kernel and read back", len(p.bytes)>>20))
	return true
}

// differ counts the values that are not the table's from row lo on, and gives the
// first.
func (p *patterns) differ(got []float32, lo int) (at int, first, want uint32, n int) {
	table := p.bytes[4*lo*patternDim:]
	var word [4]byte
	for i, v := range got {
		binary.LittleEndian.PutUint32(word[:], math.Float32bits(v))
		if bytes.Equal(word[:], table[4*i:4*i+4]) {
			continue
		}
		if n++; n == 1 {
			at, first, want = 4*(lo*patternDim+i), math.Float32bits(v), binary.LittleEndian.Uint32(table[4*i:])
		}
	}
	return at, first, want, n
}
