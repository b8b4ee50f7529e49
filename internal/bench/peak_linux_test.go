package bench

import "testing"

// The peak counts memory given back since, but not what was given back before.
func TestPeak(t *testing.T) {
	const size = 64 << 20
	if !resetPeak() {
		got, err := collect(t.Context(), &device{}, []Test{{Gen: 1, Sequences: 1}}, options)
		if err != nil || got[0].PeakBytes != nil {
			t.Errorf("the system does not reset the peak, yet there is one: %v, %v", got, err)
		}
		return
	}
	before, ok := readPeak()
	if !ok || before == 0 {
		t.Fatalf("peak %d, %v", before, ok)
	}
	held := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		held[i] = 1
	}
	after, ok := readPeak()
	if !ok || after < before+size*9/10 {
		t.Errorf("peak %d before and %d after using %d bytes more (%v)", before, after, len(held), ok)
	}
}
