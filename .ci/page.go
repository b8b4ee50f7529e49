// Command page holds the pages of drover compare --html to what a browser and
// axe-core say of them: go run .ci/page.go DROVER AXE.js OUT HISTORY RESULTS...
// One page is of RESULTS, the other of the records that HISTORY keeps.
//
// In headless Chromium, in light and dark colours, wide and as narrow as a phone:
// no error on the console, no violation of an accessibility rule, nothing wider
// than the screen, sorting and the colours' button work. OUT gets screenshots.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: go run .ci/page.go DROVER AXE.js OUT HISTORY RESULTS...")
		os.Exit(2)
	}
	if err := checkAll(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

// sizes are screens, in pixels.
var sizes = []struct {
	name          string
	width, height int
}{{"wide", 1200, 3000}, {"phone", 375, 3000}}

func checkAll(drover, axe, out, history string, results []string) error {
	browser, err := findBrowser()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "page")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	script, err := os.ReadFile(axe)
	if err != nil {
		return err
	}
	data, err := keep(dir, history)
	if err != nil {
		return err
	}
	for name, args := range map[string][]string{"page": results, "history": {"--history"}} {
		page := filepath.Join(dir, name+".html")
		c := exec.Command(drover, append([]string{"compare", "--html", page}, args...)...)
		c.Env = append(os.Environ(), "XDG_DATA_HOME="+data)
		if text, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("drover compare: %w: %s", err, text)
		}
		if err := check(browser, dir, page, filepath.Join(out, name), script); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// keep makes a folder of data in which bench --save has kept a file's records.
func keep(dir, history string) (string, error) {
	text, err := os.ReadFile(history)
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	kept := filepath.Join(data, "drover", "bench")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	return data, os.WriteFile(filepath.Join(kept, "records.jsonl"), text, 0o644)
}

// check holds one page to everything; shots is how the screenshots' names begin.
func check(browser, dir, page, shots string, script []byte) error {
	html, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	for _, s := range sizes {
		shot := shots + "-" + s.name + ".png"
		// as it is, from its file
		if _, err := run(browser, dir, page, "--screenshot="+shot, fmt.Sprintf("--window-size=%d,%d", max(500, s.width), s.height)); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if info, err := os.Stat(shot); err != nil || info.Size() < 10_000 {
			return fmt.Errorf("%s: no screenshot", s.name)
		}
		// the browser has no windows as narrow as a phone: a frame is one
		probe := filepath.Join(dir, "probe.html")
		if err := os.WriteFile(probe, framed(html, script, s.width, s.height), 0o644); err != nil {
			return err
		}
		document, err := run(browser, dir, probe, "--dump-dom", "--window-size=1300,3200")
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := judge(s.name, document); err != nil {
			return err
		}
	}
	if len(html) >= 500<<10 {
		return fmt.Errorf("the page has %d bytes, 500 KB or more", len(html))
	}
	fmt.Printf("%d bytes, screenshots: %s-*.png\n", len(html), shots)
	return nil
}

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("chromium is missing: ./build.sh deps")
}

// run opens a file without a window, and once more where the browser hung while
// it started, as it does now and then.
func run(browser, dir, file string, args ...string) (string, error) {
	out, err := open(browser, dir, file, args...)
	if errors.Is(err, context.DeadlineExceeded) {
		out, err = open(browser, dir, file, args...)
	}
	return out, err
}

