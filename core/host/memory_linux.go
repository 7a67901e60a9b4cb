package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// residentMemory returns the resident set size, in bytes, of a process and of those that it started,
// and theirs. Pages that they share count for each. A process that is gone counts 0.
func residentMemory(pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	total := int64(0)
	if fields := bytes.Fields(statm); len(fields) > 1 {
		pages, _ := strconv.ParseInt(string(fields[1]), 10, 64) // 0 where the kernel writes something else
		total = pages * int64(os.Getpagesize())
	}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // none where the kernel has no such files
	for _, path := range lists {
		list, _ := os.ReadFile(path) // a thread that is gone has no children
		for _, field := range bytes.Fields(list) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				total += residentMemory(child)
			}
		}
	}
	return total
}
