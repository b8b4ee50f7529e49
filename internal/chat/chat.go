// Package chat writes conversations the way a model was taught to read them. It
// knows a handful of published formats, which it recognises by their markers in
// a model's chat template (a Jinja program, which is not run), and nothing of
// vocabularies or models.
package chat

import "strings"

// Message is one turn. Role is "system", "user" or "assistant".
type Message struct {
	Role, Content string
}

// Segment is a part of a prompt. Control tokens may be read from Text only
// where Special is set: what a person typed never becomes structure.
// token.EncodeSegments encodes a row of segments.
type Segment struct {
	Text    string
	Special bool
}

// Format is a way to write conversations. BOS and EOS are the texts of the
// model's tokens; Detect sets Llama's, <s> and </s>, and a caller that knows the
// vocabulary sets others.
type Format struct {
	BOS, EOS string

	name   string
	render func(f *Format, b *builder, messages []Message, addAssistant bool)
	stops  []string

	system string    // ChatML: said where a conversation has no system message
	inst   instStyle // Mistral
}

// Name is the format's customary name: "chatml", "mistral"...
func (f Format) Name() string { return f.name }

// Render writes a conversation, and with addAssistant what comes before the
// assistant's next words. A BOS before the whole is not written: encode with
// addSpecial, which adds it where the model wants one. Messages with a role that
// the format has no place for are left out.
func (f Format) Render(messages []Message, addAssistant bool) []Segment {
	var b builder
	f.render(&f, &b, messages, addAssistant)
	return b
}

// Stops are the texts that end the assistant's turn beside the vocabulary's
// end-of-generation tokens: its end marker, should the vocabulary spell it as
// ordinary text, and the beginning of another turn.
func (f Format) Stops() []string { return f.stops }

// builder collects segments.
type builder []Segment

// mark adds text of the template.
func (b *builder) mark(parts ...string) { b.add(strings.Join(parts, ""), true) }

// said adds text of a message.
func (b *builder) said(text string) { b.add(text, false) }

func (b *builder) add(text string, special bool) {
	if text != "" {
		*b = append(*b, Segment{text, special})
	}
}

// splitSystem takes the system messages out, joined by empty lines.
func splitSystem(messages []Message) (system string, rest []Message) {
	var parts []string
	for _, m := range messages {
		if m.Role == "system" {
			parts = append(parts, m.Content)
		} else {
			rest = append(rest, m)
		}
	}
	return strings.Join(parts, "\n\n"), rest
}
