package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"drover/internal/sample"
)

// letters is a Stream: id 0 to 25 are a to z; a higher one is held back by one
// token, as an incomplete character would be.
type letters struct{ held string }

func (l *letters) Push(id int32) string {
	text := l.held
	l.held = ""
	if id < 26 {
		return text + "abcdefghijklmnopqrstuvwxyz"[id:id+1]
	}
	if id < 40 {
		return text
	}
	l.held = "é"
	return text
}

func (l *letters) Flush() string {
	text := l.held
	l.held = ""
	return text
}

// spell is the text of ids.
func spell(ids []int32) string {
	var l letters
	text := ""
	for _, id := range ids {
		text += l.Push(id)
	}
	return text + l.Flush()
}

func TestEnds(t *testing.T) {
	m := fakeModel(1, 0, 400)
	e := open(t, m, &fakeDevice{}, Options{Context: 128})
	prompt := []int32{5, 6, 7}
	all := newOracle(m).text(prompt, 125, sample.Greedy())
	all = append(all, newOracle(m).text(append(slices.Clone(prompt), all...), 1, sample.Greedy())...)
	text := spell(all[:40])
	late := strings.Index(text[10:], "é") + 10 // a stop string over several tokens, one of which comes late
	runes := []rune(text[late:])
	stop := string(runes[:3])
	before, _, _ := strings.Cut(text, stop)
	firstAt := func(id int32) int { return slices.Index(all, id) + 1 }
	for _, c := range []struct {
		name   string
		r      Request
		tokens int
		text   string
		stop   string
		full   bool
	}{
		{"length", Request{Max: 10}, 10, spell(all[:10]), StopLength, false},
		{"nothing", Request{Max: 0}, 0, "", StopLength, false},
		{"context", Request{Max: -1}, 126, spell(all[:126]), StopLength, true},
		{"context before length", Request{Max: 1000}, 126, spell(all[:126]), StopLength, true},
		{"end token", Request{Max: 100, IsEnd: func(id int32) bool { return id == all[20] }}, firstAt(all[20]), spell(all[:firstAt(all[20])-1]), StopEOS, false},
		{"ignored end token", Request{Max: 30, IsEnd: nil}, 30, spell(all[:30]), StopLength, false},
		{"stop string", Request{Max: 100, Stop: []string{"@@", stop}}, -1, before, StopText, false},
		{"stop string that does not come", Request{Max: 30, Stop: []string{"@@", text[20:22] + "@"}}, 30, spell(all[:30]), StopLength, false},
		{"end before the end of a stop string", Request{Max: 10, Stop: []string{spell(all[:10]) + "x"}}, 10, spell(all[:10]), StopLength, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.r.Tokens, c.r.Stream = prompt, &letters{}
			var emitted strings.Builder
			var ids []int32
			got, err := e.Generate(context.Background(), c.r, func(id int32, text string) error {
				emitted.WriteString(text)
				ids = append(ids, id)
				if !strings.HasPrefix(c.text, emitted.String()) {
					t.Errorf("emitted %q, the text is %q", emitted.String(), c.text)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got.Text != c.text || emitted.String() != c.text {
				t.Errorf("text %q, emitted %q, want %q", got.Text, emitted.String(), c.text)
			}
			if got.Stop != c.stop || got.ContextEnd != c.full {
				t.Errorf("stop %q, context end %v; want %q, %v", got.Stop, got.ContextEnd, c.stop, c.full)
			}
			if !slices.Equal(ids, got.Tokens) || !slices.Equal(ids, all[:len(ids)]) || c.tokens >= 0 && len(ids) != c.tokens {
				t.Errorf("tokens %v, emitted %v, want %d of %v", got.Tokens, ids, c.tokens, all)
			}
			if got.PromptTokens != 3 || got.Timings.Prompt < 0 || got.Timings.Decode < 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	m := fakeModel(1, 0, 400)
	e := open(t, m, &fakeDevice{}, Options{Context: 64})
	for _, c := range []struct {
		name string
		r    Request
		want string
	}{
		{"empty", Request{}, "the prompt is empty"},
		{"long", Request{Tokens: make([]int32, 65)}, "65 tokens do not fit the context of 64"},
		{"token", Request{Tokens: []int32{1, fakeVocab}}, "token 60 at position 1: the vocabulary has 60"},
		{"negative token", Request{Tokens: []int32{-1}}, "token -1"},
		{"empty stop", Request{Tokens: []int32{1}, Stop: []string{""}, Stream: &letters{}}, "stop string is empty"},
		{"stop without text", Request{Tokens: []int32{1}, Stop: []string{"x"}}, "no detokeniser"},
	} {
		_, err := e.Generate(context.Background(), c.r, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	var long *ContextError
	_, err := e.Generate(context.Background(), Request{Tokens: make([]int32, 65)}, nil)
	if !errors.As(err, &long) || long.Tokens != 65 || long.Context != 64 {
		t.Errorf("got %v", err)
	}
	if _, err := e.Generate(context.Background(), Request{Tokens: make([]int32, 64), Max: 5}, nil); err != nil {
		t.Errorf("a prompt as long as the context: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Generate(ctx, Request{Tokens: []int32{1}}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}
