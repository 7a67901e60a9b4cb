package main

import (
	"regexp"
	"strings"

	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/serve"
	"github.com/spf13/cobra"
)

func (a *app) pluginCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "plugin",
		Short:   "Start a plugin of your own, check it, trust it; list what there is",
		Example: "  dno plugin new loss mine\n  dno plugin check mine/plugins/dno-loss-mine\n  dno plugin list",
	})
	c.AddCommand(a.pluginNewCommand(), a.pluginCheckCommand(), a.pluginInstallCommand(), a.pluginVerifyCommand(),
		a.pluginRemoveCommand(), a.pluginListCommand(), &cobra.Command{
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

// kinds are what a plugin can be.
var kinds = []sdk.Kind{sdk.KindOracle, sdk.KindLoss, sdk.KindSampler}

var executableName = regexp.MustCompile(`^dno-(oracle|loss|sampler)-([a-z0-9_-]+?)(\.exe)?$`)

func bundledNames(kind sdk.Kind) (names []string) {
	for _, e := range plugins.List() {
		if e.Kind == kind {
			names = append(names, e.Name)
		}
	}
	return names
}

func isBundled(kind sdk.Kind, name string) bool {
	_, err := plugins.New(kind, name)
	return err == nil
}
