package backend

import "time"

// OpTime is what one op of the forward pass took, summed over the Forwards of a
// profile. The contract asks no stage for it; internal/bench shows the profile
// of those that offer one.
type OpTime struct {
	Block    string // batch, embed, attention, feed-forward or head
	Op       string // as the comments in the backend's forward pass name it
	Calls    int
	Barriers int // times that all workers started together and were waited for
	Time     time.Duration

	// What the op cannot do without, by the model's shape and formats.
	Bytes       uint64 // read of weights, as their file has them, and of the cache
	Activations uint64 // bytes of activations in and out, cache rows written; most stay near
	Ops         uint64 // with quantised weights; a multiply and an add are two
	FloatOps    uint64 // with float weights, and attention's
}
