package openai

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Every form of Retry-After, with the time that passes before the next request. The clock of a bubble
// begins on 1 January 2000; half of each random wait is 0.25 s of the first backoff, 0.5 s after a pause.
func TestF8RetryAfter(t *testing.T) {
	t.Parallel()
	const half = 500 * time.Millisecond
	for name, c := range map[string]struct {
		header []string
		wait   time.Duration
	}{
		"seconds":                            {[]string{"Retry-After", "7"}, 7*time.Second + half},
		"a fraction":                         {[]string{"Retry-After", "1.5"}, 1500*time.Millisecond + half},
		"milliseconds, which go first":       {[]string{"Retry-After-Ms", "2500", "Retry-After", "60"}, 2500*time.Millisecond + half},
		"a duration":                         {[]string{"Retry-After", "1m2s"}, 62*time.Second + half},
		"a date":                             {[]string{"Retry-After", "Sat, 01 Jan 2000 00:00:09 GMT", "Date", "Sat, 01 Jan 2000 00:00:00 GMT"}, 9*time.Second + half},
		"a date by a clock that is not ours": {[]string{"Retry-After", "Mon, 01 Jan 2035 00:00:09 GMT", "Date", "Mon, 01 Jan 2035 00:00:00 GMT"}, 9*time.Second + half},
		"a date that is past":                {[]string{"Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT", "Date", "Sat, 01 Jan 2000 00:00:00 GMT"}, 250 * time.Millisecond},
		"none":                               {nil, 250 * time.Millisecond},
		"zero":                               {[]string{"Retry-After", "0"}, 250 * time.Millisecond},
		"huge, which is granted in part":     {[]string{"Retry-After", "1e9"}, 2*time.Minute + half},
		"larger than any number":             {[]string{"Retry-After", "1e999"}, 2*time.Minute + half},
		"infinite":                           {[]string{"Retry-After", "inf"}, 2*time.Minute + half},
		"not a number":                       {[]string{"Retry-After", "NaN"}, 250 * time.Millisecond},
		"negative":                           {[]string{"Retry-After", "-5"}, 250 * time.Millisecond},
		"words":                              {[]string{"Retry-After", "soon"}, 250 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				client := serve(t, Options{Retries: 1}, func(w http.ResponseWriter, _ *http.Request) {
					if at = append(at, time.Now()); len(at) == 1 {
						answer(w, 429, `{"error":{"code":"rate_limit_exceeded"}}`, c.header...)
						return
					}
					answer(w, 200, good("hi"))
				})
				if _, err := client.Ask(t.Context(), hello); err != nil {
					t.Fatal(err)
				}
				if got := at[1].Sub(at[0]); len(at) != 2 || got != c.wait {
					t.Errorf("%d requests, the second after %v, want %v", len(at), got, c.wait)
				}
			})
		})
	}
}

// 64 callers with 5 requests each; every 9th request is answered with a 429. Nothing is lost or mixed
// up, and every limit holds at the server.
func TestF8SixtyFourCallersKeepTheLimits(t *testing.T) {
	t.Parallel()
	const callers, each, atOnce, perMinute = 64, 5, 8, 600
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		var closedUntil time.Time
		under, most := 0, 0
		client := serve(t, Options{Concurrency: atOnce, RequestsPerMinute: perMinute, Retries: 20}, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			at = append(at, time.Now())
			busy := len(at)%9 == 0
			if time.Now().Before(closedUntil) {
				t.Errorf("request %d came %v before Retry-After was over", len(at), time.Until(closedUntil))
			}
			if busy {
				closedUntil = time.Now().Add(3 * time.Second)
			}
			under++
			most = max(most, under)
			mu.Unlock()
			if !busy {
				time.Sleep(700 * time.Millisecond) // of the bubble's clock
			}
			mu.Lock()
			under--
			mu.Unlock()
			if busy {
				answer(w, 429, "", "Retry-After", "3")
				return
			}
			_, text, _ := strings.Cut(string(body), `"content":"`)
			text, _, _ = strings.Cut(text, `"`)
			answer(w, 200, good("re: "+text))
		})
		var wg sync.WaitGroup
		var answered atomic.Int32
		for i := range callers {
			wg.Go(func() {
				for k := range each {
					text := fmt.Sprintf("question %d.%d", i, k)
					r, err := client.Ask(t.Context(), Request{Messages: []Message{{"user", text}}})
					if err != nil || r.Text != "re: "+text {
						t.Errorf("%s: %q, %v", text, r.Text, err)
					}
					answered.Add(1)
				}
			})
		}
		wg.Wait()
		if answered.Load() != callers*each || len(at) < callers*each*10/9 {
			t.Errorf("%d answers to %d requests", answered.Load(), len(at))
		}
		if most != atOnce {
			t.Errorf("%d requests at once, want %d", most, atOnce)
		}
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < time.Minute/perMinute {
				t.Errorf("requests %d and %d are %v apart", i-1, i, d)
			}
		}
	})
}

