//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// start runs drover with pipes; stdin stays open.
func start(t *testing.T, args ...string) (c *exec.Cmd, in io.WriteCloser, out *bufio.Reader, errout *strings.Builder) {
	t.Helper()
	c = exec.Command(os.Getenv("DROVER_TEST_BINARY"), args...)
	errout = &strings.Builder{}
	c.Stderr = errout
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	return c, in, bufio.NewReader(pipe), errout
}

// Ctrl-C ends an answer with status 130 and keeps what was written.
func TestInterruptRun(t *testing.T) {
	// a synthetic model that would write for a long time
	c, _, out, errout := start(t, "run", "-m", "synthetic:dim=256,layers=8,heads=4,kv=4,ffn=512,vocab=1000", "-c", "200000", "--ignore-eos", "--tokens", "1,2,3", "--temp", "0")
	if _, err := out.ReadByte(); err != nil {
		t.Fatalf("nothing written: %v %s", err, errout)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	c.Wait()
	if c.ProcessState.ExitCode() != 130 || !strings.HasSuffix(string(rest), "\n") || !strings.Contains(errout.String(), "interrupted") {
		t.Errorf("exit %d, %q", c.ProcessState.ExitCode(), errout)
	}
}

// Ctrl-C also ends a command that waits for its input.
func TestInterruptInput(t *testing.T) {
	c, in, out, errout := start(t, "tokenize", "--batch")
	io.WriteString(in, `{"text":"a"}`+"\n")
	if line, err := out.ReadString('\n'); err != nil || !strings.Contains(line, "tokens") {
		t.Fatalf("%q %v", line, err)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	io.ReadAll(out)
	c.Wait()
	if c.ProcessState.ExitCode() != 130 {
		t.Errorf("exit %d, %q", c.ProcessState.ExitCode(), errout)
	}
}

// A reader that goes away ends the program without a word.
func TestBrokenPipe(t *testing.T) {
	c := exec.Command("sh", "-c", `"$0" run "Once upon a time" | head -c 1`, os.Getenv("DROVER_TEST_BINARY"))
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), "drover: ") || strings.Contains(string(out), "panic") {
		t.Errorf("%v %q", err, out)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	run := exec.Command(os.Getenv("DROVER_TEST_BINARY"), "run", "Once upon a time")
	run.Stdout = w
	err = run.Run()
	w.Close()
	status, ok := run.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !status.Signaled() || status.Signal() != syscall.SIGPIPE {
		t.Errorf("got %v, want an end by SIGPIPE", run.ProcessState)
	}
}
