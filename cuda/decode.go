//go:build (linux && cgo) || windows

package cuda

import "drover/backend"

// graphKey is what the launches and copies of a batch of the decode class
// depend on; everything else goes up with the batch.
type graphKey struct {
	run, rows, outs, top int
	logits, norm         bool
}

// mostGraphs are kept; what a caller asks for beyond runs launch by launch.
const mostGraphs = 64

// decode sends the pass's batch through a run by replaying its graph, which is
// captured when it is first wanted. Rows are padded to a power of two.
func (s *stage) decode(run int) error {
	p := &s.pass
	b, real := p.b, p.rows
	head := p.r.Hi == s.c.Blocks()
	p.rows = bucket(real)
	if p.outs = 0; head {
		p.outs = bucket(len(b.Out))
	}
	p.in = newInputs(p.rows, p.rows, p.outs, s.maxPages)
	s.fillIn(p)
	if p.r.Lo > 0 {
		clear(s.hidden[real*s.ld.dim : p.rows*s.ld.dim])
	}
	if err := s.replay(p, run); err != nil {
		return err
	}
	if err := s.stream.sync(); err != nil {
		return err
	}
	s.takeHidden(p)
	if head && len(b.Out) > 0 {
		s.takeLogits(b, 0, len(b.Out))
		if b.Top > 0 {
			s.takeTop(b, 0, p.outs)
		}
	}
	return nil
}

// replay queues the batch's graph.
func (s *stage) replay(p *pass, run int) error {
	key := graphKey{run: run, rows: p.rows, outs: p.outs}
	if p.outs > 0 {
		key.top, key.logits, key.norm = p.b.Top, p.b.Logits != nil, p.b.Norm != nil
	}
	g := s.graphs[key]
	if g == nil {
		if len(s.graphs) == mostGraphs {
			return s.decodeOnce(p)
		}
		var err error
		if g, err = s.capture(p); err != nil {
			return err
		}
		s.graphs[key] = g
	}
	return s.stream.replay(g)
}

// capture makes a graph of the pass.
func (s *stage) capture(p *pass) (*graph, error) {
	if err := s.stream.begin(); err != nil {
		return nil, err
	}
	err := s.decodeOnce(p)
	g, ended := s.stream.end()
	if err == nil {
		return g, ended
	}
	if ended == nil {
		g.close()
	}
	return nil, err
}

// decodeOnce queues the batch: inputs up, blocks, results down.
func (s *stage) decodeOnce(p *pass) error {
	if err := s.copyInputs(p); err != nil {
		return err
	}
	last := s.c.Blocks() - 1
	for block := p.r.Lo; block < min(p.r.Hi, last); block++ {
		if err := s.block(p, block); err != nil {
			return err
		}
	}
	if p.r.Hi <= last {
		return s.stream.copyOut(bytesOf(s.hidden[:p.rows*s.ld.dim]), s.x)
	}
	if p.outs == 0 {
		return nil
	}
	if err := s.headTile(p, 0, p.outs); err != nil {
		return err
	}
	if p.b.Top > 0 {
		return s.largest(p, 0, p.outs)
	}
	return nil
}

// trace copies n rows of width values, ld apart, for flush.
func (s *stage) trace(p *pass, layer int, op backend.Op, at uint64, ld, width int) error {
	if p.b.Trace == nil {
		return nil
	}
	host, err := s.d.hostAlloc(4 * p.n * ld)
	if err != nil {
		return err
	}
	defer s.d.hostFree(host)
	if err := s.stream.copyOut(host, at); err != nil {
		return err
	}
	if err := s.stream.sync(); err != nil {
		return err
	}
	s.traced.layer = layer
	for i, x := 0, floats(host); i < p.n; i++ {
		s.traced.points[op] = append(s.traced.points[op], x[i*ld:][:width]...)
	}
	return nil
}

// traced is what a block's trace has kept: tiles of rows go together.
type traced struct {
	layer  int
	points [backend.OpLogits + 1][]float32
}

// flush reports a block's trace, in the order of the ops.
func (s *stage) flush(p *pass) error {
	if p.b.Trace == nil {
		return nil
	}
	for op, x := range s.traced.points {
		if len(x) > 0 {
			p.b.Trace(s.traced.layer, backend.Op(op), x)
			s.traced.points[op] = x[:0]
		}
	}
	return nil
}
