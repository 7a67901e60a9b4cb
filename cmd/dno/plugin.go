package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/serve"
	"github.com/spf13/cobra"
)

func (a *app) pluginCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "plugin",
		Short:   "List the bundled plugins, pin others, or serve one",
		Example: "  dno plugin list\n  dno plugin install plugins/dno-loss-mine",
	})
	c.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the bundled plugins with their settings",
		Example: "  dno plugin list\n  dno plugin list --json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.pluginList() },
	}, &cobra.Command{
		Use:   "install PATH",
		Short: "Trust a third party's plugin: pin its checksum in dno.lock",
		Long: `Pin the checksum of an executable named dno-<kind>-<name> in ./dno.lock. The lock lies beside the script,
so call this in the script's folder. dno runs no third party's plugin that is not pinned, or has changed since.`,
		Example: "  dno plugin install plugins/dno-loss-mine",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.pluginInstall(args[0]) },
	}, &cobra.Command{
		Use:     "serve KIND/NAME",
		Short:   "Serve a bundled plugin to the host (dno starts this itself)",
		Example: "  dno plugin serve loss/dpo",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			kind, name, _ := strings.Cut(args[0], "/")
			p, err := plugins.New(sdk.Kind(kind), name)
			if err != nil {
				return sdk.Errorf(sdk.CodePlugin, "%w", err)
			}
			return serve.Plugin(p)
		},
	})
	return c
}

var executableName = regexp.MustCompile(`^dno-(oracle|loss|sampler)-([a-z0-9_-]+)(\.exe)?$`)

func (a *app) pluginInstall(path string) error {
	m := executableName.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return sdk.Errorf(sdk.CodeUsage, "install %s: a plugin's executable is named dno-<kind>-<name>, kind being oracle, loss or sampler", path)
	}
	sum, err := host.SumFile(path)
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "install %s: %w", path, err)
	}
	lock, err := host.LoadLock(lockFile)
	if err != nil {
		return err
	}
	name := m[1] + "/" + m[2]
	lock.Set(host.Pin{Plugin: name, Path: path, SHA256: sum})
	if err := lock.Save(lockFile); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"plugin": name, "path": path, "sha256": sum})
	}
	fmt.Fprintf(a.stdout, "%s is pinned in %s: sha256 %s\n", name, lockFile, sum)
	return nil
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

func (a *app) pluginList() error {
	out := []pluginInfo{}
	for _, e := range plugins.List() {
		info := pluginInfo{Kind: e.Kind, Name: e.Name, Help: e.Help, Settings: []settingInfo{}}
		for _, s := range e.New().Manifest().Settings {
			info.Settings = append(info.Settings, settingInfo{s.Name, s.Type, s.Default, s.Required, s.Help})
		}
		out = append(out, info)
	}
	if a.json {
		return a.printJSON(map[string]any{"plugins": out})
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
	return nil
}
