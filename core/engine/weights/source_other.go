//go:build !unix

package weights

import "os"

func osSource(dir string) source {
	if dir == "" {
		dir = "."
	}
	return fsSource{os.DirFS(dir)}
}
