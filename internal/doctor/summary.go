package doctor

import (
	"fmt"
	"strings"
)

// Summary is one line of what passed on a device.
func Summary(checks []Check) string {
	var formats []string
	var parts []string
	worst := &Check{}
	for i, c := range checks {
		if format, ok := strings.CutPrefix(c.Name, "decode "); ok {
			formats = append(formats, format)
		}
		switch {
		case c.Name == "find":
			parts = append(parts, c.Detail)
		case c.Name == "memory":
			parts = append(parts, "memory written and read back")
		case c.Limit > 0 && (worst.Limit == 0 || c.NMSE/c.Limit > worst.NMSE/worst.Limit):
			worst = &checks[i]
		}
	}
	if worst.Limit > 0 {
		parts = append(parts, fmt.Sprintf("prompt and decode right in %s (NMSE up to %.1e of %.0e)", strings.Join(formats, " "), worst.NMSE, worst.Limit))
	}
	return strings.Join(parts, "; ")
}
