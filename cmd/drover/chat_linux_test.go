package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal starts drover on a pseudo-terminal of its own.
func terminal(t *testing.T, args ...string) (*os.File, *exec.Cmd) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), args...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	return master, c
}

// until reads what the terminal shows up to and with text.
func until(t *testing.T, f *os.File, text string) string {
	t.Helper()
	var seen strings.Builder
	buf := make([]byte, 1)
	for !strings.HasSuffix(seen.String(), text) {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, seen.String())
		}
		seen.Write(buf[:n])
	}
	return seen.String()
}

// A chat as a person has it: help, an answer, an earlier line again, a line
// given up, an answer stopped, the end.
func TestChatOnTerminal(t *testing.T) {
	tty, c := terminal(t, "run", "--temp", "0")
	const up, ctrlC, ctrlD = "\x1b[A", "\x03", "\x04"
	until(t, tty, ">>> ")
	tty.WriteString("/help\r")
	until(t, tty, "Ctrl-C stops the answer")
	until(t, tty, ">>> ")
	tty.WriteString("What does a cow say?\r")
	until(t, tty, "\n")
	until(t, tty, "The cow says moo, moo!")
	until(t, tty, ">>> ")
	tty.WriteString("/clear\r")
	until(t, tty, ">>> ")
	tty.WriteString(up + up + "\r")
	until(t, tty, "The cow says moo, moo!")
	until(t, tty, ">>> ")
	tty.WriteString("What is" + ctrlC)
	until(t, tty, "Ctrl-D or /exit leaves")
	until(t, tty, ">>> ")
	tty.WriteString("Tell me a story about a bear.\r")
	until(t, tty, "\n")
	until(t, tty, " ") // the answer has begun
	tty.WriteString(ctrlC)
	until(t, tty, "(stopped)")
	until(t, tty, ">>> ")
	tty.WriteString(ctrlD)
	if err := c.Wait(); err != nil {
		t.Errorf("the chat ends with %v", err)
	}
}

// Where nothing can be written the status says so.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"run", "Once", "-n", "4"}, {"run", "Once", "-n", "4", "--json"}, {"devices"}, {"tokenize", "a"}, {"completion", "bash"}, {"inspect"}} {
		c := exec.Command(os.Getenv("DROVER_TEST_BINARY"), args...)
		var errout strings.Builder
		c.Stdout, c.Stderr = full, &errout
		c.Run()
		if c.ProcessState.ExitCode() != 1 || !strings.Contains(errout.String(), "no space left") {
			t.Errorf("%q: exit %d, %q", args, c.ProcessState.ExitCode(), errout.String())
		}
	}
}
