package cpu

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is the computer's memory and what of it this process may still take,
// in bytes: MemAvailable, less where a control group allows less.
func memory() (total, free uint64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseUint(fields[1], 10, 54)
		switch fields[0] {
		case "MemTotal:":
			total = kib << 10
		case "MemAvailable:":
			free = kib << 10
		}
	}
	if limit, used, ok := groupMemory(); ok && limit < total {
		total, free = limit, min(free, limit-min(used, limit))
	}
	return total, free
}

// groupMemory reads the memory limit of this process's control group (cgroup v2).
func groupMemory() (limit, used uint64, ok bool) {
	line, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, 0, false
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(line)), "0::")
	read := func(name string) (uint64, error) {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", path, name))
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	}
	limit, err1 := read("memory.max") // "max" does not parse: no limit
	used, err2 := read("memory.current")
	return limit, used, err1 == nil && err2 == nil
}

// physicalCores counts the cores, without their second threads, that this
// process may run on.
func physicalCores() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return runtime.NumCPU()
	}
	cores := map[string]bool{}
	for i := range 64 * len(set) {
		if !set.IsSet(i) {
			continue
		}
		b, err := os.ReadFile("/sys/devices/system/cpu/cpu" + strconv.Itoa(i) + "/topology/thread_siblings_list")
		if err != nil {
			return runtime.NumCPU()
		}
		cores[string(b)] = true
	}
	return max(1, len(cores))
}

// processorName is what the maker calls the CPU.
func processorName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
