package cuda

// LeftOut is the error of a card that is here and cannot be used. Devices may
// join several.
type LeftOut struct{ ID, Reason string }

func (l *LeftOut) Error() string { return l.ID + ": " + l.Reason }
