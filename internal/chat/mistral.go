package chat

import "strings"

// instStyle is where a Mistral template puts spaces and the system message; the
// versions differ in little else (Mistral's cookbook, "Templates"):
//
//	v1           [INST] Hello! [/INST] Hi.</s> [INST] ... [/INST]   (all after a space)
//	v3           [INST] Hello![/INST] Hi.</s>[INST] ...[/INST]
//	v3-tekken    [INST]Hello![/INST]Hi.</s>[INST]...[/INST]
//	v7           [SYSTEM_PROMPT] Be kind.[/SYSTEM_PROMPT][INST] Hello![/INST] Hi.</s>
type instStyle struct {
	before, open, close, answer string // before [INST], after it, before [/INST], after it
	after                       string // after EOS
	system                      bool   // has a turn of its own for the system message
	last                        bool   // else it is part of the last user message, not the first
	trim                        bool   // answers are trimmed
}

func instStyleOf(template string) instStyle {
	space := func(markers ...string) string {
		for _, m := range markers {
			if strings.Contains(template, m) {
				return " "
			}
		}
		return ""
	}
	s := instStyle{
		before: space(" [INST]"),
		open:   space("[INST] "),
		close:  space(" [/INST]"),
		answer: space("' ' + message['content']", `" " + message["content"]`, "' ' + content"),
		after:  space("eos_token + ' '", "eos_token+' '", `eos_token + " "`),
		system: strings.Contains(template, "[SYSTEM_PROMPT]"),
		trim:   strings.Contains(template, "|trim") || strings.Contains(template, "| trim"),
	}
	s.last = s.close == ""
	return s
}

// renderMistral writes the form of Mistral's instruct models.
func renderMistral(f *Format, b *builder, messages []Message, _ bool) {
	s := f.inst
	system, messages := splitSystem(messages)
	if system != "" && s.system {
		b.mark("[SYSTEM_PROMPT]", s.open)
		b.said(system)
		b.mark("[/SYSTEM_PROMPT]")
		system = ""
	}
	lead := 0 // the user message that holds the system message
	for i, m := range messages {
		if m.Role == "user" && s.last {
			lead = i
		}
	}
	for i, m := range messages {
		switch m.Role {
		case "user":
			b.mark(s.before, "[INST]", s.open)
			if system != "" && i >= lead {
				b.said(system + "\n\n")
				system = ""
			}
			b.said(m.Content)
			b.mark(s.close, "[/INST]")
		case "assistant":
			b.mark(s.answer)
			if s.trim {
				m.Content = strings.TrimSpace(m.Content)
			}
			b.said(strings.TrimPrefix(m.Content, s.answer)) // the model's own words begin with the space
			b.mark(f.EOS, s.after)
		}
	}
}
