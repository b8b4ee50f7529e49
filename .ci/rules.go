package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// rules is rules.txt: which kernels are held to what.
type rules struct {
	hot    []string    // no local memory, calls or generic addresses
	wide   []string    // reads weights 16 bytes at a time
	narrow []string    // exceptions from wide
	spill  [][2]string // kernel and target that may spill
}

func readRules(path string) (rules, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return rules{}, err
	}
	return parseRules(string(text))
}

func parseRules(text string) (rules, error) {
	var r rules
	for _, line := range lines(text) {
		f := strings.Fields(line)
		switch {
		case f[0] == "hot" && len(f) == 2:
			r.hot = append(r.hot, f[1])
		case f[0] == "wide" && len(f) == 2:
			r.wide = append(r.wide, f[1])
		case f[0] == "narrow" && len(f) > 2:
			r.narrow = append(r.narrow, f[1])
		case f[0] == "spill" && len(f) > 3:
			r.spill = append(r.spill, [2]string{f[1], f[2]})
		default:
			return r, fmt.Errorf("rules.txt: %q: want hot KERNEL, wide KERNEL, narrow KERNEL REASON or spill KERNEL TARGET REASON", line)
		}
	}
	return r, nil
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if match(p, name) {
			return true
		}
	}
	return false
}

// entry is a kernel's text within a module's.
type entry struct {
	name string
	body []byte
}

// entries finds the kernels; clang writes each from ".visible .entry" to a "}"
// of its own at the start of a line.
func entries(text []byte) []entry {
	var out []entry
	start := regexp.MustCompile(`(?m)^\.visible \.entry ([\w$]+)\(`)
	for _, at := range start.FindAllSubmatchIndex(text, -1) {
		body := text[at[0]:]
		if end := bytes.Index(body, []byte("\n}\n")); end >= 0 {
			body = body[:end]
		}
		out = append(out, entry{string(text[at[2]:at[3]]), body})
	}
	return out
}

// check holds a unit to the rules.
func (r rules) check(u *unit) error {
	var errs []error
	if bytes.Contains(u.text, []byte(".extern .func")) {
		errs = append(errs, fmt.Errorf("%s %s: declares a function that is not there", u.name, u.arch))
	}
	found := entries(u.text)
	if len(found) == 0 {
		errs = append(errs, fmt.Errorf("%s %s: no kernel", u.name, u.arch))
	}
	for _, e := range found {
		var why []string
		if matchAny(r.hot, e.name) {
			why = append(why, hotFaults(e.body)...)
		}
		if matchAny(r.wide, e.name) && !matchAny(r.narrow, e.name) {
			why = append(why, wideFaults(e.body)...)
		}
		for _, w := range why {
			errs = append(errs, fmt.Errorf("%s %s: %s: %s", u.name, u.arch, e.name, w))
		}
	}
	return errors.Join(errs...)
}

// instructions of a kernel, one by one, without guards.
func instructions(body []byte) []string {
	var out []string
	for _, part := range regexp.MustCompile(`[;{}\n]`).Split(string(body), -1) {
		part = strings.TrimSpace(part)
		if strings.HasPrefix(part, "@") {
			_, part, _ = strings.Cut(part, " ")
		}
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// hotFaults are what a hot kernel must not have, each kind once.
func hotFaults(body []byte) []string {
	var why []string
	seen := map[string]bool{}
	add := func(kind, instruction string) {
		if !seen[kind] {
			seen[kind] = true
			why = append(why, kind+": "+instruction)
		}
	}
	for _, i := range instructions(body) {
		opcode, _, _ := strings.Cut(i, " ")
		opcode, _, _ = strings.Cut(opcode, "\t")
		parts := strings.Split(opcode, ".")
		switch {
		case strings.HasPrefix(i, ".local"), len(parts) > 1 && parts[1] == "local":
			add("local memory", i)
		case parts[0] == "call":
			add("a call", i)
		case parts[0] == "ld", parts[0] == "st", parts[0] == "atom", parts[0] == "red":
			if !regexp.MustCompile(`\.(global|shared|param|const|local)(\.|::|$)`).MatchString(opcode) {
				add("a generic address", i)
			}
		}
	}
	return why
}

// wideFaults: weights are what is read past L1 without being kept there.
func wideFaults(body []byte) []string {
	loads := 0
	for _, i := range instructions(body) {
		if strings.HasPrefix(i, "ld.global.nc.L1::no_allocate.") {
			loads++
			if !strings.Contains(i, "no_allocate.v4.") {
				return []string{"a load of weights of less than 16 bytes: " + i}
			}
		}
	}
	if loads == 0 {
		return []string{"no load of weights"}
	}
	return nil
}
