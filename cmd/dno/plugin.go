package main

import (
	"fmt"
	"strings"

	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/serve"
	"github.com/spf13/cobra"
)

func (a *app) pluginCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "plugin",
		Short:   "List the bundled plugins, or serve one",
		Example: "  dno plugin list",
	})
	c.AddCommand(&cobra.Command{
		Use:     "list",
		Short:   "List the bundled plugins with their settings",
		Example: "  dno plugin list\n  dno plugin list --json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.pluginList() },
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