// Without a limit of its own a client still lets nobody through while the server wants to be left alone,
// and its callers do not come back at one moment.
func TestF8APauseHoldsForAllAndEndsWithoutAStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var later []time.Duration
		began, random := time.Now(), 0.0
		client := serve(t, Options{Concurrency: 64, Retries: 2, Random: func() float64 {
			mu.Lock()
			defer mu.Unlock()
			random += 0.1
			return random - float64(int(random))
		}}, func(w http.ResponseWriter, _ *http.Request) {
			since := time.Since(began)
			if since == 0 {
				answer(w, 429, "", "Retry-After", "10")
				return
			}
			mu.Lock()
			later = append(later, since)
			mu.Unlock()
			answer(w, 200, good("hi"))
		})
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if _, err := client.Ask(t.Context(), hello); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		moments := map[time.Duration]int{}
		for _, d := range later {
			if d < 10*time.Second || d > 11*time.Second {
				t.Errorf("a request came after %v", d)
			}
			moments[d]++
		}
		if len(later) != 64 || len(moments) < 5 {
			t.Errorf("%d requests at the moments %v", len(later), moments)
		}
	})
}

// 600 tokens a minute are 10 a second. A request is guessed to take 2+8 tokens; what it took in truth is
// made up for by the next one.
func TestF8TokensAMinute(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reply int
		apart time.Duration
	}{
		"as guessed":                  {8, time.Second},
		"less than guessed":           {3, 500 * time.Millisecond},
		"more than guessed":           {28, 3 * time.Second},
		"the guess is too low by far": {998, 100 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				client := serve(t, Options{TokensPerMinute: 600}, func(w http.ResponseWriter, _ *http.Request) {
					at = append(at, time.Now())
					answer(w, 200, fmt.Sprintf(`{"choices":[{"text":"x"}],"usage":{"prompt_tokens":2,"completion_tokens":%d}}`, c.reply))
				})
				for range 3 {
					if _, err := client.Ask(t.Context(), Request{Prompt: "12345678", MaxTokens: 8}); err != nil {
						t.Fatal(err)
					}
				}
				if a, b := at[1].Sub(at[0]), at[2].Sub(at[1]); a != c.apart || b != c.apart {
					t.Errorf("requests are %v and %v apart, want %v", a, b, c.apart)
				}
			})
		})
	}
}

