package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"

	"drover/internal/chat"
)

const chatHelp = `Type a message and press Enter. Up and Down bring earlier lines back.
  /clear         forget the conversation
  /system TEXT   set the system message and forget the conversation
  /help          this text
  /exit          leave (also Ctrl-D)
Ctrl-C stops the answer.
`

// errLineStopped: Ctrl-C instead of a line.
var errLineStopped = errors.New("line stopped")

// lineReader gives the lines that a person types. Errors: errLineStopped,
// io.EOF at the end.
type lineReader interface {
	ReadLine() (string, error)
}

// chatLoop holds a conversation: it reads lines, lets answer write to out, and
// keeps what was said.
type chatLoop struct {
	lines     lineReader
	notes     io.Writer // stderr
	interrupt <-chan os.Signal
	messages  []chat.Message
	// answer writes the answer to the conversation and returns its text, also
	// where an error cut it short. errFull: the conversation is too long.
	answer func(ctx context.Context, messages []chat.Message) (string, error)
}

// errFull: the conversation does not fit into the context.
var errFull = errors.New("the conversation is longer than the context")

// run reads and answers until the lines end.
func (l *chatLoop) run(ctx context.Context) error {
	stopped := false
	for {
		line, err := l.lines.ReadLine()
		switch {
		case errors.Is(err, errLineStopped) && !stopped:
			stopped = true
			fmt.Fprintln(l.notes, "(Ctrl-D or /exit leaves)")
			continue
		case errors.Is(err, io.EOF), errors.Is(err, errLineStopped):
			return nil
		case err != nil:
			return fmt.Errorf("read the terminal: %w", err)
		}
		stopped = false
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "/") {
			if l.command(line) {
				return nil
			}
		} else if line != "" {
			if err := l.turn(ctx, line); err != nil {
				return err
			}
		}
	}
}

// command obeys a line that begins with a slash; true: leave.
func (l *chatLoop) command(line string) bool {
	name, rest, _ := strings.Cut(line, " ")
	switch name {
	case "/exit", "/quit", "/bye":
		return true
	case "/help", "/?":
		fmt.Fprint(l.notes, chatHelp)
	case "/clear":
		l.messages = system(l.messages)
		fmt.Fprintln(l.notes, "(a new conversation)")
	case "/system":
		l.messages = nil
		if rest = strings.TrimSpace(rest); rest != "" {
			l.messages = []chat.Message{{Role: "system", Content: rest}}
		}
		fmt.Fprintln(l.notes, "(a new conversation)")
	default:
		hint := "/help lists the commands"
		if near := nearest(name, []string{"/exit", "/help", "/clear", "/system"}); near != "" {
			hint = "did you mean " + near + "?"
		}
		fmt.Fprintf(l.notes, "unknown command %s; %s\n", name, hint)
	}
	return false
}

// turn answers one line. Where the conversation has outgrown the context its
// oldest exchange is forgotten, and that is said.
func (l *chatLoop) turn(ctx context.Context, line string) error {
	before := l.messages
	l.messages = append(before[:len(before):len(before)], chat.Message{Role: "user", Content: line})
	for {
		text, err := l.interruptible(ctx)
		switch {
		case errors.Is(err, errFull):
			head := len(system(l.messages))
			if len(l.messages) < head+3 {
				l.messages = before
				fmt.Fprintln(l.notes, "(this message is longer than the context)")
				return nil
			}
			fmt.Fprintln(l.notes, "(the context is full: the oldest exchange is forgotten)")
			l.messages = append(l.messages[:head:head], l.messages[head+2:]...)
			continue
		case errors.Is(err, context.Canceled) && ctx.Err() == nil:
			fmt.Fprint(l.notes, "(stopped)\n")
		case err != nil:
			return err
		}
		l.messages = append(l.messages, chat.Message{Role: "assistant", Content: text})
		return nil
	}
}

// interruptible answers until Ctrl-C.
func (l *chatLoop) interruptible(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	select {
	case <-l.interrupt: // an old one
	default:
	}
	go func() {
		defer close(done)
		select {
		case <-l.interrupt:
			cancel()
		case <-ctx.Done():
		}
	}()
	return l.answer(ctx, l.messages)
}

// system is the system message at the head of a conversation, if there is one.
func system(messages []chat.Message) []chat.Message {
	if len(messages) > 0 && messages[0].Role == "system" {
		return messages[:1:1]
	}
	return nil
}

// editor reads lines from a terminal, with history and editing. The terminal
// is raw only while a line is read.
type editor struct {
	in, out *os.File
	prompt  string
	keys    *keys
	term    *term.Terminal
}

func newEditor(in, out *os.File, prompt string) *editor {
	e := &editor{in: in, out: out, prompt: prompt}
	e.reset()
	return e
}

// reset begins anew, but for the history.
func (e *editor) reset() {
	old := e.term
	e.keys = &keys{r: e.in}
	e.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, e.out}, e.prompt)
	if old != nil {
		e.term.History = old.History
	}
}

func (e *editor) ReadLine() (string, error) {
	fd := int(e.in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer term.Restore(fd, state)
	if w, h, err := term.GetSize(fd); err == nil && w > 0 {
		_ = e.term.SetSize(w, h)
	}
	line, err := e.term.ReadLine()
	if errors.Is(err, io.EOF) {
		fmt.Fprint(e.out, "\r\n")
		if e.keys.stopped {
			e.reset() // the Terminal keeps the line and the key
			err = errLineStopped
		}
	}
	return line, err
}

// keys tells Ctrl-C from the end of the input, which term.Terminal does not.
type keys struct {
	r       io.Reader
	stopped bool
}

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.r.Read(p)
	for _, b := range p[:n] {
		if b == 3 {
			k.stopped = true
		}
	}
	return n, err
}

// interrupts gives a channel of Ctrl-C, and how to end it.
func interrupts() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	return c, func() { signal.Stop(c) }
}
