package cpu

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"testing/fstest"
)

// machine is the files of so many processors; siblings says which are threads of
// one core, for processor i.
func machine(n int, siblings func(i int) string, more ...string) fstest.MapFS {
	m := files(more...)
	for i := range n {
		m[fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i)] = &fstest.MapFile{Data: []byte(siblings(i))}
	}
	return m
}

func alone(i int) string { return fmt.Sprint(i) }

func times(n int, list string) [][]int { return slices.Repeat([][]int{parseList(list)}, n) }

func TestDivide(t *testing.T) {
	twins := func(i int) string { return fmt.Sprintf("%d,%d", i%4, i%4+4) }
	// four performance cores of two threads, four efficiency cores
	intel := machine(12, func(i int) string {
		if i < 8 {
			return fmt.Sprintf("%d-%d", i&^1, i|1)
		}
		return fmt.Sprint(i)
	}, "sys/devices/cpu_core/cpus", "0-7", "sys/devices/cpu_atom/cpus", "8-11")
	capacities := []string{"446", "446", "871", "1024"}
	var lines []string
	for i, c := range capacities {
		lines = append(lines, fmt.Sprintf("sys/devices/system/cpu/cpu%d/cpu_capacity", i), c)
	}
	arm := machine(4, alone, lines...)
	two := machine(8, twins, "sys/devices/system/node/node0/cpulist", "0-1,4-5", "sys/devices/system/node/node1/cpulist", "2-3,6-7",
		"sys/devices/system/node/node2/cpulist", "")
	a, b := []int{0, 1, 4, 5}, []int{2, 3, 6, 7}
	for _, c := range []struct {
		name    string
		files   fstest.MapFS
		allowed string
		cores   int
		workers int
		tight   [][]int
		wide    [][]int
	}{
		{"like cores", machine(4, alone), "0-3", 4, 4, [][]int{{0}, {1}, {2}, {3}}, times(4, "0-3")},
		{"like cores, fewer workers", machine(4, alone), "0-3", 4, 3, nil, nil},
		{"like cores, more workers", machine(4, alone), "0-3", 4, 5, nil, nil},
		{"second threads", machine(8, twins, "sys/devices/system/node/node0/cpulist", "0-7"), "0-7", 4, 4, [][]int{{0, 4}, {1, 5}, {2, 6}, {3, 7}}, times(4, "0-7")},
		{"part of it", machine(8, twins), "1,5,6", 2, 2, [][]int{{1, 5}, {6}}, times(2, "1,5,6")},
		{"no files", files(), "0", 1, 1, nil, nil},
		{"no files, two workers", files(), "0-1", min(2, runtime.NumCPU()), 2, nil, nil},
		{"two memories", two, "0-7", 4, 4, [][]int{{0, 4}, {1, 5}, {2, 6}, {3, 7}}, [][]int{a, a, b, b}},
		{"two memories, three workers", two, "0-7", 4, 3, [][]int{a, b, b}, [][]int{a, b, b}},
		{"two memories, every thread", two, "0-7", 4, 8, [][]int{a, a, a, a, b, b, b, b}, [][]int{a, a, a, a, b, b, b, b}},
		{"two memories, one worker", two, "0-7", 4, 1, nil, nil},
		{"one memory of two", two, "2,3", 2, 2, [][]int{{2}, {3}}, times(2, "2,3")},
		{"unequal parts", two, "0,2,3,7", 3, 3, [][]int{{0}, {2}, {3, 7}}, [][]int{{0}, {2, 3, 7}, {2, 3, 7}}},
		{"Intel hybrid", intel, "0-11", 4, 4, [][]int{{0, 1}, {2, 3}, {4, 5}, {6, 7}}, times(4, "0-7")},
		{"Intel hybrid, fewer workers", intel, "0-11", 4, 2, times(2, "0-7"), times(2, "0-7")},
		{"Intel hybrid, more workers than fast cores", intel, "0-11", 4, 7, nil, nil},
		{"Intel hybrid, slow cores only", intel, "9-11", 3, 3, [][]int{{9}, {10}, {11}}, times(3, "9-11")},
		{"ARM hybrid", arm, "0-3", 2, 2, [][]int{{2}, {3}}, times(2, "2-3")},
		{"ARM hybrid, slow cores only", arm, "0-1", 2, 2, [][]int{{0}, {1}}, times(2, "0-1")},
	} {
		list := parseList(c.allowed)
		if got := cores(c.files, fastProcessors(c.files, list)); got != c.cores {
			t.Errorf("%s: %d cores, want %d", c.name, got, c.cores)
		}
		if tight, wide, _ := divide(c.files, list, c.workers); !reflect.DeepEqual(tight, c.tight) || !reflect.DeepEqual(wide, c.wide) {
			t.Errorf("%s: %v in %v, want %v in %v", c.name, tight, wide, c.tight, c.wide)
		}
	}
}
