package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/internal/chat"
	"drover/internal/token"
)

// source is where run's prompt comes from.
type source struct {
	text string
	ids  []int32 // --tokens; nil: text
	chat bool    // no prompt: talk on the terminal
}

// readSource finds the one prompt. What the command line gives goes before
// what the environment gives; two of the same rank are an error.
func readSource(c *cli.Context) (source, error) {
	var cl, env []string
	if c.NArg() > 0 {
		cl = append(cl, "PROMPT")
	}
	counts, _ := c.App.Metadata["given"].(map[string]int)
	for _, name := range []string{"prompt", "file", "tokens"} {
		for range counts[name] {
			cl = append(cl, "--"+name)
		}
		if counts[name] == 0 && c.IsSet(name) {
			env = append(env, name)
		}
	}
	if err := wrongArgs(c, 1); err != nil {
		return source{}, err
	}
	if len(cl) > 1 {
		return source{}, usageError("give one of PROMPT, --prompt, --file and --tokens", "two prompts: %s", strings.Join(cl, " and "))
	}
	if len(cl) == 0 && len(env) > 1 {
		return source{}, usageError("set one of them", "two prompts in the environment: %s and %s", envVars("", env[0])[0], envVars("", env[1])[0])
	}
	name := ""
	switch {
	case len(cl) > 0:
		name = strings.TrimPrefix(cl[0], "--")
	case len(env) > 0:
		name = env[0]
	}
	switch name {
	case "PROMPT":
		return source{text: c.Args().First()}, nil
	case "prompt":
		return source{text: c.String("prompt")}, nil
	case "tokens":
		ids, err := parseIDs("tokens", c.String("tokens"))
		return source{ids: ids}, err
	case "file":
		return textSource(c, c.String("file"))
	}
	if !isTerminal(c.App.Reader) {
		return textSource(c, "-")
	}
	if !isTerminal(c.App.Writer) || wantJSON(c) {
		return source{}, usageError("drover run PROMPT; a chat needs a terminal and no --json", "no prompt given")
	}
	return source{chat: true}, nil
}

// textSource is a file's text without the newline that ends its last line.
func textSource(c *cli.Context, path string) (source, error) {
	text, err := readFile(c, path)
	text = strings.TrimSuffix(text, "\n")
	return source{text: strings.TrimSuffix(text, "\r")}, err
}

// prompt is what the model gets to read.
type prompt struct {
	ids   []int32
	stops []string            // texts that end a turn
	isEnd func(id int32) bool // ids that end a turn
	echo  string              // the text that the answer continues
}

// prompt turns the source into tokens: ids as they are, text by the model's
// chat template, or raw where it has none, --raw is set, or the demo model is
// to continue a text.
func (s *session) prompt(c *cli.Context, src source) (prompt, error) {
	if src.ids != nil {
		p := prompt{ids: src.ids}
		if s.tokens != nil {
			p.isEnd = s.tokens.EndOfGeneration
		}
		return p, checkIDs(src.ids, s.file.Model.Config.Vocab)
	}
	raw := s.demo || c.Bool("raw")
	var f chat.Format
	if !raw {
		f, raw = s.format()
	}
	if !raw {
		return s.render(f, append(systemMessage(c.String("system")), chat.Message{Role: "user", Content: src.text})), nil
	}
	if c.String("system") != "" {
		if given(c, "system") {
			return prompt{}, usageError("leave --system out", "--system wants a chat template, and the prompt is read raw")
		}
		fmt.Fprintln(s.notes, "the system message is not used: the prompt is read raw")
	}
	p := prompt{ids: s.tokens.Encode(src.text, true, true), isEnd: s.tokens.EndOfGeneration, echo: src.text}
	if len(p.ids) == 0 {
		return p, usageError("drover run PROMPT", "the prompt is empty, and the model has no token to begin with")
	}
	return p, nil
}

// format is the model's chat format. raw: it has none that is known, which is
// said where it has a template.
func (s *session) format() (f chat.Format, raw bool) {
	f, ok := chat.Detect(s.file.ChatTemplate, s.demo)
	if !ok {
		if s.file.ChatTemplate != "" {
			fmt.Fprintln(s.notes, "the model's chat template is not known: the prompt is read raw")
		}
		return f, true
	}
	if id := s.tokens.BOS(); id >= 0 {
		f.BOS = string(s.tokens.Piece(id, true))
	}
	if id := s.tokens.EOS(); id >= 0 {
		f.EOS = string(s.tokens.Piece(id, true))
	}
	return f, false
}

// render writes a conversation as the model reads it, up to its answer.
func (s *session) render(f chat.Format, messages []chat.Message) prompt {
	ids := token.EncodeSegments(s.tokens, f.Render(messages, true), true)
	return prompt{ids: ids, stops: f.Stops(), isEnd: s.tokens.EndOfGeneration}
}

func systemMessage(text string) []chat.Message {
	if text == "" {
		return nil
	}
	return []chat.Message{{Role: "system", Content: text}}
}
