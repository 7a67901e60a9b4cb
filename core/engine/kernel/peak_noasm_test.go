//go:build !amd64 || purego

package kernel

var peak map[string]func(n int)
