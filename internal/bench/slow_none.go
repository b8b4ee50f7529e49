//go:build !slowdown

package bench

import "drover/backend"

// slowed is the stage itself: only test builds (tag slowdown) slow it down.
func slowed(s backend.Stage) backend.Stage { return s }
