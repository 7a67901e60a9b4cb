// Package pluginpb is the wire contract: plugin.proto (package dno.plugin.v1) and its generated Go.
// To renew the Go after a change of the contract: make proto.
package pluginpb
