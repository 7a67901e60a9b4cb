package main

import "github.com/spf13/cobra"

func (a *app) pluginNewCommand() *cobra.Command { return &cobra.Command{Use: "new", Example: "dno"} }
