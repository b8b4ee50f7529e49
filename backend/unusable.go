package backend

import "errors"

// Unusable says why a device, or a whole backend, cannot be used, and what a
// person can do about it.
type Unusable struct {
	ID     string // of the device; empty: Cause says which, or it is the backend
	Cause  string
	Remedy string
	Absent bool  // nothing of this kind is here; false: it is here and does not work
	Err    error // what it is besides: ErrLost, or nil
}

func (u *Unusable) Error() string {
	if u.ID != "" {
		return u.ID + ": " + u.Cause
	}
	return u.Cause
}

func (u *Unusable) Unwrap() error { return u.Err }

// Remedy is what to do about an error, where a device said so.
func Remedy(err error) string {
	if u := (*Unusable)(nil); errors.As(err, &u) {
		return u.Remedy
	}
	return ""
}
