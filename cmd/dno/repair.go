package main

import (
	"fmt"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) fsckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "fsck [DIR]",
		Short: "Check every file of a run",
		Long: `Check every file of a run (default: the latest): the checksum of each record, and of each file of each
checkpoint. Nothing is changed. It exits with 10 where something is damaged; what a crash leaves is no damage,
and the next resume repairs it.`,
		Example: "  dno fsck runs/dno-1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := runOf(args)
			if err != nil {
				return err
			}
			found, err := rundir.Fsck(dir)
			if err != nil {
				return err
			}
			damaged := ""
			for _, f := range found {
				if f.Damage && damaged == "" {
					damaged = f.Path
				}
			}
			if a.json {
				if err := a.printJSON(map[string]any{"dir": dir, "ok": damaged == "", "found": append([]rundir.Finding{}, found...)}); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					mark := "note   "
					if f.Damage {
						mark = "DAMAGED"
					}
					fmt.Fprintf(a.stdout, "%s  %s: %s\n", mark, f.Path, f.What)
				}
				if damaged == "" {
					fmt.Fprintf(a.stdout, "%s is whole\n", dir)
				}
			}
			if damaged != "" {
				return sdk.Errorf(sdk.CodeCorrupt, "check %s: %s is damaged", dir, damaged).
					WithHint("of a damaged checkpoint, dno resume makes what follows again; of a damaged record, take back its iteration: dno rollback %s --to N", dir)
			}
			return nil
		},
	}
}

func (a *app) rollbackCommand() *cobra.Command {
	var to int
	c := &cobra.Command{
		Use:   "rollback DIR --to N",
		Short: "Take back the iterations after N",
		Long: `Take back all iterations after N: their records and folders are removed, and "dno resume" makes them again. What
oracles said is kept, so nothing is paid for twice.`,
		Example: "  dno rollback runs/dno-1 --to 2\n  dno resume runs/dno-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("to") {
				return sdk.Errorf(sdk.CodeUsage, "roll %s back: say to which iteration", args[0]).WithHint("dno rollback %s --to N; 0 is the start", args[0])
			}
			run, err := rundir.Open(args[0])
			if err != nil {
				return err
			}
			defer run.Close()
			n, err := run.Rollback(to)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"dir": args[0], "to": to, "taken_back": n})
			}
			fmt.Fprintf(a.stdout, "%s is at the end of iteration %d: %d finished iterations were taken back\n", args[0], to, n)
			return nil
		},
	}
	c.Flags().IntVar(&to, "to", 0, "the last iteration that stays")
	return c
}
