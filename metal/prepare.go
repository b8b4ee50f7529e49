//go:build (darwin && arm64) || (linux && amd64 && metalsim)

package metal

// prepare makes the arguments of every product that Forward dispatches.
func (s *stage) prepare() {
	c := s.c
	s.queue.s = s
	s.prompts = newPromptShape(c.Group())
	s.tiles = make([]tileList, ceil(s.lim.Rows, s.tile))
	s.byBlock = make([]blockProducts, c.Blocks())
	for i, l := range s.layers {
		if l.q != nil {
			p := &s.byBlock[1+2*i]
			p.layer = l
			p.qkv = s.products(s.in, s.ld.dim, target{l.q, l.qBias, s.q, s.ld.q}, target{l.k, l.kBias, s.k, s.ld.kv}, target{l.v, l.vBias, s.v, s.ld.kv})
			p.o = s.products(s.att, s.ld.q, target{l.o, l.oBias, s.x, s.ld.dim})
		}
		if l.down != nil {
			p := &s.byBlock[2+2*i]
			p.layer = l
			s.prepareFeedForward(p, l)
		}
	}
	if s.output != nil {
		s.outputs = s.products(s.in, s.ld.dim, target{s.output, nil, s.logits, s.ld.vocab})
	}
}

func (s *stage) prepareFeedForward(p *blockProducts, l *layer) {
	p.gateUp = s.products(s.in, s.ld.dim, target{l.gate, nil, s.gate, s.ld.ffn}, target{l.up, nil, s.up, s.ld.ffn})
	if s.c.Experts == 0 {
		p.down = s.products(s.gate, s.ld.ffn, target{l.down, nil, s.x, s.ld.dim})
		return
	}
	p.router = s.products(s.in, s.ld.dim, target{l.router, nil, s.routed, s.ld.experts})
	p.down = s.products(s.gate, s.ld.ffn, target{l.down, nil, s.mixed, s.ld.dim})
	for _, group := range []products{p.gateUp, p.down} {
		for i := range group {
			group[i].experts = s.c.Experts
			group[i].args.Experts, group[i].args.Total = s.list, int32(s.c.Experts)
		}
	}
	for i := range p.gateUp {
		p.gateUp[i].args.Share = 1
	}
}

// target is a matrix and where its products go; those that go to the hidden state
// are added to it.
type target struct {
	m    *matrix
	bias *vector
	y    uint64
	ld   int
}

// products groups matrices that read rows of x, ld apart, by format.
func (s *stage) products(x uint64, ld int, results ...target) products {
	var all products
	for _, r := range results {
		k := s.kernels.weights[r.m.f]
		at := -1
		for i := range all {
			if all[i].k == k {
				at = i
			}
		}
		if at < 0 {
			at = len(all)
			p := product{k: k, hidden: r.y == s.x, args: Product{X: x, Cols: int32(r.m.cols), LdX: int32(ld)}}
			if p.hidden {
				p.args.Add = 1
			}
			all = append(all, p)
		}
		p := &all[at]
		p.args.M[p.args.Matrices] = Matrix{Y: r.y, Bias: r.bias.place(), Rows: int32(r.m.rows), LdY: int32(r.ld), Stride: r.m.stride}
		p.args.Matrices++
		p.m, p.rows = append(p.m, r.m), append(p.rows, r.m.rows)
	}
	return all
}