// What a server's misbehaviour becomes, after how many tries, and what is left to do.
func TestF9FaultsOfTheServer(t *testing.T) {
	t.Parallel()
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { answer(w, code, "<html>Bad Gateway</html>") }
	}
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, text) }
	}
	raw := func(text string) http.HandlerFunc { // what goes over the wire, before it is closed
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    Kind
		tries   int
		action  Action
	}{
		"500":                      {status(500), KindServer, 3, Later},
		"502":                      {status(502), KindServer, 3, Later},
		"503":                      {status(503), KindBusy, 3, Later},
		"504":                      {status(504), KindServer, 3, Later},
		"529":                      {status(529), KindBusy, 3, Later},
		"408":                      {status(408), KindServer, 3, Later},
		"409":                      {status(409), KindServer, 3, Later},
		"429":                      {status(429), KindBusy, 3, Later},
		"closed without a reply":   {raw(""), KindConnection, 3, Later},
		"closed in the header":     {raw("HTTP/1.1 200 OK\r\nContent-Le"), KindConnection, 3, Later},
		"closed in the body":       {raw("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"choices\":["), KindConnection, 3, Later},
		"garbage instead of HTTP":  {raw("\x00\x01garbage\r\n\r\n"), KindConnection, 3, Later},
		"silence":                  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, KindTimeout, 3, Later},
		"silence after the header": {func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() }, KindTimeout, 3, Later},
		"a byte a second": {func(w http.ResponseWriter, r *http.Request) {
			for sleep(r.Context(), time.Second) == nil {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
			}
		}, KindTimeout, 3, Later},
		"a body without end": {func(w http.ResponseWriter, r *http.Request) {
			for part := make([]byte, 1<<16); r.Context().Err() == nil; {
				if _, err := w.Write(part); err != nil {
					return
				}
			}
		}, KindReply, 1, Abstain},
		"an error of a gateway in a reply of 200": {body(`{"error":{"code":502,"message":"upstream"}}`), KindServer, 3, Later},
		"a 429 in a reply of 200":                 {body(`{"error":{"code":429,"message":"slow down"}}`), KindBusy, 3, Later},
		"an error without a number in a 200":      {body(`{"error":"worker died"}`), KindServer, 3, Later},
		"F12 a page of HTML":                      {body("<!DOCTYPE html><html>Welcome</html>"), KindReply, 0, Abstain},
		"F12 nothing":                             {body(""), KindReply, 0, Abstain},
		"F12 half a JSON":                         {body(`{"choices":[{"message":`), KindReply, 0, Abstain},
		"F12 a byte order mark":                   {body("\ufeff" + good("x")), KindReply, 0, Abstain},
		"F12 a number that is too large":          {body(`{"choices":[{"text":"x"}],"usage":{"prompt_tokens":1e999}}`), KindReply, 0, Abstain},
		"F12 NaN":                                 {body(`{"choices":[{"text":"x","logprobs":{"tokens":["A"],"token_logprobs":[NaN]}}]}`), KindReply, 0, Abstain},
		"F12 nested a hundred thousand times":     {body(strings.Repeat(`[`, 100_000)), KindReply, 0, Abstain},
		"F12 nested where nobody looks":           {body(`{"choices":[],"x":` + strings.Repeat(`[`, 99) + strings.Repeat(`]`, 99) + `}`), KindReply, 0, Abstain},
		"F12 content of another type":             {body(`{"choices":[{"message":{"content":7}}]}`), KindReply, 0, Abstain},
		"F12 log-probabilities of another type":   {body(`{"choices":[{"text":"x","logprobs":"high"}]}`), KindReply, 0, Abstain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				client := serve(t, Options{Retries: 2, TryTimeout: 20 * time.Second}, func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					c.handler(w, r)
				})
				began := time.Now()
				_, err := client.Ask(t.Context(), hello)
				e := failure(t, err)
				// net/http itself repeats a request once whose connection was closed before anything came back.
				if e.Kind != c.kind || e.Tries != c.tries || e.Action() != c.action || int(asked.Load()) < max(1, c.tries) || c.action == Abstain && asked.Load() != 1 {
					t.Errorf("kind %d after %d tries (%d requests), action %d: %v", e.Kind, e.Tries, asked.Load(), e.Action(), err)
				}
				if took := time.Since(began); took > 3*20*time.Second+3*time.Second {
					t.Errorf("it took %v", took)
				}
				if len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\r\x00") {
					t.Errorf("the error is no sentence: %q", err)
				}
			})
		})
	}
}

