package verify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"drover/backend"
	"drover/internal/ref"
)

// Logits is how far those of all blocks together are from what they should be.
type Logits struct {
	Rows  int     // whose logits were compared
	NMSE  float64 // against the reference's, of the rows that are judged
	Limit float64
	// Together is the NMSE of the model as it is run against the same blocks one by
	// one: runs, fused kernels and what goes from device to device.
	Together, TogetherLimit float64
	KL, KLMost              float64 // mean and largest divergence in nats
	Top1                    int     // rows whose largest logit is the same token's
	Diverges                *Divergence
	// Unclear rows of a mixture may go to other experts once errors have added up, and
	// what they leave in the cache changes the others. Where there are any, NMSE, KL
	// and tokens are not judged; Together is.
	Unclear int
	Greedy  string // what is wrong with the kernel that finds the largest logit, or empty
	OK      bool
}

// Divergence is the first row whose largest logit is another token's.
type Divergence struct {
	Where     string
	Got, Want int32
	Gap       float64 // of the reference's logits of the two
	Tie       float64 // up to here it says nothing
}

// ties is how many standard errors of a logit's tolerance make two logits equal.
const ties = 6

// line is the stages, and the runs in the order of the blocks.
type line struct {
	stages []backend.Stage
	runs   []lineRun
}

type lineRun struct{ stage, index, lo int }

func (l *line) close() (err error) {
	for _, s := range l.stages {
		err = errors.Join(err, s.Close())
	}
	return err
}

// load puts the chosen layers on their devices.
func (v *verifier) load(ctx context.Context) (*line, error) {
	l := &line{}
	for _, p := range v.places {
		if len(p.Runs) == 0 {
			continue
		}
		s, err := p.Device.Load(ctx, v.m, p.Runs, v.lim, nil)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("load on %s: %w", p.Device.Info().ID, err), l.close())
		}
		for i, r := range p.Runs {
			l.runs = append(l.runs, lineRun{len(l.stages), i, r.Lo})
		}
		l.stages = append(l.stages, s)
	}
	slices.SortFunc(l.runs, func(a, b lineRun) int { return a.lo - b.lo })
	return l, nil
}

// whole runs the steps through all blocks, as `run` does, and compares the logits.
func (v *verifier) whole(ctx context.Context) (err error) {
	l, err := v.load(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	c := &v.m.Config
	var got [][]float32
	for i := range v.script.steps {
		b := v.script.batch(i, fused)
		b.Hidden, b.Out = make([]float32, len(b.Tokens)*c.Dim), v.script.steps[i].out()
		n := len(b.Out)
		b.Logits = make([]float32, n*c.Vocab)
		b.Top, b.TopIDs, b.TopLogits, b.LogSum = 1, make([]int32, n), make([]float32, n), make([]float32, n)
		for _, r := range l.runs {
			if err := l.stages[r.stage].Forward(ctx, r.index, b); err != nil {
				return fmt.Errorf("%s of all blocks: %w", v.script.steps[i].name, err)
			}
		}
		got = append(got, b.Logits)
		v.greedy(i, b)
	}
	v.logits(got)
	return nil
}

// greedy holds the largest logit that the device found to the logits.
func (v *verifier) greedy(i int, b *backend.Batch) {
	vocab, r := v.m.Config.Vocab, &v.report.Logits
	for row, id := range b.TopIDs {
		logits := b.Logits[row*vocab : (row+1)*vocab]
		if want := largest(logits); id != want && r.Greedy == "" {
			r.Greedy = fmt.Sprintf("%s: the largest logit is token %d's (%v), its kernel finds token %d", v.script.steps[i].name, want, logits[want], id)
		}
	}
}

func largest(x []float32) int32 {
	at := 0
	for i, v := range x {
		if v > x[at] {
			at = i
		}
	}
	return int32(at)
}

// logits compares those of all steps with the reference's and with the chain's.
func (v *verifier) logits(got [][]float32) {
	r, vocab := &v.report.Logits, v.m.Config.Vocab
	r.Limit, r.TogetherLimit = v.limits()
	var diff, norm, apart, chain float64
	for i := range got {
		for row, at := range v.script.steps[i].out() {
			x, want, own := got[i][row*vocab:(row+1)*vocab], v.want[i][row*vocab:(row+1)*vocab], v.chained[i][row*vocab:(row+1)*vocab]
			r.Rows++
			d, n := squares(x, own)
			apart, chain = apart+d, chain+n
			kl := ref.KL(x, want)
			r.KL += kl
			if r.KLMost = max(r.KLMost, kl); math.IsNaN(kl) {
				r.KLMost = kl
			}
			d, n = squares(x, want)
			diff, norm = diff+d, norm+n
			v.top1(i, int(at), x, want, n)
		}
	}
	r.Unclear = v.unclear()
	r.KL /= float64(max(1, r.Rows))
	r.NMSE, r.Together = share(diff, norm), share(apart, chain)
}

// share is a sum of squared differences as a share.
func share(diff, norm float64) float64 {
	if diff == 0 {
		return 0
	}
	return diff / norm
}

func squares(got, want []float32) (diff, norm float64) {
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		norm += float64(w) * float64(w)
	}
	return diff, norm
}

// top1 notes whether the largest logit is the reference's, and where first it is
// not; norm is the sum of the wanted logits' squares.
func (v *verifier) top1(i, row int, got, want []float32, norm float64) {
	r := &v.report.Logits
	g, w := largest(got), largest(want)
	if g == w {
		r.Top1++
		return
	}
	d := &Divergence{Got: g, Want: w, Gap: float64(want[w]) - float64(want[g]), Tie: ties * math.Sqrt(r.Limit*norm/float64(len(want)))}
	step, seq, position := v.place(i)(backend.OpFFNOut, row)
	d.Where = fmt.Sprintf("%s, sequence %d, position %d", step, seq, position)
	// the first that is more than a tie, or else the first
	if have := r.Diverges; have == nil || have.Gap <= have.Tie && !(d.Gap <= d.Tie) {
		r.Diverges = d
	}
}

// limits are those of logits: of all blocks the widest, as errors add up over
// layers, and of the model as it is run against its blocks.
func (v *verifier) limits() (logits, together float64) {
	for b := range v.where {
		rule := v.rule(b)
		logits = max(logits, rule.Whole(len(v.layers)).NMSE)
	}
	return logits, ref.Together().NMSE
}
