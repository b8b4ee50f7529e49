// Package demo holds the model that drover runs when none is named.
package demo

import _ "embed"

// Name is what the model is called where a file would have its path.
const Name = "demo"

//go:embed demo-q8_0.gguf
var file []byte

// File is the model as a GGUF file. Not to be written to.
func File() []byte { return file }
