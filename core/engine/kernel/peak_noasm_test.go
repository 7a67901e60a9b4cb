//go:build !amd64 || purego

package kernel

var peaks map[string]map[string]peak
