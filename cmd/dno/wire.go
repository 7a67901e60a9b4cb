package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
)

// version is what `dno version` prints; a release's build sets it with -ldflags "-X main.version=v1.2.3".
var version = ""

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return unknownVersion
}

// unknownVersion is what the go command says of a program that it runs itself.
const unknownVersion = "(devel)"

// newLog returns the logger of a command: on a terminal text with a live line, elsewhere a line an event.
func newLog(w io.Writer, asJSON, verbose bool) telemetry.Logger {
	o := telemetry.Options{Writer: w}
	if f, ok := w.(*os.File); ok {
		o = telemetry.ForFile(f, os.Getenv)
	}
	o.JSON = asJSON
	if verbose {
		o.Level = "debug"
	}
	log, err := telemetry.New(o)
	if err != nil {
		panic(err) // the level above is a legal one
	}
	return log
}

// details takes lines that are for those who look for a fault.
type details struct{ log telemetry.Logger }

func (d details) Write(p []byte) (int, error) {
	d.log.Debug(strings.TrimSpace(string(p)))
	return len(p), nil
}

// checkKernel refuses an instruction set that DNO_KERNEL names and this machine lacks.
func checkKernel() error {
	if err := kernel.LevelError(); err != nil {
		return sdk.Errorf(sdk.CodeUsage, "DNO_KERNEL: %w", err)
	}
	return nil
}

// pluginDirs are where third-party plugins are looked for.
func pluginDirs(scriptDir string) []string {
	dirs := []string{filepath.Join(scriptDir, "plugins")}
	if home, err := os.UserConfigDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "dno", "plugins"))
	}
	return dirs
}

// newHost returns the host of a script's plugins. Bundled ones are this binary, run again. Paths in
// settings start from the script's folder; embedded files are unpacked into unpacked first. The
// run's records keep what the script says.
func (a *app) newHost(scriptDir, unpacked string) (*host.Host, error) {
	lock, err := host.LoadLock(filepath.Join(scriptDir, lockFile))
	if err != nil {
		return nil, err
	}
	return a.hostWith(pins{lock, scriptDir}, scriptDir, unpacked)
}

// hostWith is newHost with other checksums than those of dno.lock.
func (a *app) hostWith(sums host.Checksums, scriptDir, unpacked string) (*host.Host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeInternal, "find this binary, which serves the bundled plugins: %w", err)
	}
	return host.New(host.Options{
		Bundled: func(kind sdk.Kind, name string) ([]string, bool) {
			if _, err := plugins.New(kind, name); err != nil {
				return nil, false
			}
			return []string{self, "plugin", "serve", string(kind) + "/" + name}, true
		},
		BundledNames: bundledNames,
		Locate:       func(path string) (string, error) { return unpack(path, scriptDir, unpacked) },
		SearchDirs:   pluginDirs(scriptDir),
		Lock:         sums,
		Log:          a.log,
	})
}

// lockFile lies beside the script.
const lockFile = "dno.lock"

// pins are the lock of a script's folder. A plugin that the script names by its path is pinned by that.
type pins struct {
	lock *host.Lock
	dir  string
}

func (p pins) Checksum(kind sdk.Kind, name string) (string, bool) {
	for _, pin := range p.lock.Plugins {
		if strings.HasPrefix(pin.Plugin, string(kind)+"/") && locate(pin.Path, p.dir) == name {
			return pin.SHA256, true
		}
	}
	return p.lock.Checksum(kind, name)
}

// opener opens plugins for the loop.
type opener struct {
	host *host.Host
	from string // the script's folder
}

func (o opener) spec(p loop.Plugin) host.Spec {
	name := p.Name
	if filepath.Base(name) != name {
		name = locate(name, o.from)
	}
	return host.Spec{
		Name: name, Settings: p.Settings, Env: p.Env,
		Memory: int64(p.Memory * (1 << 20)), Timeout: time.Duration(p.Timeout * float64(time.Second)),
	}
}

func (o opener) Oracle(ctx context.Context, p loop.Plugin) (sdk.Oracle, rundir.PluginRecord, error) {
	return opened(p, func() (sdk.Oracle, host.Running, error) { return o.host.Oracle(ctx, o.spec(p)) })
}

func (o opener) Loss(ctx context.Context, p loop.Plugin) (sdk.Loss, rundir.PluginRecord, error) {
	return opened(p, func() (sdk.Loss, host.Running, error) { return o.host.Loss(ctx, o.spec(p)) })
}

func (o opener) Sampler(ctx context.Context, p loop.Plugin) (sdk.Sampler, rundir.PluginRecord, error) {
	return opened(p, func() (sdk.Sampler, host.Running, error) { return o.host.Sampler(ctx, o.spec(p)) })
}

// opened opens a plugin and records what it is. Of a file that a setting names the record holds the
// script's spelling and the content's hash: where it was unpacked to is of no account.
func opened[T sdk.Plugin](p loop.Plugin, open func() (T, host.Running, error)) (plugin T, rec rundir.PluginRecord, err error) {
	plugin, running, err := open()
	if err != nil {
		return plugin, rec, err
	}
	rec = rundir.PluginRecord{Kind: running.Kind, Name: running.Name, Version: running.Version, SHA256: running.SHA256, Files: map[string]string{}}
	if rec.Settings, err = plugin.Manifest().Resolve(p.Settings); err != nil {
		return plugin, rec, err
	}
	for _, s := range plugin.Manifest().Settings {
		path, _ := running.Settings[s.Name].(string)
		info, err := os.Stat(path)
		if s.Type != sdk.TypePath || path == "" || err != nil || !info.Mode().IsRegular() {
			continue // what is wrong with it the plugin says best
		}
		name, _ := rec.Settings[s.Name].(string)
		if rec.Files[name], err = fsx.SumFile(path); err != nil {
			return plugin, rec, sdk.Errorf(sdk.CodeIO, "read %s of %s %q: %w", s.Name, rec.Kind, rec.Name, err)
		}
	}
	return plugin, rec, nil
}

func (o opener) Sweep() { o.host.Sweep() }
