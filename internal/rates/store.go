package rates

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"drover/backend"
	"drover/internal/quant"
)

// version is of the measurements: what an older drover measured in another way is
// not found.
const version = 1

// Key is all that a device's rates depend on. Another key is another device.
type Key struct {
	Version    int     `json:"version"`
	Kind       string  `json:"kind"`
	Name       string  `json:"name"`
	UUID       string  `json:"uuid"`
	ISA        string  `json:"isa"`
	Driver     string  `json:"driver"`
	Link       string  `json:"link"`
	Cores      int     `json:"cores"`
	Threads    int     `json:"threads"` // of a CPU, that compute
	Raw        bool    `json:"raw"`     // a CPU computes from weights as they lie in the file
	Memory     uint64  `json:"memory"`  // bytes
	PowerLimit float64 `json:"power_limit_w"`
}

// KeyOf is the key of a device; threads and raw are how the CPU is used.
func KeyOf(i backend.Info, s backend.Sensors, threads int, raw bool) Key {
	k := Key{Version: version, Kind: i.Kind, Name: i.Name, UUID: i.UUID, ISA: i.ISA, Driver: i.Driver, Link: i.Link, Cores: i.Cores, Memory: i.Total}
	if i.Kind == "cpu" {
		k.Threads, k.Raw = threads, raw
	}
	if s.Limit != nil {
		k.PowerLimit = *s.Limit
	}
	return k
}

// Store is a folder with a file for each device. Several processes may use it.
type Store struct {
	dir string // empty: it keeps nothing
}

// Open gives the store in a folder, which is made when something is saved.
func Open(dir string) *Store { return &Store{dir} }

// Dir is where the store of this user lies: drover/rates in $XDG_STATE_HOME where
// that is set, else where the system keeps a program's state; empty where it has no
// such place.
func Dir() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		switch runtime.GOOS {
		case "windows":
			state, err = os.UserCacheDir() // %LocalAppData%
		case "darwin":
			state = filepath.Join(home, "Library", "Application Support")
		default:
			state = filepath.Join(home, ".local", "state")
		}
		if err != nil {
			return ""
		}
	}
	return filepath.Join(state, "drover", "rates")
}

// Entry is what is known of a device.
type Entry struct {
	Rates backend.Rates
	// Speed is by weight format how fast runs were, over what Rates predicted: 1
	// where it is left out.
	Speed map[quant.Type]float64
}

type entryDoc struct {
	Key   Key                `json:"device"`
	Rates *Doc               `json:"rates"`
	Speed map[string]float64 `json:"speed"`
}

// ErrDamaged: a file of the store is not what Save wrote.
var ErrDamaged = errors.New("kept rates are damaged")

func (s *Store) path(k Key) (string, error) {
	if s.dir == "" {
		return "", fs.ErrNotExist
	}
	text, err := json.Marshal(k)
	sum := sha256.Sum256(text)
	return filepath.Join(s.dir, fmt.Sprintf("%s-%s.json", k.Kind, hex.EncodeToString(sum[:8]))), err
}

// Load finds a device. Errors: fs.ErrNotExist, ErrDamaged, those of the file.
func (s *Store) Load(k Key) (*Entry, error) {
	path, err := s.path(k)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var doc entryDoc
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	if doc.Key != k || doc.Rates == nil {
		return nil, fmt.Errorf("%s: %w: it is of another device", path, ErrDamaged)
	}
	e := &Entry{Speed: map[quant.Type]float64{}}
	if e.Rates, err = doc.Rates.Rates(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	for name, factor := range doc.Speed {
		t, err := quant.Parse(name)
		if err != nil || !(factor >= slowest && factor <= fastest) {
			return nil, fmt.Errorf("%s: %w: speed has %.40q at %v", path, ErrDamaged, name, factor)
		}
		e.Speed[t] = factor
	}
	return e, nil
}

// Save keeps what is known of a device. Readers see the old or the new file, never
// half of one.
func (s *Store) Save(k Key, e *Entry) (err error) {
	path, err := s.path(k)
	if err != nil {
		return fmt.Errorf("the system has no folder for a program's state: set XDG_STATE_HOME")
	}
	doc := entryDoc{Key: k, Rates: NewDoc(e.Rates), Speed: map[string]float64{}}
	for t, factor := range e.Speed {
		doc.Speed[t.String()] = factor
	}
	text, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "*.partial")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
