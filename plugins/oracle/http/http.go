// Package http is the oracle that asks any service over HTTP: questions in, answers out, as JSON.
package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/dno-project/dno/plugins/internal/client"
	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/plugins/internal/questions"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// Oracle posts a JSON object with some questions to an URL:
//
//	{"questions":[{"id":"1","prompt":"17 45 8","answer":"70","a":"17+45=62;62+8=70","b":"71"}]}
//
// and reads the answers, in any order:
//
//	{"answers":[{"id":"1","p":0.9}]}
//
// Questions and answers are those of the oracle "command", by [questions.Question] and
// [questions.Part.Take]. A request may be sent again, so the service's answer to a question must not
// depend on what it was asked before.
//
// A status of 408, 429 or 5xx and a lost connection are tried again as [client.Client.Do] says. An
// answer that is none (no JSON, of more than 8 MiB, a question without an answer, p out of range)
// fails the call; the error names its index.
type Oracle struct {
	url          string
	client       *client.Client
	orderMatters bool
	batch        int
	places       chan struct{} // one is taken by each request that is on its way
}

// New returns the oracle.
func New() sdk.Oracle { return &Oracle{} }

// Manifest declares a pairwise oracle for which the order matters: the host asks both orders.
func (*Oracle) Manifest() sdk.Manifest {
	number := func(name string, fallback, min, max float64, help string) sdk.Setting {
		lo, hi := sdk.Between(min, max)
		return settings.Number(name, fallback, lo, hi, help)
	}
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "http",
		Version: "1",
		Help:    "asks any service: a POST of JSON for some questions, their answers back",
		Settings: []sdk.Setting{
			{Name: "url", Type: sdk.TypeString, Required: true, Help: "the service's URL; https://, or http:// to this machine"},
			{Name: "key", Type: sdk.TypeString, Default: "",
				Help: `"env:NAME": that variable's value is sent as Authorization: Bearer; name it in env too`},
			{Name: "order_matters", Type: sdk.TypeBool, Default: true,
				Help: "false: it is asked one order only, and P of the other is taken to be 1-P"},
			number("batch", 16, 1, 1000, "questions a request, at most"),
			number("concurrency", 4, 1, 64, "requests at once, at most"),
			number("request_timeout", 60, 0.001, 3600, "seconds that one attempt may take; timeout is that of a whole call"),
			number("retries", 4, 0, 20, "further attempts after a status of 408, 429 or 5xx or a lost connection"),
			{Name: "insecure", Type: sdk.TypeBool, Default: false, Help: "true: http:// is allowed to other machines too"},
		},
		// The host keeps what a call has answered: several calls lose less of it when one fails.
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, OrderMatters: true, Concurrency: 8},
	}
}

// Configure takes the settings; it asks the service nothing.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	key, err := client.Key(s.String("key", ""))
	if err != nil {
		return err
	}
	batch, err := settings.Whole(s, "batch", 16)
	if err != nil {
		return err
	}
	concurrency, err := settings.Whole(s, "concurrency", 4)
	if err != nil {
		return err
	}
	retries, err := settings.Whole(s, "retries", 4)
	if err != nil {
		return err
	}
	c, err := client.New(client.Options{Key: key, Retries: retries, Insecure: s.Bool("insecure", false),
		Timeout: time.Duration(s.Number("request_timeout", 60) * float64(time.Second))})
	if err != nil {
		return err
	}
	url := s.String("url", "")
	if err := c.Check(url); err != nil {
		return sdk.Errorf(sdk.CodeUsage, "setting \"url\": %w", err)
	}
	o.Close()
	o.url, o.client, o.orderMatters, o.batch = url, c, s.Bool("order_matters", true), batch
	o.places = make(chan struct{}, concurrency)
	return nil
}

// Judge asks the service the batch's questions, in several requests at once where there are many. The
// first request that fails ends the others.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	if o.client == nil {
		return nil, sdk.Errorf(sdk.CodePlugin, "oracle \"http\" was asked to judge before it was configured")
	}
	for _, c := range batch {
		if err := pairs.Check(c); err != nil {
			return nil, err
		}
	}
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := questions.NewRound(batch, 0, o.orderMatters)
	var wg sync.WaitGroup
	for _, part := range r.Parts(o.batch) {
		wg.Go(func() {
			select {
			case o.places <- struct{}{}:
				if err := o.ask(within, part); err != nil {
					cancel(err) // before the place is free, so that no other request begins
				}
				<-o.places
			case <-within.Done():
			}
		})
	}
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, sdk.Errorf(sdk.CodePlugin, "ask the service: the call was cancelled: %w", context.Cause(ctx)).
			WithHint("if the service is slow: the setting timeout is that of a call, batch and concurrency say how much is asked at once")
	case within.Err() != nil:
		return nil, context.Cause(within)
	}
	return r.Verdicts(batch), nil
}

// ask has a part's questions answered by one request.
func (o *Oracle) ask(ctx context.Context, part *questions.Part) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(map[string]any{"questions": part.Questions}); err != nil {
		return sdk.Errorf(sdk.CodePlugin, "write the questions: %w", err)
	}
	said, err := o.client.Do(ctx, "POST", o.url, body.Bytes())
	if err != nil {
		failed := sdk.Errorf(sdk.CodePlugin, "ask the service: %w", err)
		var e *client.Error
		if errors.As(err, &e) && e.Hint() != "" {
			return failed.WithHint("%s", e.Hint())
		}
		return failed
	}
	if err := part.TakeAll(said); err != nil {
		return sdk.Errorf(sdk.CodePlugin, "the service's answer: %w", err)
	}
	return nil
}

// Close closes the connections to the service. The oracle may be used again.
func (o *Oracle) Close() error {
	if o.client != nil {
		o.client.Close()
	}
	return nil
}

var _ sdk.Oracle = (*Oracle)(nil)
