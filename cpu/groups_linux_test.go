package cpu

import (
	"math"
	"testing"
	"testing/fstest"
)

// files is a tree of files from names and contents.
func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1] + "\n")}
	}
	return m
}

func TestGroupCores(t *testing.T) {
	const none = math.MaxInt
	for _, c := range []struct {
		name  string
		files fstest.MapFS
		want  int
	}{
		{"no groups", files(), none},
		{"v2, no limit", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/cpu.max", "max 100000"), none},
		{"v2, half a core", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/cpu.max", "50000 100000"), 1},
		{"v2, 2.5 cores", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/cpu.max", "250000 100000"), 3},
		{"v2, above", files("proc/self/cgroup", "0::/a/b", "sys/fs/cgroup/a/cpu.max", "200000 100000", "sys/fs/cgroup/a/b/cpu.max", "400000 100000"), 2},
		{"v2, in a container", files("proc/self/cgroup", "0::/", "sys/fs/cgroup/cpu.max", "300000 100000"), 3},
		{"v1", files("proc/self/cgroup", "4:cpu,cpuacct:/a\n0::/", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000"), 2},
		{"v1, no limit", files("proc/self/cgroup", "4:cpu:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"), none},
		{"v1, in a container", files("proc/self/cgroup", "4:cpu:/docker/0123", "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"), 4},
		{"v1, of another controller", files("proc/self/cgroup", "4:cpuacct:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"), none},
	} {
		if got := groupCores(c.files); got != c.want {
			t.Errorf("%s: %d cores, want %d", c.name, got, c.want)
		}
	}
}

func TestGroupMemory(t *testing.T) {
	const none = math.MaxUint64
	for _, c := range []struct {
		name        string
		files       fstest.MapFS
		limit, left uint64
	}{
		{"no groups", files(), none, none},
		{"v2, no limit", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/memory.max", "max", "sys/fs/cgroup/a/memory.current", "10"), none, none},
		{"v2", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/memory.max", "100", "sys/fs/cgroup/a/memory.current", "70",
			"sys/fs/cgroup/a/memory.stat", "anon 50\ninactive_file 20\nfile 25"), 100, 50},
		{"v2, more than allowed", files("proc/self/cgroup", "0::/a", "sys/fs/cgroup/a/memory.max", "100", "sys/fs/cgroup/a/memory.current", "170"), 100, 0},
		{"v2, less left above", files("proc/self/cgroup", "0::/a/b", "sys/fs/cgroup/a/memory.max", "200", "sys/fs/cgroup/a/memory.current", "190",
			"sys/fs/cgroup/a/b/memory.max", "100", "sys/fs/cgroup/a/b/memory.current", "30"), 100, 10},
		{"v1", files("proc/self/cgroup", "4:memory:/a", "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000", "sys/fs/cgroup/memory/a/memory.usage_in_bytes", "600",
			"sys/fs/cgroup/memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 100"), 1000, 500},
	} {
		if limit, left := groupMemory(c.files); limit != c.limit || left != c.left {
			t.Errorf("%s: %d, %d left; want %d, %d", c.name, limit, left, c.limit, c.left)
		}
	}
}
