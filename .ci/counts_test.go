package main

import "testing"

func TestParseCounts(t *testing.T) {
	const one = `{"kernel":"matvec_q4_0","launches":2,"instructions":10,"barriers":1,"mma":3,"macs":6144,"distinct_read":100,"bytes_read":[0,0,4,8,1600]}
{"kernel":"norm","launches":1,"instructions":5,"barriers":2,"mma":0,"macs":0,"distinct_read":4,"bytes_read":[0,0,0,0,64]}
`
	short, err := parseCounts([]byte(one))
	if err != nil {
		t.Fatal(err)
	}
	long, err := parseCounts([]byte(one + one)) // a file that two processes wrote
	if err != nil {
		t.Fatal(err)
	}
	want := counts{Launches: 2, Instructions: 10, Barriers: 1, MMA: 3, MACs: 6144, Read: 100, Loaded: [5]uint64{0, 0, 4, 8, 1600}}
	if got := long.less(short).of("matvec"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := long.of("").Launches; got != 6 {
		t.Errorf("%d launches, want 6", got)
	}
	for _, bad := range []string{"", "x\n"} {
		if _, err := parseCounts([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