func TestF9NothingListens(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	client, err := New(Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Ask(t.Context(), hello)
	if e := failure(t, err); e.Kind != KindConnection || e.Action() != Later {
		t.Errorf("got %v", err)
	}
}

func TestF9AServerThatRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		began := time.Now()
		client := serve(t, Options{Retries: 8}, func(w http.ResponseWriter, _ *http.Request) {
			if at = append(at, time.Now()); len(at) < 9 {
				answer(w, 500, "")
				return
			}
			answer(w, 200, good("hi"))
		})
		if r, err := client.Ask(t.Context(), hello); err != nil || r.Text != "hi" {
			t.Fatalf("%+v, %v", r, err)
		}
		// Half of 0.5, 1, 2, 4, 8, 16, and of 30 twice.
		if took := time.Since(began); took != 45750*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestF9TheDeadlineEndsTheTries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		most    time.Duration
	}{
		"a server that is down":      {func(w http.ResponseWriter, _ *http.Request) { answer(w, 500, "") }, time.Minute},
		"a server that hangs":        {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, time.Minute},
		"a wait that would be later": {func(w http.ResponseWriter, _ *http.Request) { answer(w, 429, "", "Retry-After", "90") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := serve(t, Options{Retries: 1000, TryTimeout: 25 * time.Second, Deadline: time.Minute}, c.handler)
				began := time.Now()
				_, err := client.Ask(t.Context(), hello)
				if took := time.Since(began); took > c.most || failure(t, err).Action() != Later {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// Bodies as servers send them, and what they mean.
func TestF10ErrorsThatNoRetryMends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		kind   Kind
		action Action
	}{
		"OpenAI, a wrong key":             {401, `{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, KindKey, GiveUp},
		"OpenAI, a region":                {403, `{"error":{"code":"unsupported_country_region_territory","message":"Country not supported","type":"request_forbidden"}}`, KindKey, GiveUp},
		"OpenAI, no quota left":           {429, `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, KindQuota, GiveUp},
		"OpenAI, the limit of the bill":   {429, `{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","code":"billing_hard_limit_reached"}}`, KindQuota, GiveUp},
		"OpenAI, no such model":           {404, `{"error":{"message":"The model does not exist","type":"invalid_request_error","code":"model_not_found"}}`, KindRequest, GiveUp},
		"OpenAI, too long":                {400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, KindTooLong, Abstain},
		"OpenAI, a parameter":             {400, `{"error":{"message":"Unsupported parameter: 'max_tokens'","type":"invalid_request_error","code":"unsupported_parameter"}}`, KindRequest, GiveUp},
		"Azure, a filter":                 {400, `{"error":{"message":"The response was filtered","type":null,"code":"content_filter","status":400}}`, KindRefused, Abstain},
		"vLLM, too long":                  {400, `{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"BadRequestError","param":null,"code":400}`, KindTooLong, Abstain},
		"vLLM, no such model":             {404, `{"error":{"message":"The model x does not exist.","type":"NotFoundError","param":"model","code":404}}`, KindRequest, GiveUp},
		"llama.cpp, too long":             {400, `{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_ctx":4096}}`, KindTooLong, Abstain},
		"TGI, too long":                   {422, "{\"error\":\"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096\",\"error_type\":\"validation\"}", KindTooLong, Abstain},
		"words alone, too long":           {400, `{"error":{"code":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum","type":"invalid_request_error"}}`, KindTooLong, Abstain},
		"words alone, no credit":          {400, `{"error":{"message":"Your credit balance is too low to access the API","type":"invalid_request_error"}}`, KindQuota, GiveUp},
		"DeepSeek, no credit":             {402, `{"error":{"message":"Insufficient Balance","type":"unknown_error","code":"invalid_request_error"}}`, KindQuota, GiveUp},
		"402 in words of its own":         {402, `{"error":"top up your account"}`, KindQuota, GiveUp},
		"a body that is too large":        {413, `<html>413 Request Entity Too Large</html>`, KindTooLong, Abstain},
		"validation":                      {422, `{"detail":[{"loc":["body","seed"],"msg":"extra fields not permitted"}]}`, KindRequest, GiveUp},
		"a page of HTML":                  {404, `<html>nginx</html>`, KindRequest, GiveUp},
		"an error in a reply of 200, 402": {200, `{"error":{"code":402,"message":"Insufficient credits"}}`, KindQuota, GiveUp},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				client := serve(t, Options{Retries: 5}, func(w http.ResponseWriter, _ *http.Request) {
					asked.Add(1)
					answer(w, c.status, c.body, "Retry-After", "1")
				})
				_, err := client.Ask(t.Context(), hello)
				e := failure(t, err)
				if e.Kind != c.kind || e.Action() != c.action || asked.Load() != 1 || e.Message == "" {
					t.Errorf("kind %d, action %d after %d requests: %v", e.Kind, e.Action(), asked.Load(), err)
				}
				_, _ = client.Ask(t.Context(), hello)
				if again, want := asked.Load(), map[bool]int32{true: 1, false: 2}[c.kind == KindKey || c.kind == KindQuota]; again != want {
					t.Errorf("with the request after it there were %d, want %d", again, want)
				}
			})
		})
	}
}

