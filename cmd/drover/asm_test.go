//go:build !noasm

package main

// tags are those of the program that is tested.
const tags = ""
