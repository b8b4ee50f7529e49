package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const twoFaults = `# comment
a missing barrier
	file norm.cu
	modules ops
	tests ^TestNorm$
	-	barrier();

off by one
	file norm.cu
	modules ops weights_*
	tests TestNorm|TestAct
	-	for (int i = 0; i < n; i++)
	-		x[i] = 0;
	+	for (int i = 0; i <= n; i++)
	+		x[i] = 0;
`

func TestFaults(t *testing.T) {
	faults, err := parseFaults("cuda", twoFaults)
	if err != nil || len(faults) != 2 {
		t.Fatalf("%d faults, %v", len(faults), err)
	}
	const source = "void f() {\n\t\tbarrier();\n\tfor (int i = 0; i < n; i++)\n\t\tx[i] = 0;\n}\n"
	for i, want := range []string{
		"void f() {\n\tfor (int i = 0; i < n; i++)\n\t\tx[i] = 0;\n}\n",
		"void f() {\n\t\tbarrier();\n\tfor (int i = 0; i <= n; i++)\n\t\tx[i] = 0;\n}\n",
	} {
		for text, complaint := range map[string]string{source: "", source + source: "twice", "int x;\n": "no such text"} {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "norm.cu"), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			err := faults[i].apply(dir)
			if complaint != "" {
				if err == nil || !strings.Contains(err.Error(), complaint) {
					t.Errorf("%s in %q: %v, want %q", faults[i].name, text, err, complaint)
				}
				continue
			}
			got, _ := os.ReadFile(filepath.Join(dir, "norm.cu"))
			if err != nil || string(got) != want {
				t.Errorf("%s: %v, %q, want %q", faults[i].name, err, got, want)
			}
		}
	}
	for _, bad := range []string{"\tfile x\n", "a\n\tfile x\n", "a\n\tcolour red\n"} {
		if _, err := parseFaults("cuda", bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := parseFaults("metal", twoFaults); err == nil {
		t.Error("modules of metal are taken")
	}
}

// The faults that are planted still find what they edit.
func TestFaultsApply(t *testing.T) {
	t.Chdir("..")
	modules, err := readModules()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"cuda", "metal"} {
		kernels := filepath.Join(pkg, "kernels")
		text, err := os.ReadFile(filepath.Join(kernels, "faults.txt"))
		if err != nil {
			t.Fatal(err)
		}
		faults, err := parseFaults(pkg, string(text))
		if err != nil || len(faults) == 0 {
			t.Fatalf("%d faults, %v", len(faults), err)
		}
		for _, f := range faults {
			dir := t.TempDir()
			text, err := os.ReadFile(filepath.Join(kernels, f.file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, f.file), text, 0o666)
			}
			if err == nil {
				err = f.apply(dir)
			}
			if err == nil && pkg == "cuda" {
				_, err = units(modules, f.modules)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}
