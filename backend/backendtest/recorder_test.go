package backendtest

import (
	"fmt"
	"runtime"
	"strings"
)

// recorder is a T that notes what fails, and is never a failure itself.
type recorder struct {
	name     string
	failed   bool
	failures *[]string // "shape/format/case: message", shared by all
}

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Failed() bool        { return r.failed }

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = true
	*r.failures = append(*r.failures, r.name+": "+fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Run counts a panic as a failure.
func (r *recorder) Run(name string, f func(T)) bool {
	sub := &recorder{name: strings.TrimPrefix(r.name+"/"+name, "/"), failures: r.failures}
	done := make(chan bool)
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				sub.Errorf("panic: %v", p)
			}
		}()
		f(sub)
	}()
	<-done
	r.failed = r.failed || sub.failed
	return !sub.failed
}
