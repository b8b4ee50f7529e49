package main

import "testing"

func TestParse(t *testing.T) {
	long, err := parse([]byte(`{"messages":270}
{"kernel":"matvec_q4_0","dispatches":3,"threadgroups":40,"threads":2560,"barriers":2,"multiplies":5,"buffers":[{"index":0,"read":9,"written":0,"distinct_read":4,"distinct_written":0},{"index":1,"read":99,"written":0,"distinct_read":50,"distinct_written":0},{"index":4,"read":9,"written":8,"distinct_read":7,"distinct_written":6}]}
{"kernel":"norm","dispatches":2,"threadgroups":2,"threads":64,"barriers":4,"multiplies":0,"buffers":[]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := counts{Dispatches: 3, Threadgroups: 40, Barriers: 2, Multiplies: 5, weights: 50, read: 61, written: 6}
	if got := long.kernels["matvec_q4_0"]; got != want || long.messages != 270 {
		t.Errorf("got %+v and %d messages, want %+v", got, long.messages, want)
	}
	short := tally{200, map[string]counts{"matvec_q4_0": {Dispatches: 1, weights: 20, read: 21}, "norm": {Dispatches: 2, Threadgroups: 2, Barriers: 4}}}
	d := long.less(short)
	if got := d.of("matvec"); got.Dispatches != 2 || got.weights != 30 || got.read != 40 || d.messages != 70 || len(d.kernels) != 1 {
		t.Errorf("less: %+v", d)
	}
	for _, bad := range []string{"", `{"messages":3}`, "{"} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
