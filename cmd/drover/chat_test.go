package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"drover/internal/chat"
)

// script is a person who types lines; "^C" is Ctrl-C.
type script []string

func (s *script) ReadLine() (string, error) {
	if len(*s) == 0 {
		return "", io.EOF
	}
	line := (*s)[0]
	*s = (*s)[1:]
	if line == "^C" {
		return "", errLineStopped
	}
	return line, nil
}

// said writes a conversation in short: "system: a | user: b".
func said(messages []chat.Message) string {
	var all []string
	for _, m := range messages {
		all = append(all, m.Role+": "+m.Content)
	}
	return strings.Join(all, " | ")
}

func TestChatLoop(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines script
		want  []string // what the model is asked
		notes string   // part of what is said on stderr
	}{
		{"two turns", script{"hi", "more"}, []string{"user: hi", "user: hi | assistant: re hi | user: more"}, ""},
		{"empty lines", script{"", "  ", "hi"}, []string{"user: hi"}, ""},
		{"help", script{"/help", "hi"}, []string{"user: hi"}, "Ctrl-C stops the answer"},
		{"exit", script{"hi", "/exit", "more"}, []string{"user: hi"}, ""},
		{"clear", script{"hi", "/clear", "more"}, []string{"user: hi", "user: more"}, "a new conversation"},
		{"system", script{"/system be kind", "hi", "/clear", "ho"}, []string{"system: be kind | user: hi", "system: be kind | user: ho"}, ""},
		{"no system", script{"/system be kind", "/system", "hi"}, []string{"user: hi"}, ""},
		{"unknown", script{"/hlep", "hi"}, []string{"user: hi"}, "did you mean /help?"},
		{"Ctrl-C at the prompt", script{"^C", "hi", "^C", "ho"}, []string{"user: hi", "user: hi | assistant: re hi | user: ho"}, "Ctrl-D or /exit"},
		{"Ctrl-C twice leaves", script{"^C", "^C", "hi"}, nil, "Ctrl-D or /exit"},
	} {
		var notes bytes.Buffer
		var asked []string
		l := &chatLoop{lines: &c.lines, notes: &notes, interrupt: make(chan os.Signal),
			answer: func(_ context.Context, m []chat.Message) (string, error) {
				asked = append(asked, said(m))
				return "re " + m[len(m)-1].Content, nil
			}}
		if err := l.run(context.Background()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if strings.Join(asked, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: asked %q, want %q", c.name, asked, c.want)
		}
		if !strings.Contains(notes.String(), c.notes) {
			t.Errorf("%s: notes %q, want %q in it", c.name, notes.String(), c.notes)
		}
	}
}

// Ctrl-C ends the answer, not the chat; what was written is kept.
func TestChatInterrupt(t *testing.T) {
	var notes bytes.Buffer
	interrupt := make(chan os.Signal, 1)
	lines := script{"a", "b"}
	var last []chat.Message
	l := &chatLoop{lines: &lines, notes: &notes, interrupt: interrupt,
		answer: func(ctx context.Context, m []chat.Message) (string, error) {
			last = m
			if m[len(m)-1].Content == "a" {
				interrupt <- os.Interrupt
				<-ctx.Done()
				return "half an", ctx.Err()
			}
			return "b!", nil
		}}
	if err := l.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, want := said(last), "user: a | assistant: half an | user: b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(notes.String(), "stopped") {
		t.Errorf("notes: %q", notes.String())
	}
}

// A conversation that outgrows the context loses its oldest exchange; a single
// message that does not fit is refused; another error ends the chat.
func TestChatFull(t *testing.T) {
	lines := script{"/system s", "a", "b", "c", "d", "too long", "e"}
	var asked []string
	l := &chatLoop{lines: &lines, notes: io.Discard, interrupt: make(chan os.Signal),
		answer: func(_ context.Context, m []chat.Message) (string, error) {
			if len(m) > 6 || m[len(m)-1].Content == "too long" {
				return "", errFull
			}
			asked = append(asked, said(m))
			return "re", nil
		}}
	if err := l.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := "system: s | user: b | assistant: re | user: c | assistant: re | user: d"; asked[3] != want {
		t.Errorf("got %q, want %q", asked[3], want)
	}
	if want := "system: s | user: c | assistant: re | user: d | assistant: re | user: e"; asked[4] != want {
		t.Errorf("got %q, want %q", asked[4], want)
	}

	broken := errors.New("the device broke")
	lines = script{"a"}
	l.answer = func(context.Context, []chat.Message) (string, error) { return "", broken }
	if err := l.run(context.Background()); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestKeysTellCtrlC(t *testing.T) {
	k := &keys{r: strings.NewReader("ab\x03c")}
	if got, err := io.ReadAll(k); err != nil || string(got) != "ab\x03c" || !k.stopped {
		t.Errorf("got %q %v, stopped %v", got, err, k.stopped)
	}
	k = &keys{r: strings.NewReader("\x04")}
	if _, err := io.ReadAll(k); err != nil || k.stopped {
		t.Errorf("Ctrl-D taken for Ctrl-C")
	}
}
