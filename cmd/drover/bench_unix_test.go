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

// Ctrl-C keeps the records written so far, and tells the shell.
func TestBenchInterrupted(t *testing.T) {
	// the second test is too long to end by itself
	c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), "bench", "-p", "1", "-n", "30000", "-r", "3", "--no-warmup", "-o", "jsonl", "--device", "cpu")
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	first, err := out.ReadString('\n')
	if err != nil || !strings.Contains(first, `"n_prompt":1`) {
		t.Errorf("first line %q: %v", first, err)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || len(rest) > 0 {
		t.Errorf("after the interruption: %q, %v", rest, err)
	}
	if err := c.Wait(); c.ProcessState.ExitCode() != 130 {
		t.Errorf("exit %d (%v), want 130", c.ProcessState.ExitCode(), err)
	}
}
