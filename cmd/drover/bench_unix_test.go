//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Ctrl-C keeps the records written so far, and tells the shell.
func TestBenchInterrupted(t *testing.T) {
	// the second test's depth takes long to read
	c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), "bench", "-p", "1", "-n", "0", "-d", "0,30000", "-r", "3", "--no-warmup", "-o", "jsonl", "--device", "cpu")
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

// So does the one JSON object.
func TestBenchInterruptedJSON(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "records")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), "bench", "-p", "1", "-n", "0", "-d", "0,30000", "-r", "3", "--no-warmup", "--json", "-o", "jsonl", "-O", pipe, "--device", "cpu")
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(pipe) // waits for the other end
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := bufio.NewReader(f).ReadString('\n'); err != nil {
		t.Errorf("the first record: %v", err)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = c.Wait()
	var doc struct {
		Error   struct{ Code string }
		Records []map[string]any
	}
	if bad := json.Unmarshal(out.Bytes(), &doc); bad != nil || c.ProcessState.ExitCode() != 130 || doc.Error.Code != "interrupted" || len(doc.Records) != 1 || doc.Records[0]["n_prompt"] != 1.0 {
		t.Errorf("exit %d (%v), %v, %q", c.ProcessState.ExitCode(), err, bad, out.Bytes())
	}
}
