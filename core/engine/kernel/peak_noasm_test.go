//go:build purego || !(amd64 || arm64)

package kernel

var peak map[string]func(n int)
