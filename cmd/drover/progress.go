package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// isTerminal says whether a stream is one; a file or a pipe is not.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progressDelay is how long loading may take before a bar shows.
const progressDelay = 500 * time.Millisecond

// progress draws a bar on one line of a terminal while a model loads.
type progress struct {
	errs  io.Writer
	w     io.Writer // nil: no bar
	what  string
	start time.Time

	mu    sync.Mutex
	shown time.Time // of the last drawing; zero: nothing drawn
}

// newProgress draws on w if that is a terminal that can go back in its line.
func newProgress(w io.Writer, what string) *progress {
	p := &progress{errs: w, what: what, start: time.Now()}
	if isTerminal(w) && os.Getenv("TERM") != "dumb" {
		p.w = w
	}
	return p
}

// step draws the bar, at most ten times a second. done and total are bytes.
func (p *progress) step(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.w == nil || total == 0 || now.Sub(p.start) < progressDelay || now.Sub(p.shown) < progressDelay/5 {
		return
	}
	p.shown = now
	const width = 30
	share := float64(done) / float64(total)
	full := min(width, int(share*width))
	fmt.Fprintf(p.w, "\r%s [%s%s] %3.0f %% of %s", p.what, strings.Repeat("=", full), strings.Repeat(" ", width-full), 100*share, byteSize(total))
}

// Write writes what is to be read beside the bar, which comes again below it.
func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	return p.errs.Write(text)
}

// end wipes the bar.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	p.w = nil
}

func (p *progress) wipe() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}

// byteSize writes bytes for people: "3.6 GiB".
func byteSize(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	x, i := float64(n), 0
	for x >= 1024 && i < len(units)-1 {
		x, i = x/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", x, units[i])
}
