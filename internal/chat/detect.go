package chat

import (
	"regexp"
	"strings"
)

// Detect recognises a chat template by its markers. demo: the model is the
// embedded one, whose format is known. ok is false for a template of another
// format, or none: the prompt is then best given to the model as it is.
func Detect(template string, demo bool) (f Format, ok bool) {
	f = Format{BOS: "<s>", EOS: "</s>"}
	has := func(marker string) bool { return strings.Contains(template, marker) }
	switch {
	case demo || has(`'User: ' + message['content'] + '\n' }}`) && has(`'Assistant: ' + message['content'] + eos_token`):
		f.name, f.render, f.stops = "demo", renderDemo, []string{"\nUser:"}
	case has("<|im_start|>") && has("<|im_end|>") && !has("<|im_sep|>") && !has("<end_of_utterance>"):
		f.name, f.render, f.stops = "chatml", renderChatML, []string{"<|im_end|>", "<|im_start|>"}
		f.system = defaultSystem(template)
	case has("<|start_header_id|>") && has("<|end_header_id|>"):
		f.name, f.render, f.stops = "llama-3", renderLlama3, []string{"<|eot_id|>", "<|start_header_id|>"}
	case has("[INST]") && has("<<SYS>>"):
		f.name, f.render = "llama-2", renderLlama2
	case has("[INST]"):
		f.name, f.render = "mistral", renderMistral
		f.inst = instStyleOf(template)
	case has("<|assistant|>") && endsUser(template):
		f.name, f.render, f.stops = "zephyr", renderZephyr, []string{"<|user|>", "<|system|>"}
		if has("<|endoftext|>") {
			f.EOS = "<|endoftext|>"
		}
	default:
		return Format{}, false
	}
	return f, true
}

// defaultSystem is the system message that a ChatML template (Qwen's) says where
// a conversation has none, or empty.
func defaultSystem(template string) string {
	m := regexp.MustCompile(`<\|im_start\|>system(?:\\n|\n)([^'"{}]+)<\|im_end\|>`).FindStringSubmatch(template)
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(m[1], `\n`, "\n")
}

// endsUser tells zephyr from the other formats that write <|user|>: a user's
// turn ends with EOS.
func endsUser(template string) bool {
	_, turn, ok := strings.Cut(template, "<|user|>")
	turn, _, _ = strings.Cut(turn, "}}")
	return ok && (strings.Contains(turn, "eos_token") || strings.Contains(turn, "</s>") || strings.Contains(turn, "<|endoftext|>"))
}
