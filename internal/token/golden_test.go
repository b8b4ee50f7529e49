package token

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// golden is the folder of reference data.
func golden(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("DROVER_GOLDEN")
	if dir == "" {
		t.Skip("DROVER_GOLDEN does not name the folder of reference data: ids are not compared with llama.cpp's")
	}
	return dir
}

// goldenVocab builds the tokenizer of a vocabulary that the reference data name.
func goldenVocab(t testing.TB, dir, name string) *Tokenizer {
	t.Helper()
	path := filepath.Join(dir, "vocab", "ggml-vocab-"+name+".gguf")
	if name == "stories260k-spm512" {
		path = filepath.Join(dir, "models", "s260k-f32.gguf")
	}
	if _, err := os.Stat(path); err != nil {
		path += ".gz"
	}
	tok, err := New(readVocab(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

type goldenEntry struct {
	ID    string   `json:"id"`
	Hex   string   `json:"hex"`
	Text  *string  `json:"text"`
	IDs   *[]int32 `json:"ids"`
	Add   *[]int32 `json:"ids_add_special"`
	Parse *[]int32 `json:"ids_parse_special"`
	Detok *string  `json:"detok_hex"`
}

func TestGoldenTokenize(t *testing.T) {
	dir := golden(t)
	files, _ := filepath.Glob(filepath.Join(dir, "tokenize", "*.json"))
	if len(files) == 0 {
		t.Fatalf("no tokenize/*.json in %s", dir)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var entries []goldenEntry
			if err := json.Unmarshal(data, &entries); err != nil {
				t.Fatal(err)
			}
			tok := goldenVocab(t, dir, name)
			for _, e := range entries {
				in, err := hex.DecodeString(e.Hex)
				if err != nil {
					t.Fatal(err)
				}
				if tok.spelled && strings.HasPrefix(e.ID, "bytes") {
					continue // malformed UTF-8: advisory for byte-level BPE
				}
				// llama.cpp cleans up spaces with these when it decodes
				cleans := tok.spelled && name != "qwen2" && !strings.HasPrefix(name, "deepseek")
				checkEntry(t, tok, &e, string(in), cleans)
			}
		})
	}
}

func checkEntry(t *testing.T, tok *Tokenizer, e *goldenEntry, in string, cleans bool) {
	for _, c := range []struct {
		name       string
		add, parse bool
		want       *[]int32
	}{{"plain", false, false, e.IDs}, {"add special", true, false, e.Add}, {"parse special", false, true, e.Parse}} {
		if c.want == nil {
			continue
		}
		if got := tok.Encode(in, c.add, c.parse); !slices.Equal(got, *c.want) {
			t.Errorf("%s, %s: %.60q:\ngot  %v\nwant %v", e.ID, c.name, in, got, *c.want)
		}
	}
	if e.IDs == nil || e.Detok == nil {
		return
	}
	want, err := hex.DecodeString(*e.Detok)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Decode(*e.IDs); got != string(want) && !(cleans && cleaned(got, string(want))) {
		t.Errorf("%s: Decode:\ngot  %q\nwant %q", e.ID, got, want)
	}
}

// cleaned tells whether want is got after the clean-up of spaces before
// punctuation, which some vocabularies ask for and Decode leaves out.
func cleaned(got, want string) bool {
	if !strings.ContainsAny(got, "?!.,'") {
		return false
	}
	drop := strings.NewReplacer(" ", "")
	return len(want) < len(got) && drop.Replace(got) == drop.Replace(want)
}

func TestGoldenVectors(t *testing.T) {
	dir := golden(t)
	files, _ := filepath.Glob(filepath.Join(dir, "vocab", "*.gguf.inp"))
	if len(files) == 0 {
		t.Fatalf("no vocab/*.gguf.inp in %s", dir)
	}
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "ggml-vocab-"), ".gguf.inp")
		t.Run(name, func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out, err := os.ReadFile(strings.TrimSuffix(file, "inp") + "out")
			if err != nil {
				t.Fatal(err)
			}
			texts := strings.Split(string(in), "\n__ggml_vocab_test__\n")
			lines := strings.Split(string(out), "\n")
			texts = texts[:min(len(texts), len(lines))]
			if len(texts) != len(lines) {
				t.Fatalf("%d texts and %d lines of ids", len(texts), len(lines))
			}
			tok := goldenVocab(t, dir, name)
			for i, text := range texts {
				var want []int32
				for _, f := range strings.Fields(lines[i]) {
					id, err := strconv.ParseInt(f, 10, 32)
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, int32(id))
				}
				if got := tok.Encode(text, false, false); !slices.Equal(got, want) {
					t.Errorf("vector %d %q:\ngot  %v\nwant %v", i, text, got, want)
				}
			}
		})
	}
}
