//go:build noasm

package main

const tags = "noasm"
