package main

import "testing"

func TestOurs(t *testing.T) {
	for _, c := range []struct {
		library string
		ok      bool
	}{{"/usr/lib/libSystem.B.dylib", true}, {"/System/Library/Frameworks/Metal.framework/Metal", true}, {"@rpath/libggml.dylib", false}, {"/opt/homebrew/lib/libomp.dylib", false}} {
		if err := ours([]string{"/usr/lib/libobjc.A.dylib", c.library}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.library, err)
		}
	}
}

func TestCompiled(t *testing.T) {
	for _, c := range []struct {
		symbol string
		ok     bool
	}{{"github.com/ebitengine/purego/internal/fakecgo.x_cgo_init", true}, {"__cgo_init", true}, {"drover/cuda._Cfunc_call", false},
		{"__cgo_1a2b3c4d5e6f_Cfunc_call", false}, {"runtime/cgo.init", false}, {"_cgoexp_0123456789ab_f", false}} {
		if err := compiled([]string{"main.main", c.symbol}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.symbol, err)
		}
	}
}
