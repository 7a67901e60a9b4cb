package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/serve"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// serveOptions are the flags of `dno serve`.
type serveOptions struct {
	model, name        string
	precision, weights string
	addr, key          string
	insecure           bool
	requests           int
	timeout            time.Duration
}

func (a *app) serveCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve MODEL",
		Short: "Serve a model behind the OpenAI API",
		Long: `Serve a model behind the OpenAI API: /v1/chat/completions, /v1/completions, /v1/models and /health. Requests that come
together are drawn together; the same request with the same seed gets the same completions whatever else is served.

Only this machine can connect, unless --addr says otherwise. Then clients must show a key, or --insecure lets all in.`,
		Example: `  dno serve ` + embeddedModel + `
  dno serve runs/dno-1/iter-004/checkpoint --addr 0.0.0.0:8080 --key env:DNO_KEY`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o.model = args[0]
			return a.serve(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.addr, "addr", "127.0.0.1:8080", "host:port to listen at; the port 0 takes a free one")
	c.Flags().StringVar(&o.key, "key", "", "env:NAME: the variable that holds the key which clients must show")
	c.Flags().BoolVar(&o.insecure, "insecure", false, "let everybody in who can reach the address")
	c.Flags().StringVar(&o.name, "name", "", "of the model in the API; by default as MODEL is written")
	precisionFlag(c, &o.precision)
	weightsFlag(c, &o.weights)
	c.Flags().IntVar(&o.requests, "requests", 128, "answered at a time; more are told to come back")
	c.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "of a request, with its waiting")
	return c
}

func (a *app) serve(ctx context.Context, o serveOptions) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if o.requests < 1 || o.timeout <= 0 {
		return sdk.Errorf(sdk.CodeUsage, "serve: --requests is %d and --timeout %v: both must be above 0", o.requests, o.timeout)
	}
	key, err := a.serverKey(o.key)
	if err != nil {
		return err
	}
	addr, err := net.ResolveTCPAddr("tcp", o.addr)
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "serve: --addr %q: %w", o.addr, err).WithHint("write it as 127.0.0.1:8080")
	}
	local := addr.IP != nil && addr.IP.IsLoopback()
	if !local && key == "" && !o.insecure {
		return sdk.Errorf(sdk.CodeUsage, "serve: other machines can reach %s, and nothing would keep them out", o.addr).
			WithHint("give a key with --key env:NAME, or let all in with --insecure")
	}
	w, err := parseWeights(o.weights)
	if err != nil {
		return err
	}
	e, err := loadModel(o.model, ".")
	if err != nil {
		return err
	}
	if err := setPrecision(e, o.precision); err != nil {
		return err
	}
	// Errors below are of the network, and may name the address only.
	l, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return sdk.Errorf(sdk.CodeIO, "serve: %w", err).WithHint("another program may listen there: name another port with --addr, or 0 for a free one")
	}
	name := cmp.Or(o.name, o.model)
	url := "http://" + l.Addr().String() + "/v1"
	if a.json {
		if err := json.NewEncoder(a.stdout).Encode(map[string]string{"address": url, "model": name}); err != nil {
			return sdk.Errorf(sdk.CodeIO, "serve: tell the address: %w", err)
		}
	}
	a.log.Info("serving", telemetry.Address.Of(url), telemetry.Model.Of(name))
	options := serve.Options{
		Name: name, Fingerprint: fingerprint(e, w), Key: key, Local: local, Requests: o.requests, Timeout: o.timeout, Log: a.log,
	}
	if !w.Own(e.Model().Precision()) {
		options.NoLogProbs = fmt.Sprintf("the server draws with weights held as %s, which is another policy than the model: start it with --weights same", w)
	}
	return serve.New(servedModel{e, w}, options).Run(ctx, l)
}

// shortestKey is in bytes. Shorter ones can be found by asking often.
const shortestKey = 16

// serverKey reads the key of a flag, and keeps it out of all that is written. A command line is seen by every user of
// the machine, so that it only names where the key is.
func (a *app) serverKey(flag string) (string, error) {
	if flag == "" {
		return "", nil
	}
	name, ok := strings.CutPrefix(flag, "env:")
	if !ok || name == "" {
		return "", sdk.Errorf(sdk.CodeUsage, "serve: --key is not env:NAME").WithHint("put the key into a variable of the environment, and name that")
	}
	key := os.Getenv(name)
	a.log.Secrets().Add(key)
	if len(key) < shortestKey {
		return "", sdk.Errorf(sdk.CodeUsage, "serve: the key in %s has %d bytes: it must have %d at least", name, len(key), shortestKey).
			WithHint("make one with: openssl rand -hex 32")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", sdk.Errorf(sdk.CodeUsage, "serve: the key in %s has characters that a header cannot carry", name).WithHint("make one with: openssl rand -hex 32")
	}
	return key, nil
}

// fingerprint is of all that decides a completion.
func fingerprint(e *engine.Engine, w generate.Weights) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %s", e.Fingerprint(), e.Model().Precision(), w, kernel.Level()))
	return "dno-" + hex.EncodeToString(sum[:8])
}

// servedModel fits the engine to the server.
type servedModel struct {
	*engine.Engine
	weights generate.Weights
}

func (s servedModel) Positions() int  { return s.Model().Config.MaxPositions }
func (s servedModel) Vocabulary() int { return s.Model().Config.Vocab }

func (s servedModel) EncodeChat(m []sdk.Message) []int32 { return s.EncodePrompt(messages(m)) }

func (s servedModel) Stream() serve.TextStream { return s.Tokenizer().Stream() }

func (s servedModel) Bytes(id int32) []byte { return s.Tokenizer().Bytes(id) }

func (s servedModel) Serve(ctx context.Context, next func(free int) []serve.Draw) error {
	return s.Engine.Serve(ctx, s.weights, func(free int) []generate.Served {
		draws := next(free)
		out := make([]generate.Served, len(draws))
		for i, d := range draws {
			o := options(d.Options)
			out[i] = generate.Served{
				Request: generate.Request{Prompt: d.Prompt, Seed: d.Seed, Options: &o},
				Given:   d.Given, Top: d.Top,
				Token: func(t generate.Token) bool {
					var top []serve.Alternative
					for _, a := range t.Top {
						top = append(top, serve.Alternative(a))
					}
					return d.Token(serve.Token{ID: t.ID, LogProb: t.LogProb, Top: top})
				},
				Done: func(r generate.Result, err error) {
					d.Done(serve.Result{Text: r.Text, Finish: sdk.Finish(r.Finish)}, err)
				},
			}
		}
		return out
	})
}

var _ serve.Model = servedModel{}
