//go:build !linux

package cpu

// places is where each worker of a pool runs: here, where the system likes.
type places struct{ apart bool }

func choosePlaces(int) places { return places{} }

func (*places) bind(int, bool) {}

func (*places) free() {}
