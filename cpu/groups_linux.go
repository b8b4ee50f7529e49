package cpu

import (
	"bytes"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// groupDirs are the folders of this process's control group for a controller, from
// its own up to the root: a limit of any of them binds. In version 1 each
// controller has a tree of its own; in a container the upper folders may be all
// that is visible.
func groupDirs(files fs.FS, controller string) []string {
	lines, _ := fs.ReadFile(files, "proc/self/cgroup")
	var dirs []string
	for line := range strings.Lines(string(lines)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		names, group, _ := strings.Cut(rest, ":")
		mounts := []string{"", "unified"} // version 2: alone, or beside version 1
		if names != "" {
			if !slices.Contains(strings.Split(names, ","), controller) {
				continue
			}
			mounts = []string{names, controller}
		}
		for _, mount := range mounts {
			for dir := path.Join("/", group); ; dir = path.Dir(dir) {
				dirs = append(dirs, path.Join("sys/fs/cgroup", mount, dir))
				if dir == "/" {
					break
				}
			}
		}
	}
	return dirs
}

// groupMemory is the least memory that the control groups of this process allow,
// and the least that is left of it, in bytes; what the system can drop from its
// cache of files counts as left.
func groupMemory(files fs.FS) (limit, left uint64) {
	limit, left = math.MaxUint64, math.MaxUint64
	for _, dir := range groupDirs(files, "memory") {
		for _, f := range [][3]string{
			{"memory.max", "memory.current", "inactive_file"}, // "max" is no number: no limit
			{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
		} {
			most, err1 := readNumber(files, path.Join(dir, f[0]))
			used, err2 := readNumber(files, path.Join(dir, f[1]))
			if err1 != nil || err2 != nil {
				continue
			}
			used -= min(used, readStat(files, path.Join(dir, "memory.stat"), f[2]))
			limit, left = min(limit, most), min(left, most-min(used, most))
		}
	}
	return limit, left
}

// groupCores is how many cores' time the control groups of this process allow,
// rounded up. (Go lowers GOMAXPROCS by it too, but not below 2.)
func groupCores(files fs.FS) int {
	cores := math.MaxInt
	for _, dir := range groupDirs(files, "cpu") {
		var quota, period uint64
		var err1, err2 error
		if b, err := fs.ReadFile(files, path.Join(dir, "cpu.max")); err == nil {
			q, p, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
			quota, err1 = strconv.ParseUint(q, 10, 63) // or "max"
			period, err2 = strconv.ParseUint(p, 10, 63)
		} else {
			quota, err1 = readNumber(files, path.Join(dir, "cpu.cfs_quota_us")) // or -1
			period, err2 = readNumber(files, path.Join(dir, "cpu.cfs_period_us"))
		}
		if err1 == nil && err2 == nil && period > 0 {
			cores = min(cores, int(max(1, (quota+period-1)/period)))
		}
	}
	return cores
}

func readNumber(files fs.FS, name string) (uint64, error) {
	b, err := fs.ReadFile(files, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
}

// readStat is the value of a key in a file of lines "key value"; 0 without.
func readStat(files fs.FS, name, key string) uint64 {
	b, _ := fs.ReadFile(files, name)
	for line := range strings.Lines(string(b)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			n, _ := strconv.ParseUint(v, 10, 64)
			return n
		}
	}
	return 0
}
