//go:build unix

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
)

// BenchmarkLaunch is a plugin's start up to its first possible call: the bundled one, which is this whole
// program again; a third party's in Go and in Python, each with its checksum, its private copy and its
// verification. Its end is not counted.
func BenchmarkLaunch(b *testing.B) {
	self, err := exec.LookPath("dno")
	if err != nil {
		b.Fatal(err)
	}
	sources, err := filepath.Abs("../..")
	if err != nil {
		b.Fatal(err)
	}
	launch := func(b *testing.B, options host.Options, name string) {
		var took []time.Duration
		for b.Loop() {
			h, err := host.New(options)
			if err != nil {
				b.Fatal(err)
			}
			start := time.Now()
			if _, _, err := h.Loss(context.Background(), host.Spec{Name: name}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
			h.Close()
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
	}
	project := func(b *testing.B, lang string) (dir, plugin string) {
		dir = filepath.Join(b.TempDir(), "mine")
		works(b, ".", "plugin", "new", "loss", "mine", "--lang", lang, "--sdk", sources, "--dir", dir)
		return dir, filepath.Join("plugins", "dno-loss-mine")
	}
	installed := func(b *testing.B, dir, plugin string) host.Options {
		works(b, dir, "plugin", "install", plugin)
		lock, err := host.LoadLock(filepath.Join(dir, lockFile))
		if err != nil {
			b.Fatal(err)
		}
		return host.Options{SearchDirs: []string{filepath.Join(dir, "plugins")}, Lock: lock}
	}
	b.Run("bundled", func(b *testing.B) {
		launch(b, host.Options{Bundled: func(kind sdk.Kind, name string) ([]string, bool) {
			_, err := plugins.New(kind, name)
			return []string{self, "plugin", "serve", string(kind) + "/" + name}, err == nil
		}}, "dpo")
	})
	b.Run("Go", func(b *testing.B) {
		dir, plugin := project(b, "go")
		ran(b, dir, "go", "build", "-o", plugin, ".")
		launch(b, installed(b, dir, plugin), "mine")
	})
	b.Run("Python", func(b *testing.B) {
		dir, plugin := project(b, "python")
		if err := os.Symlink(grpcEnvironment(b), filepath.Join(dir, ".venv")); err != nil {
			b.Fatal(err)
		}
		ran(b, dir, "./build.sh")
		launch(b, installed(b, dir, plugin), "mine")
	})
}
