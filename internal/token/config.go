// Package token turns text into token ids and ids into text, from the
// vocabulary that a GGUF file's metadata holds: SentencePiece BPE (model
// "llama") and byte-level BPE (model "gpt2"). It knows no file format, no chat
// template and no model.
package token

// Config is a vocabulary as the keys tokenizer.ggml.* hold it. Nothing in it
// is trusted: New checks it.
type Config struct {
	Model string // tokenizer.ggml.model: "llama" or "gpt2"
	Pre   string // tokenizer.ggml.pre: the pre-tokenizer of byte-level BPE; empty: "default"

	Tokens []string  // (vocab) text
	Scores []float32 // (vocab) highest merges first (SentencePiece), or empty
	Types  []int32   // (vocab) 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; or empty: all normal
	Merges []string  // "left right", best first (byte-level BPE)

	BOS, EOS, UNK, SEP, PAD, EOT, EOM int32   // ids, -1 absent
	EOG                               []int32 // further ids that end a generation, or empty

	AddBOS, AddEOS         *bool // nil: the model's default
	AddSpacePrefix         *bool // nil: true for SentencePiece, false for byte-level BPE
	RemoveExtraWhitespaces bool
}
