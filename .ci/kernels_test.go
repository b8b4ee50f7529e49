package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodKernel = `.version 7.4
.target sm_80
.visible .entry matvec_x(
	.param .align 8 .b8 matvec_x_param_0[16]
)
{
	.reg .b32 	%r<5>;
	ld.param.u64 	%rd1, [matvec_x_param_0];
	{ ld.global.nc.L1::no_allocate.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1]; }
	@%p1 bra 	$L__BB0_2;
	st.shared.f32 	[%r1], %f1;
	st.global.v4.u32 	[%rd1], {%r1,%r2,%r3,%r4};
	ld.volatile.shared.u32 	%r1, [%r2];
$L__BB0_2:
	ret;
}
`

// Each rule must see its fault, and nothing where there is none.
func TestRules(t *testing.T) {
	for _, c := range []struct{ name, was, is, want string }{
		{"good", "ret;", "ret;", ""},
		{"local", ".reg .b32", ".local .align 4 .b8 __local_depot0[8];\n\t.reg .b32", "local memory"},
		{"local load", "ret;", "@%p2 ld.local.u32 \t%r1, [%rd2];\n\tret;", "local memory"},
		{"call", "ret;", "call.uni (retval0), f, (param0);\n\tret;", "a call"},
		{"generic load", "ret;", "ld.u32 \t%r1, [%rd1];\n\tret;", "generic address"},
		{"generic guarded store", "ret;", "@!%p1 st.v2.f32 \t[%rd1], {%f1, %f2};\n\tret;", "generic address"},
		{"generic atomic", "ret;", "atom.add.u32 \t%r1, [%rd1], %r2;\n\tret;", "generic address"},
		{"generic in assembly", "{ ld.global", "{ ld.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1]; ld.global", "generic address"},
		{"narrow", "no_allocate.v4.u32 {%r1,%r2,%r3,%r4}", "no_allocate.v2.u32 {%r1,%r2}", "less than 16 bytes"},
		{"no weights", "ld.global.nc.L1::no_allocate.v4", "ld.global.v4", "no load of weights"},
		{"function", ".visible", ".extern .func vprintf;\n.visible", "a function that is not there"},
		{"no kernel", ".visible .entry", ".entry", "no kernel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := parseRules("hot matvec_*\nwide matvec_*\n")
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(goodKernel, c.was, c.is, 1)
			err = r.check(&unit{module: module{name: "m"}, text: []byte(text)})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRulesOfOthers(t *testing.T) {
	r, err := parseRules("hot matvec_*\nwide matvec_* # comment\nnarrow matvec_x a reason\n")
	if err != nil {
		t.Fatal(err)
	}
	narrow := strings.Replace(goodKernel, "no_allocate.v4.u32 {%r1,%r2,%r3,%r4}", "no_allocate.v2.u32 {%r1,%r2}", 1)
	if err := r.check(&unit{text: []byte(narrow)}); err != nil {
		t.Errorf("an exception: %v", err)
	}
	cold := strings.ReplaceAll(strings.Replace(goodKernel, "ret;", "ld.u32 %r1, [%rd1];\n\tret;", 1), "matvec", "cold")
	if err := r.check(&unit{text: []byte(cold)}); err != nil {
		t.Errorf("a kernel that is not hot: %v", err)
	}
	for _, bad := range []string{"spill a b", "narrow x", "warm y"} {
		if _, err := parseRules(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestStrip(t *testing.T) {
	got := string(strip([]byte("//\n// made by\n\n.version 7.4\n\t// .globl\tf  // -- Begin\n\tret; // end\n")))
	if want := ".version 7.4\n\tret;\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

const said = `ptxas info    : 16 bytes gmem
ptxas info    : Compiling entry function 'a' for 'sm_80'
ptxas info    : Function properties for a
    8 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'b' for 'sm_80'
ptxas info    : Function properties for b
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, 376 bytes cmem[0]
`

func TestSerialized(t *testing.T) {
	const loss = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the wgmma pipeline in the function 'a'"
	if got := serialized([]byte(said + loss + "\n")); got != loss {
		t.Errorf("got %q", got)
	}
	if got := serialized([]byte(said)); got != "" {
		t.Errorf("got %q where nothing is", got)
	}
}

// What names tiers is for them alone, and nothing else is for sm_90a.
func TestTiers(t *testing.T) {
	modules, err := parseModules("a a.cu -DX=1 # comment\nb b.cu -DY=2 sm_90a\nb c.cu sm_80 sm_90\n")
	if err != nil {
		t.Fatal(err)
	}
	list, err := units(modules, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range list {
		got = append(got, strings.Join(append([]string{u.source, u.arch}, u.defines...), " "))
	}
	if want := "a.cu sm_75 -DX=1, a.cu sm_80 -DX=1, a.cu sm_90 -DX=1, b.cu sm_90a -DY=2, c.cu sm_80, c.cu sm_90"; strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	for _, bad := range []string{"a", "a a.cu sm_91"} {
		if _, err := parseModules(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestReport(t *testing.T) {
	got := parseUsage([]byte(said))
	if want := (usage{40, 1024, 32}); got["a"] != want {
		t.Errorf("a: got %v, want %v", got["a"], want)
	}
	if want := (usage{255, 0, 0}); got["b"] != want {
		t.Errorf("b: got %v, want %v", got["b"], want)
	}
	modules := []module{{name: "m2"}, {name: "m1"}}
	rows := []row{{"m1", "b", map[string]usage{"sm_80": got["b"]}}, {"m2", "a", map[string]usage{"sm_80": got["a"], "sm_90": got["b"]}}}
	text := format(modules, rows, "clang 19", "ptxas 13")
	compiler, assembler, back := parseReport(text)
	if compiler != "clang 19" || assembler != "ptxas 13" || format(modules, back, compiler, assembler) != text {
		t.Errorf("read back as %q, %q, %v from\n%s", compiler, assembler, back, text)
	}
}

// A kernel compiles to the same bytes wherever the tree lies, a change of its
// source shows, and only what clang 19 made is compared.
func TestReproducible(t *testing.T) {
	if _, _, err := findCompiler(); err != nil {
		if os.Getenv("DROVER_GOLDEN") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const source = `__attribute__((constant)) static int table[4] = {1, 2, 3, 4};
extern "C" __attribute__((global)) void add(int *x) { x[__nvvm_read_ptx_sreg_tid_x()] += table[__nvvm_read_ptx_sreg_tid_x() & 3]; }
`
	modules := []module{{name: "add", source: "add.cu"}}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var first []byte
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "deeper", "down")} {
		if err := os.MkdirAll(filepath.Join(dir, folder, "ptx"), 0o777); err != nil {
			t.Fatal(err)
		}
		t.Chdir(dir)
		put("add.cu", source)
		list, err := units(modules, nil)
		if err != nil {
			t.Fatal(err)
		}
		compiler, version, err := findCompiler()
		if err != nil {
			t.Fatal(err)
		}
		if faults, err := compileAll(compiler, list, rules{}); faults != nil || err != nil {
			t.Fatal(faults, err)
		}
		for _, u := range list {
			if before, err := u.changed(), u.write(); !before || err != nil || u.changed() {
				t.Fatalf("changed: %v before writing (%v), %v after", before, err, u.changed())
			}
		}
		put("ptx/compiler.txt", version+"\n")
		if first == nil {
			first = list[1].text
		} else if string(first) != string(list[1].text) {
			t.Errorf("another folder, another text:\n%s\n%s", first, list[1].text)
		}
	}
	if err := check(modules, rules{}); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	put("add.cu", strings.Replace(source, "+=", "-=", 1))
	if err := check(modules, rules{}); err == nil || !strings.Contains(err.Error(), "add.sm_75.ptx.gz is not what its source makes") {
		t.Errorf("changed source: %v", err)
	}
	put("ptx/compiler.txt", "another clang version 19.\n")
	if err := check(modules, rules{}); err != nil {
		t.Errorf("another compiler: %v", err)
	}
	put("ptx/old.sm_75.ptx.gz", "")
	put("ptx/compiler.txt", "x")
	if found, err := strays([]module{{name: "other"}}); err != nil || len(found) != 4 {
		t.Errorf("strays %v, %v", found, err)
	}
}
