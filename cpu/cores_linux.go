package cpu

import (
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// physicalCores counts the cores, without their second threads, that this process
// may use: of unlike cores the fast ones, and no more than its control group allows.
func physicalCores() int {
	files := os.DirFS("/")
	fast := fastProcessors(files, allowed())
	return max(1, min(cores(files, fast), groupCores(files)))
}

// allowed is the processors that this process may run on.
func allowed() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var list []int
	for i := range 64 * len(set) {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list
}

const processors = "sys/devices/system/cpu"

// coreSets is the processors of list, those of one core together; nil where the
// system does not tell.
func coreSets(files fs.FS, list []int) [][]int {
	var sets [][]int
	at := map[string]int{}
	for _, i := range list {
		b, err := fs.ReadFile(files, path.Join(processors, "cpu"+strconv.Itoa(i), "topology/thread_siblings_list"))
		if err != nil {
			return nil
		}
		j, ok := at[string(b)]
		if !ok {
			j, sets = len(sets), append(sets, nil)
			at[string(b)] = j
		}
		sets[j] = append(sets[j], i)
	}
	return sets
}

// cores counts the cores of list.
func cores(files fs.FS, list []int) int {
	if sets := coreSets(files, list); sets != nil {
		return len(sets)
	}
	return max(1, min(len(list), runtime.NumCPU()))
}

// fastProcessors is list without the slow processors of a hybrid CPU: Intel's kernel
// driver lists the performance cores, others state a capacity up to 1024. (A slow
// core has about half the capacity; the best of like cores differ by less.)
func fastProcessors(files fs.FS, list []int) []int {
	var fast []int
	if b, err := fs.ReadFile(files, "sys/devices/cpu_core/cpus"); err == nil {
		for _, i := range parseList(string(b)) {
			if slices.Contains(list, i) {
				fast = append(fast, i)
			}
		}
	} else {
		capacity := make([]uint64, len(list))
		for j, i := range list {
			capacity[j], _ = readNumber(files, path.Join(processors, "cpu"+strconv.Itoa(i), "cpu_capacity"))
		}
		for j, i := range list {
			if 3*capacity[j] > 2*slices.Max(capacity) {
				fast = append(fast, i)
			}
		}
	}
	if len(fast) == 0 {
		return list
	}
	return fast
}

// nodes is the parts of list that are near to the same memory.
func nodes(files fs.FS, list []int) [][]int {
	dirs, _ := fs.Glob(files, "sys/devices/system/node/node[0-9]*/cpulist")
	var parts [][]int
	for _, name := range dirs {
		b, _ := fs.ReadFile(files, name)
		var part []int
		for _, i := range parseList(string(b)) {
			if slices.Contains(list, i) {
				part = append(part, i)
			}
		}
		if len(part) > 0 {
			parts = append(parts, part)
		}
	}
	return parts
}

// parseList reads "0-3,8" as 0, 1, 2, 3, 8.
func parseList(s string) []int {
	var list []int
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		lo, err1 := strconv.Atoi(from)
		hi, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil {
			continue
		}
		for i := lo; i <= hi; i++ {
			list = append(list, i)
		}
	}
	return list
}

// places is where each worker of a pool runs.
type places struct {
	tight []unix.CPUSet // by worker; nil: anywhere
	wide  []unix.CPUSet // where it may go when others hold a core
	all   unix.CPUSet   // where the process may run
	apart bool          // not all memory is equally near to all workers
}

// choosePlaces gives each worker a core of its own where there is one worker for each
// core. Where there are fewer, somebody else may have been meant to take the rest,
// so they are bound only to the processors near one memory, in equal shares, or to
// the fast cores of a hybrid CPU, and that only where there are such.
//
// On two cores with eight other processes running, tinyllama-1.1b Q4_0 decodes at 31
// tokens/s with workers bound to cores and at 19 without (medians of eight): the
// system often has both wait on one core.
func choosePlaces(workers int) places {
	list := allowed()
	tight, wide, apart := divide(os.DirFS("/"), list, workers)
	if tight == nil || workers > runtime.GOMAXPROCS(0) {
		return places{}
	}
	return places{tight: cpuSets(tight), wide: cpuSets(wide), all: cpuSets([][]int{list})[0], apart: apart}
}

func cpuSets(lists [][]int) []unix.CPUSet {
	sets := make([]unix.CPUSet, len(lists))
	for i, list := range lists {
		for _, cpu := range list {
			sets[i].Set(cpu)
		}
	}
	return sets
}

// divide is choosePlaces on processors given as lists.
func divide(files fs.FS, list []int, workers int) (tight, wide [][]int, apart bool) {
	fast := fastProcessors(files, list)
	if workers > cores(files, fast) {
		fast = list
	}
	parts := nodes(files, fast)
	if len(parts) == 0 {
		parts = [][]int{fast}
	}
	total, first := cores(files, fast), 0
	for _, part := range parts {
		sets := coreSets(files, part)
		tight = append(tight, sets...)
		first += len(sets)
		for len(wide) < workers*first/total {
			wide = append(wide, part)
		}
	}
	apart = len(parts) > 1
	switch {
	case workers == 1 || len(wide) != workers:
		return nil, nil, false
	case len(tight) == workers:
		return tight, wide, apart
	case apart || len(fast) < len(list):
		return wide, wide, apart
	}
	return nil, nil, false
}

// bind keeps the calling goroutine on the processors of worker id.
func (p *places) bind(id int, wide bool) {
	if p.tight == nil {
		return
	}
	sets := p.tight
	if wide {
		sets = p.wide
	}
	runtime.LockOSThread()
	_ = unix.SchedSetaffinity(0, &sets[id])
}

// free undoes bind.
func (p *places) free() {
	if p.tight != nil {
		_ = unix.SchedSetaffinity(0, &p.all)
		runtime.UnlockOSThread()
	}
}