// open gives what the browser prints; it is an error where the console had one.
func open(browser, dir, file string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	profile, err := os.MkdirTemp(dir, "profile")
	if err != nil {
		return "", err
	}
	args = append([]string{"--headless", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--enable-logging=stderr",
		"--user-data-dir=" + profile, "--virtual-time-budget=20000"}, args...)
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, browser, append(args, "file://"+file)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", browser, err, tail(stderr.String()))
	}
	if said := regexp.MustCompile(`(?m)^.*CONSOLE.*$`).FindAllString(stderr.String(), 20); len(said) > 0 {
		return "", fmt.Errorf("the console says:\n%s", strings.Join(said, "\n"))
	}
	return stdout.String(), nil
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// framed is a document with the page and axe-core in a frame of a screen's size,
// and with what the page did in it.
func framed(html, axe []byte, width, height int) []byte {
	quote := func(s []byte) string { // a string that a script element can hold
		text, err := json.Marshal(string(s))
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return string(text)
	}
	return fmt.Appendf(nil, `<!doctype html><html lang="en"><meta charset="utf-8"><title>probe</title>
<iframe id="frame" title="page" style="width:%dpx;height:%dpx;border:0"></iframe><pre id="verdict">nothing</pre>
<script>const page = %s, axe = %s;%s</script>`, width, height, quote(html), quote(axe), probe)
}

// probe reads the page as a person would use it. Its verdict is JSON.
const probe = `
const frame = document.getElementById("frame"), found = {violations: [], wrong: [], passes: 0};
function done() { document.getElementById("verdict").textContent = JSON.stringify(found); }
window.onerror = (message) => { found.wrong.push(String(message)); done(); };
window.onunhandledrejection = (e) => { found.wrong.push(String(e.reason)); done(); };
frame.onload = async () => {
	const w = frame.contentWindow, d = w.document, root = d.documentElement;
	w.onerror = (message) => found.wrong.push(String(message));
	const add = d.createElement("script");
	add.textContent = axe;
	d.head.append(add);
	const back = () => w.getComputedStyle(d.body).backgroundColor;
	const look = async (colours) => {
		const r = await w.axe.run(d, {resultTypes: ["violations"]});
		found.passes += r.passes.length;
		for (const v of r.violations) found.violations.push(colours + ": " + v.id + " (" + v.impact + "): " + v.help + ": " + v.nodes.slice(0, 3).map((n) => n.html).join(" "));
		if (r.incomplete.some((i) => i.id === "color-contrast" && i.nodes.length > 5)) found.wrong.push(colours + ": contrast could not be told");
	};
	const first = back();
	await look("first colours");
	const theme = d.getElementById("theme");
	theme.click();
	if (back() === first) found.wrong.push("the colours' button changes nothing");
	await look("other colours");
	if (root.scrollWidth > w.innerWidth) found.wrong.push("the page is " + root.scrollWidth + " wide on a screen of " + w.innerWidth);
	const table = d.getElementById("results"), heads = [...table.tHead.rows[0].cells], at = heads.findIndex((h) => h.textContent === "Tokens/s"), head = heads[at];
	const speeds = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[at].dataset.v));
	for (const [order, sign] of [["ascending", 1], ["descending", -1]]) {
		head.querySelector("button").click();
		const s = speeds();
		if (head.getAttribute("aria-sort") !== order || s.some((x, i) => i > 0 && sign * (x - s[i - 1]) < 0)) found.wrong.push("not sorted: " + order);
	}
	await look("sorted");
	if (d.querySelectorAll("svg.chart").length < 3) found.wrong.push("fewer than 3 charts");
	done();
};
frame.srcdoc = page;
`

// judge reads the verdict out of the document that the browser left.
func judge(name, document string) error {
	m := regexp.MustCompile(`(?s)<pre id="verdict">(.*?)</pre>`).FindStringSubmatch(document)
	if m == nil {
		return fmt.Errorf("%s: no verdict in %d bytes", name, len(document))
	}
	text := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&amp;", "&").Replace(m[1])
	var found struct {
		Violations, Wrong []string
		Passes            int
	}
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return fmt.Errorf("%s: the page was not read to its end: %.300s", name, text)
	}
	if all := append(found.Violations, found.Wrong...); len(all) > 0 {
		return fmt.Errorf("%s:\n%s", name, strings.Join(all, "\n"))
	}
	if found.Passes < 30 {
		return fmt.Errorf("%s: axe-core passed %d rules: it did not run", name, found.Passes)
	}
	fmt.Printf("%s: no violation, %d rules passed in three looks\n", name, found.Passes)
	return nil
}
