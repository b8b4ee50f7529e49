package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	document := func(verdict string) string {
		return `<html><pre id="verdict">` + strings.NewReplacer("<", "&lt;", ">", "&gt;", "&", "&amp;").Replace(verdict) + `</pre></html>`
	}
	for verdict, want := range map[string]string{
		`{"violations":[],"wrong":[],"passes":120}`:                              "",
		`{"violations":["light: color-contrast: <dd>"],"wrong":[],"passes":120}`: "color-contrast: <dd>",
		`{"violations":[],"wrong":["not sorted"],"passes":120}`:                  "not sorted",
		`{"violations":[],"wrong":[],"passes":0}`:                                "did not run",
		`nothing`: "not read to its end",
	} {
		err := judge("x", document(verdict))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", verdict, err, want)
		}
	}
	if judge("x", "<html>") == nil {
		t.Error("a document without a verdict passes")
	}
}

// The page's own script must not end the probe's.
func TestFramed(t *testing.T) {
	page := "<script>1</script><p title='\"`'>\\</p>"
	text := string(framed([]byte(page), []byte("axe = 1"), 375, 800))
	if n := strings.Count(text, "</script>"); n != 1 {
		t.Errorf("%d ends of a script, want 1", n)
	}
	m := regexp.MustCompile(`const page = (".*?[^\\]"), axe`).FindStringSubmatch(text)
	var back string
	if m == nil || json.Unmarshal([]byte(m[1]), &back) != nil || back != page {
		t.Errorf("the page became %q", back)
	}
}
