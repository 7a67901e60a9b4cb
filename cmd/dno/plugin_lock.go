package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) pluginInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install PATH",
		Short: "Trust a third party's plugin: pin its checksum in dno.lock",
		Long: `Pin the checksum of an executable named dno-<kind>-<name> in ./dno.lock. The lock lies beside the script,
so call this in the script's folder. The program is run once, to ask for its kind, name and version.
dno runs no third party's plugin that is not pinned, or has changed since.`,
		Example: "  dno plugin install plugins/dno-loss-mine",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return a.pluginInstall(c.Context(), args[0]) },
	}
}

func (a *app) pluginInstall(ctx context.Context, path string) error {
	m := executableName.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return sdk.Errorf(sdk.CodeUsage, "install %s: a plugin's executable is named dno-<kind>-<name>, kind being oracle, loss or sampler", path)
	}
	sum, err := fsx.SumFile(path)
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "install %s: %w", path, err)
	}
	lock, err := host.LoadLock(lockFile)
	if err != nil {
		return err
	}
	h, err := a.hostWith(host.Only(sum), ".", "")
	if err != nil {
		return err
	}
	defer h.Close()
	declared, err := h.Manifest(ctx, host.Spec{Kind: sdk.Kind(m[1]), Name: locate(path, ".")})
	if err != nil {
		return fmt.Errorf("install %s: %w", path, err)
	}
	if declared.Name != m[2] {
		return sdk.Errorf(sdk.CodePlugin, "install %s: it calls itself %q", path, declared.Name).
			WithHint("name the executable dno-%s-%s, or change its manifest", m[1], declared.Name)
	}
	pin := host.Pin{Plugin: m[1] + "/" + m[2], Path: path, SHA256: sum, Version: declared.Version}
	lock.Set(pin)
	if err := lock.Save(lockFile); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(pin)
	}
	fmt.Fprintf(a.stdout, "%s %s is pinned in %s: sha256 %s\n", pin.Plugin, report.Clean(pin.Version), lockFile, sum)
	return nil
}

// pinned is a pin and what has become of it: an entry of pinned in `dno plugin verify --json` and list.
type pinned struct {
	host.Pin
	State  host.PinState `json:"state"`
	Detail string        `json:"detail,omitempty"`
}

func verified(lock *host.Lock) []pinned {
	out := []pinned{}
	for _, p := range lock.Plugins {
		entry := pinned{Pin: p}
		var err error
		if entry.State, err = p.Verify("."); err != nil {
			entry.Detail = err.Error()
		}
		out = append(out, entry)
	}
	return out
}

func (a *app) pluginVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check that every pinned executable is there and unchanged",
		Long: `Hash every executable that ./dno.lock pins, and say ok, CHANGED, MISSING or UNFIT (it is not executable, or
everybody can write it). Nothing is run. It ends with 4 unless all are ok.`,
		Example: "  dno plugin verify\n  dno plugin verify --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			lock, err := host.LoadLock(lockFile)
			if err != nil {
				return err
			}
			pins, bad := verified(lock), 0
			for _, p := range pins {
				if p.State != host.PinOK {
					bad++
				}
			}
			if a.json {
				if err := a.printJSON(map[string]any{"pinned": pins}); err != nil {
					return err
				}
			} else {
				a.printPins(pins)
				if len(pins) == 0 {
					fmt.Fprintf(a.stdout, "nothing is pinned in %s\n", lockFile)
				}
			}
			if bad > 0 {
				return sdk.Errorf(sdk.CodePlugin, "%d of %d pinned plugins are not as they were pinned", bad, len(pins)).
					WithHint("if you trust what is there now: dno plugin install PATH; else: dno plugin remove KIND/NAME")
			}
			return nil
		},
	}
}

func (a *app) printPins(pins []pinned) {
	for _, p := range pins {
		fmt.Fprintf(a.stdout, "%-8s %s  %s\n", p.State, report.Clean(p.Plugin+" "+p.Version), report.Clean(p.Path))
		if p.Detail != "" {
			fmt.Fprintf(a.stdout, "         %s\n", report.Clean(p.Detail))
		}
	}
}