// Some servers write of a quota where the minute's is meant: by the status alone it is tried again.
func TestF10AQuotaOfTheMinuteIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		client := serve(t, Options{Retries: 1}, func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked == 1 {
				answer(w, 429, `{"error":{"code":429,"message":"You exceeded your current quota. Retry in 9s.","status":"RESOURCE_EXHAUSTED"}}`)
				return
			}
			answer(w, 200, good("hi"))
		})
		if _, err := client.Ask(t.Context(), hello); err != nil || asked != 2 {
			t.Errorf("%d requests: %v", asked, err)
		}
	})
}

// A server that repeats the key in whatever it says.
func TestF33TheKeyIsInNoErrorAndNoReply(t *testing.T) {
	t.Parallel()
	const key = `sk-CANARY+"/12345`
	for name, c := range map[string]struct {
		status int
		body   string
		header []string
	}{
		"in an error's message":        {401, `{"error":{"message":"wrong key sk-CANARY+\"/12345 given"}}`, nil},
		"in an error's code":           {400, `{"error":{"code":"sk-CANARY+\"/12345"}}`, nil},
		"in a body that is no JSON":    {500, `<b>Bearer sk-CANARY+"/12345</b>`, nil},
		"at the end of what is quoted": {400, strings.Repeat("x", 292) + key, nil},
		"in a reply that is no JSON":   {200, `sk-CANARY+"/12345`, nil},
		"in a redirect":                {307, "", []string{"Location", `https://evil.example/sk-CANARY%2B%22%2F12345?k=sk-CANARY%2B%22%2F12345`}},
		"in the text":                  {200, `{"model":"sk-CANARY+\"/12345","system_fingerprint":"sk-CANARY+\"/12345","choices":[{"message":{"content":"your key is sk-CANARY+\"/12345","refusal":"sk-CANARY+\"/12345"}}]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := serve(t, Options{Key: key}, func(w http.ResponseWriter, _ *http.Request) { answer(w, c.status, c.body, c.header...) })
				r, err := client.Ask(t.Context(), hello)
				if said := fmt.Sprintf("%v %+v %#v", err, r, err); strings.Contains(said, "CANARY") || c.header == nil && !strings.Contains(said, "***") {
					t.Errorf("got %s", said)
				}
			})
		})
	}
}

func TestF41NoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("the key was sent to another host")
		}
		answer(w, 200, good("A"))
	}))
	defer evil.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, to := range map[string]string{"another host": evil.URL + "/v1/chat/completions?token=q", "the same host": "/elsewhere", "nowhere": ""} {
			t.Run(fmt.Sprint(status, " to ", name), func(t *testing.T) {
				asked := 0
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked++
					answer(w, status, "", "Location", to)
				}))
				defer server.Close()
				client, err := New(Options{URL: server.URL, Key: "sk-some-key", Retries: 3})
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				_, err = client.Ask(t.Context(), hello)
				e := failure(t, err)
				if e.Kind != KindAddress || e.Action() != GiveUp || asked != 1 || !strings.Contains(err.Error(), "redirects to") || strings.Contains(err.Error(), "token=q") {
					t.Errorf("after %d requests: %v", asked, err)
				}
			})
		}
	}
	if stolen.Load() != 0 {
		t.Errorf("the other host was asked %d times", stolen.Load())
	}
}

func TestF41ACertificateThatIsNotValid(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	server.Config.ErrorLog = discard
	server.StartTLS()
	defer server.Close()
	client, err := New(Options{URL: server.URL, Key: "sk-some-key", Retries: 3, Transport: &http.Transport{TLSClientConfig: &tls.Config{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Ask(t.Context(), hello)
	if e := failure(t, err); e.Kind != KindAddress || e.Tries != 1 {
		t.Errorf("got %v", err)
	}
}
