package chat

import "strings"

// renderDemo writes the embedded model's form, where a turn of the assistant
// ends with EOS and the next turn follows directly:
//
//	User: Hello!\nAssistant: Hello!</s>User: ...\nAssistant:
func renderDemo(f *Format, b *builder, messages []Message, addAssistant bool) {
	for _, m := range messages {
		switch m.Role {
		case "user":
			b.mark("User: ")
			b.said(m.Content)
			b.mark("\n")
		case "assistant":
			b.mark("Assistant: ")
			b.said(strings.TrimPrefix(m.Content, " ")) // the model's own words begin with the space
			b.mark(f.EOS)
		}
	}
	if addAssistant {
		b.mark("Assistant:")
	}
}

// renderChatML writes OpenAI's ChatML, as Qwen and many others read it:
//
//	<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n
func renderChatML(f *Format, b *builder, messages []Message, addAssistant bool) {
	if f.system != "" && (len(messages) == 0 || messages[0].Role != "system") {
		b.mark("<|im_start|>system\n", f.system, "<|im_end|>\n")
	}
	for _, m := range messages {
		b.mark("<|im_start|>")
		b.said(m.Role)
		b.mark("\n")
		b.said(m.Content)
		b.mark("<|im_end|>\n")
	}
	if addAssistant {
		b.mark("<|im_start|>assistant\n")
	}
}

// renderLlama3 writes Llama 3's form. The dates that the templates of 3.1 and
// later put before every system message are left out.
//
//	<|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>
func renderLlama3(_ *Format, b *builder, messages []Message, addAssistant bool) {
	for _, m := range messages {
		b.mark("<|start_header_id|>")
		b.said(m.Role)
		b.mark("<|end_header_id|>\n\n")
		b.said(strings.TrimSpace(m.Content))
		b.mark("<|eot_id|>")
	}
	if addAssistant {
		b.mark("<|start_header_id|>assistant<|end_header_id|>\n\n")
	}
}

// renderLlama2 writes Llama 2's form; a system message is part of the first
// turn, and each exchange is a text of its own, from BOS to EOS:
//
//	[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello! [/INST] Hi. </s><s>[INST] ... [/INST]
func renderLlama2(f *Format, b *builder, messages []Message, _ bool) {
	system, messages := splitSystem(messages)
	after := false // an answer stands before
	for _, m := range messages {
		switch m.Role {
		case "user":
			if after {
				b.mark(f.BOS)
			}
			b.mark("[INST] ")
			if system != "" {
				b.mark("<<SYS>>\n")
				b.said(system)
				b.mark("\n<</SYS>>\n\n")
				system = ""
			}
			b.said(strings.TrimSpace(m.Content))
			b.mark(" [/INST]")
		case "assistant":
			b.mark(" ")
			b.said(strings.TrimSpace(m.Content))
			b.mark(" ", f.EOS)
			after = true
		}
	}
}

// renderZephyr writes Zephyr's form, which TinyLlama's chat models read too:
//
//	<|user|>\nHello!</s>\n<|assistant|>\n
func renderZephyr(f *Format, b *builder, messages []Message, addAssistant bool) {
	for _, m := range messages {
		switch m.Role {
		case "system", "user", "assistant":
			b.mark("<|", m.Role, "|>\n")
			b.said(m.Content)
			b.mark(f.EOS, "\n")
		}
	}
	if addAssistant {
		b.mark("<|assistant|>\n")
	}
}
