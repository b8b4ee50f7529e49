//go:build !unix

package cpu

import "testing"

// guarded is n bytes; this system's tests have no pages to guard them with.
func guarded(t *testing.T, n int) []byte {
	t.Helper()
	return make([]byte, n)
}
