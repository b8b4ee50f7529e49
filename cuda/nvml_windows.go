package cuda

import "drover/backend"

// Windows has NVML too, but go-nvml reaches it on Linux alone: sensors, link
// and processes are absent here.
type management struct{ driver string }

func openManagement() *management { return nil }

func (m *management) card(string) *card { return nil }

func (m *management) withoutInstances() (name string, found bool) { return "", false }

func (m *management) lost() (name string, found bool) { return "", false }

type card struct{}

func (c *card) free() uint64 { return 0 }

func (c *card) link() string { return "" }

func (c *card) sensors() backend.Sensors { return backend.Sensors{} }

type process struct {
	pid   int
	name  string
	bytes uint64
}

func (c *card) processes() []process { return nil }