func (a *app) pluginRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove KIND/NAME",
		Short:   "Trust a plugin no longer: take its pin out of dno.lock",
		Long:    "Take a plugin's pin out of ./dno.lock. The executable stays where it is, and is no longer run.",
		Example: "  dno plugin remove loss/mine",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			lock, err := host.LoadLock(lockFile)
			if err != nil {
				return err
			}
			if !lock.Remove(args[0]) {
				names := []string{}
				for _, p := range lock.Plugins {
					names = append(names, p.Plugin)
				}
				e := sdk.Errorf(sdk.CodeUsage, "remove %s: it is not pinned in %s", args[0], lockFile)
				if near := sdk.Nearest(args[0], names); near != "" {
					return e.WithHint("did you mean %q?", near)
				}
				return e.WithHint("dno plugin list shows what is pinned")
			}
			if err := lock.Save(lockFile); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"plugin": args[0]})
			}
			fmt.Fprintf(a.stdout, "%s is no longer pinned in %s\n", args[0], lockFile)
			return nil
		},
	}
}

func (a *app) pluginListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the bundled plugins with their settings, those pinned, and those found",
		Long: `List the bundled plugins with their settings; what ./dno.lock pins, and whether it is unchanged; and the
executables named dno-<kind>-<name> that lie in ./plugins or in the user's folder and are not pinned.`,
		Example: "  dno plugin list\n  dno plugin list --json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.pluginList() },
	}
}

// pluginInfo is one entry of `dno plugin list --json`.
type pluginInfo struct {
	Kind     sdk.Kind      `json:"kind"`
	Name     string        `json:"name"`
	Help     string        `json:"help"`
	Settings []settingInfo `json:"settings"`
}

type settingInfo struct {
	Name     string          `json:"name"`
	Type     sdk.SettingType `json:"type"`
	Default  any             `json:"default"`
	Required bool            `json:"required"`
	Help     string          `json:"help"`
}

// found is an executable that is not pinned: an entry of unpinned in `dno plugin list --json`.
type found struct {
	Plugin string `json:"plugin"`
	Path   string `json:"path"`
}

func (a *app) pluginList() error {
	out := []pluginInfo{}
	for _, e := range plugins.List() {
		info := pluginInfo{Kind: e.Kind, Name: e.Name, Help: e.Help, Settings: []settingInfo{}}
		for _, s := range e.New().Manifest().Settings {
			info.Settings = append(info.Settings, settingInfo{s.Name, s.Type, s.Default, s.Required, s.Help})
		}
		out = append(out, info)
	}
	lock, err := host.LoadLock(lockFile)
	if err != nil {
		return err
	}
	pins, others := verified(lock), unpinned(lock)
	if a.json {
		return a.printJSON(map[string]any{"plugins": out, "pinned": pins, "unpinned": others})
	}
	for _, p := range out {
		fmt.Fprintf(a.stdout, "%s/%s  %s\n", p.Kind, p.Name, p.Help)
		for _, s := range p.Settings {
			value := "no default"
			if s.Default != nil {
				value = fmt.Sprintf("default %v", s.Default)
			} else if s.Required {
				value = "required"
			}
			fmt.Fprintf(a.stdout, "    %-18s %s (%s, %s)\n", s.Name, s.Help, s.Type, value)
		}
	}
	if len(pins) > 0 {
		fmt.Fprintf(a.stdout, "\nPinned in %s:\n", lockFile)
		a.printPins(pins)
	}
	if len(others) > 0 {
		fmt.Fprintf(a.stdout, "\nFound, not pinned and so not run:\n")
		for _, f := range others {
			fmt.Fprintf(a.stdout, "%s  %s\n", f.Plugin, report.Clean(f.Path))
		}
	}
	return nil
}

// unpinned returns the executables where plugins are looked for that are neither a pinned file nor the
// bytes of one.
func unpinned(lock *host.Lock) []found {
	out := []found{}
	for _, dir := range pluginDirs(".") {
		entries, _ := os.ReadDir(dir) // a directory that is not there holds none
		for _, e := range entries {
			m := executableName.FindStringSubmatch(e.Name())
			if m == nil {
				continue
			}
			f := found{m[1] + "/" + m[2], filepath.Join(dir, e.Name())}
			if !slices.ContainsFunc(lock.Plugins, f.isPinnedBy) {
				out = append(out, f)
			}
		}
	}
	slices.SortFunc(out, func(x, y found) int { return strings.Compare(x.Plugin, y.Plugin) })
	return out
}

func (f found) isPinnedBy(p host.Pin) bool {
	if p.Plugin != f.Plugin {
		return false
	}
	if locate(p.Path, ".") == locate(f.Path, ".") {
		return true // changed or not: that is said of the pin
	}
	sum, err := fsx.SumFile(f.Path)
	return err == nil && sum == p.SHA256
}
