package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// scoring is the job of Logits and Perplexity: rows are copied for the caller.
// Until it has taken them no more are sent for; while it reads them they are.
type scoring struct {
	first int       // position of the first row in rows
	rows  []float32 // (n, vocab)
}

func (c *scoring) take(s *sequence, pos int, logits []float32, _ time.Time) bool {
	if len(c.rows) == 0 {
		c.first = pos
	}
	c.rows = append(c.rows, logits...)
	s.from = pos + 1
	s.busy = true
	s.notify()
	return false
}

func (c *scoring) end(*sequence, time.Time) {}

// Logits computes the logits that follow tokens, or those after every token
// with all. each gets them in order, in the caller's goroutine; logits (vocab)
// is valid during the call.
func (e *Engine) Logits(ctx context.Context, tokens []int32, all bool, each func(pos int, logits []float32) error) error {
	from := len(tokens) - 1
	if all {
		from = 0
	}
	return e.score(ctx, tokens, from, each)
}

// score calls each with the logits of the positions from `from` on.
func (e *Engine) score(ctx context.Context, tokens []int32, from int, each func(pos int, logits []float32) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	vocab := e.model.Config.Vocab
	room := max(0, min(len(tokens)-from, e.bounds().Outs)) * vocab
	c, spare := &scoring{rows: make([]float32, 0, room)}, make([]float32, 0, room)
	s := &sequence{job: c, tokens: tokens, from: from}
	if err := e.submit(s); err != nil {
		return err
	}
	for {
		err := e.await(ctx, s)
		rows, first, ended, failed := c.rows, c.first, s.ended, s.err
		c.rows, s.busy = spare[:0], false
		e.wake.Signal()
		e.mu.Unlock()
		if err != nil {
			return err
		}
		for i := 0; i < len(rows) && err == nil; i += vocab {
			err = each(first+i/vocab, rows[i:i+vocab])
		}
		spare = rows
		if err != nil {
			e.mu.Lock()
			e.drop(s)
			e.mu.Unlock()
			return err
		}
		if ended {
			return failed
		}
	}
}

// Perplexity is how well a model predicts a text.
type Perplexity struct {
	Perplexity float64 // exp(NLL)
	NLL        float64 // mean negative log-likelihood of a scored token, nats
	Tokens     int     // scored
	Chunks     int
}

// Perplexity measures a text by llama.cpp's method (examples/perplexity): the
// tokens, with their BOS if the model adds one, are cut into chunks of
// context; the first token of every chunk is replaced by bos (-1: is left);
// the second half of every chunk is scored, but for its first token. What
// remains behind the last whole chunk is not used. progress, if not nil, is
// called after every chunk with the figures so far and the number of chunks.
func (e *Engine) Perplexity(ctx context.Context, tokens []int32, context int, bos int32, progress func(so Perplexity, chunks int)) (Perplexity, error) {
	var p Perplexity
	if context < 4 {
		return p, fmt.Errorf("context %d: perplexity needs at least 4", context)
	}
	if most := e.Context(); context > most {
		return p, fmt.Errorf("perplexity over chunks: %w", &ContextError{context, most})
	}
	if len(tokens) < 2*context {
		return p, fmt.Errorf("the text has %d tokens, perplexity with a context of %d needs at least %d: use a longer text or a smaller context",
			len(tokens), context, 2*context)
	}
	chunks := len(tokens) / context
	chunk := make([]int32, context)
	sum := 0.0
	for i := range chunks {
		copy(chunk, tokens[i*context:])
		if bos >= 0 {
			chunk[0] = bos
		}
		for _, id := range chunk {
			if id < 0 || int(id) >= e.model.Config.Vocab {
				return p, fmt.Errorf("token %d: the vocabulary has %d", id, e.model.Config.Vocab)
			}
		}
		// the last row has nothing to predict
		err := e.score(ctx, chunk[:context-1], context/2, func(pos int, logits []float32) error {
			nll := surprise(logits, chunk[pos+1])
			if math.IsNaN(nll) {
				return errors.New("the model gave a logit that is not a number")
			}
			sum += nll
			p.Tokens++
			return nil
		})
		if err != nil {
			return p, fmt.Errorf("chunk %d of %d: %w", i+1, chunks, err)
		}
		p.Chunks++
		p.NLL = sum / float64(p.Tokens)
		p.Perplexity = math.Exp(p.NLL)
		if progress != nil {
			progress(p, chunks)
		}
	}
	return p, nil
}

// surprise is the negative log-likelihood of id, in nats.
func surprise(logits []float32, id int32) float64 {
	most := logits[0]
	for _, l := range logits {
		most = max(most, l)
	}
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l - most))
	}
	return math.Log(sum) + float64(most-logits[id])
}
