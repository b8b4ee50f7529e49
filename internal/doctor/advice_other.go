//go:build !linux

package doctor

// Advise has none.
func Advise(string) []Check { return nil }
