package main

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Products of warpgroups (HGMMA) read A and add to their sums long after they are
// issued. Until WARPGROUP.DEPBAR says that a group of them is complete nothing
// else may write to those registers or read the sums; ptxas does not always see
// to that.

// code is a kernel's machine code as nvdisasm prints it.
type code struct {
	lines  []string
	labels map[string]int // to the line behind
}

// disassembled is the kernels of what nvdisasm -c says.
func disassembled(text string) map[string]*code {
	kernels := map[string]*code{}
	var k *code
	section, label := regexp.MustCompile(`^\.text\.(\w+):`), regexp.MustCompile(`^(\.L_x_\d+):`)
	instruction := regexp.MustCompile(`^\s+/\*[0-9a-f]+\*/\s+(.*?) ;`)
	for line := range strings.SplitSeq(text, "\n") {
		if m := section.FindStringSubmatch(line); m != nil {
			k = &code{labels: map[string]int{}}
			kernels[m[1]] = k
		} else if k == nil {
			continue
		} else if m := label.FindStringSubmatch(line); m != nil {
			k.labels[m[1]] = len(k.lines)
		} else if m := instruction.FindStringSubmatch(line); m != nil {
			k.lines = append(k.lines, m[1])
		}
	}
	return kernels
}

// use is how a product uses a register: how many groups ago it was issued, 0
// while its own is open, and whether as a sum.
type use struct {
	age int
	sum bool
}

const oldest = 8 // groups under way; more are not told apart

// hazards are the instructions that touch registers of products under way, each
// once, in any order that branches allow.
func (k *code) hazards() []string {
	var found []string
	told := map[int]bool{}
	states := map[int]map[int]use{0: {}} // at the beginning of a stretch of code
	work := []int{0}
	flow := func(to int, s map[int]use) {
		old, known := states[to]
		merged := maps.Clone(s)
		for r, u := range old {
			if v, ok := merged[r]; !ok || u.age < v.age {
				merged[r] = u
			}
		}
		if !known || !maps.Equal(old, merged) {
			states[to] = merged
			work = append(work, to)
		}
	}
	begins := map[int]bool{}
	for _, at := range k.labels {
		begins[at] = true
	}
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		s := maps.Clone(states[at])
		for first := at; at < len(k.lines); at++ {
			if at != first && begins[at] {
				flow(at, s)
				break
			}
			if k.touches(at, s) && !told[at] {
				told[at] = true
				found = append(found, k.lines[at])
			}
			guarded := strings.HasPrefix(k.lines[at], "@")
			if m := branch.FindStringSubmatch(k.lines[at]); m != nil {
				if to, ok := k.labels[m[1]]; ok {
					flow(to, s)
				}
			} else if !exit.MatchString(k.lines[at]) {
				continue
			}
			if !guarded {
				break
			}
		}
	}
	return found
}

var (
	guard    = regexp.MustCompile(`^@!?U?P\w+ `)
	branch   = regexp.MustCompile("^(?:@!?U?P\\w+ )?BRA\\S* .*`\\((\\.L_x_\\d+)\\)")
	exit     = regexp.MustCompile(`^(?:@!?U?P\w+ )?(?:EXIT|BRA)`)
	register = regexp.MustCompile(`\bR(\d+)`)
	shape    = regexp.MustCompile(`^HGMMA\.64x(\d+)x16`)
	// Instructions that begin so write to no register.
	silent = regexp.MustCompile(`^(ST|LDGSTS|RED|BRA|BAR|DEPBAR|WARPGROUP|LDGDEPBAR|BSSY|BSYNC|EXIT|MEMBAR|FENCE|NOP|WARPSYNC|ERRBAR|CCTL|ACQBULK|PREEXIT|R2UR|U|@)`)
	wide   = regexp.MustCompile(`^(LDS|LDG|LD|LDC|LDL)\S*\.(64|128)`)
)

// touches notes what an instruction does to the state, and whether it is a hazard.
func (k *code) touches(at int, s map[int]use) bool {
	text := guard.ReplaceAllString(k.lines[at], "")
	op, rest, _ := strings.Cut(text, " ")
	var all []int
	for _, m := range register.FindAllStringSubmatch(rest, -1) {
		r, _ := strconv.Atoi(m[1])
		all = append(all, r)
	}
	if m := shape.FindStringSubmatch(op); m != nil {
		columns, _ := strconv.Atoi(m[1])
		for r := range columns / 2 {
			s[all[0]+r] = use{0, true}
		}
		for r := range 4 {
			s[all[1]+r] = use{0, false}
		}
		if strings.Contains(rest, "gsb0") { // the last of a group
			for r, u := range s {
				s[r] = use{min(u.age+1, oldest), u.sum}
			}
		}
		return false
	}
	if strings.HasPrefix(op, "WARPGROUP.DEPBAR") {
		_, count, _ := strings.Cut(rest, "gsb0, ")
		keep, err := strconv.ParseInt(count, 0, 32)
		if err == nil {
			maps.DeleteFunc(s, func(_ int, u use) bool { return u.age > int(keep) })
		}
		return false
	}
	written := 0
	if !silent.MatchString(text) && len(all) > 0 && strings.HasPrefix(rest, "R") {
		written = 1
		switch m := wide.FindStringSubmatch(op); {
		case m != nil && m[2] == "128":
			written = 4
		case m != nil, strings.Contains(op, "WIDE"), strings.HasPrefix(op, "CS2R") && !strings.Contains(op, ".32"):
			written = 2
		}
	}
	for r := range written {
		if _, ok := s[all[0]+r]; ok {
			return true
		}
	}
	for _, r := range all {
		if s[r].sum {
			return true
		}
	}
	return false
}

// checkHazards assembles a file of PTX for sm_90a and wants no hazards. The newest
// ptxas and that of the drivers in use (13.0) do not make the same of it.
func checkHazards(ptxas, file string) error {
	binary := file + ".cubin"
	if out, err := exec.Command(ptxas, "-arch=sm_90a", "-o", binary, file).CombinedOutput(); err != nil {
		return fmt.Errorf("%w (./build.sh deps): %.200s", err, out)
	}
	out, err := exec.Command(filepath.Join(cacheFolder(), "nvdisasm"), "-c", binary).Output()
	if err != nil {
		return fmt.Errorf("nvdisasm: %w (./build.sh deps)", err)
	}
	kernels := disassembled(string(out))
	if len(kernels) == 0 {
		return errors.New("nvdisasm names no kernel")
	}
	for name, k := range kernels {
		if found := k.hazards(); len(found) > 0 {
			return fmt.Errorf("%s: %d instructions touch registers of products under way: %s", name, len(found), found[0])
		}
	}
	return nil
}
