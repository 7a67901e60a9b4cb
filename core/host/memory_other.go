//go:build !linux

package host

// residentMemory is not known on this system: a plugin's memory has no limit here.
func residentMemory(int) int64 { return 0 }
