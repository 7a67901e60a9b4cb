package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

type question struct {
	ID, A, B string
}

type reply struct {
	ID string  `json:"id"`
	P  float64 `json:"p"`
}

// longer prefers the longer text.
func longer(q question) reply {
	return reply{q.ID, map[bool]float64{true: 0.9, false: 0.2}[len(q.A) > len(q.B)]}
}

// read reads a request's questions.
func read(t *testing.T, r *http.Request) []question {
	t.Helper()
	var asked struct{ Questions []question }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		t.Error(err)
	}
	return asked.Questions
}

func write(t *testing.T, w http.ResponseWriter, answers any) {
	t.Helper()
	if err := json.NewEncoder(w).Encode(map[string]any{"answers": answers}); err != nil {
		t.Log(err) // the oracle has gone
	}
}

// service answers by answer; it counts its requests.
func service(t *testing.T, answer func(n int32, w http.ResponseWriter, r *http.Request)) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(requests.Add(1), w, r) }))
	t.Cleanup(s.Close)
	return s.URL + "/judge", requests
}

func oracle(t *testing.T, given sdk.Settings) *Oracle {
	t.Helper()
	o := New().(*Oracle)
	resolved, err := o.Manifest().Resolve(given)
	if err == nil {
		err = o.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// compare asks both orders of two texts of a and b letters.
func compare(id string, a, b int) sdk.Comparison {
	return sdk.Comparison{ID: id, Candidates: []string{strings.Repeat("a", a), strings.Repeat("b", b)}, Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}},
		Prompt: sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "17 45 8"}}, Answer: "70"}}
}

func TestWhatTheServiceReadsAndSays(t *testing.T) {
	t.Parallel()
	url, _ := service(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		want := `{"questions":[{"id":"1","prompt":"Add.\n<17> 45","messages":[{"role":"system","content":"Add."},{"role":"user","content":"<17> 45"}],"answer":"70","a":"aa","b":"b"},` +
			`{"id":"2","prompt":"17 45 8","answer":"70","a":"a","b":"bb"}]}` + "\n"
		if string(body) != want || err != nil || r.Method != "POST" {
			t.Errorf("%s, %v\n%s\nwant\n%s", r.Method, err, body, want)
		}
		fmt.Fprint(w, `{"answers":[{"id":"2","abstain":"no idea"},{"id":"1","p":0.75,"reason":"right","cost":0.5,"model":"judge-1","labels":{"a":{"correct":1}},"score":{"b":3}}],"usage":7}`)
	})
	batch := []sdk.Comparison{compare("x", 2, 1), compare("y", 1, 2)}
	batch[0].Prompt.Messages = []sdk.Message{{Role: "system", Content: "Add."}, {Role: "user", Content: "<17> 45"}}
	got, err := oracle(t, sdk.Settings{"url": url, "order_matters": false}).Judge(context.Background(), batch)
	if err != nil {
		t.Fatal(err)
	}
	three := 3.0
	want := []sdk.Verdicts{
		{ID: "x", Cost: 0.5, Model: "judge-1", Pairs: []sdk.Verdict{{P: 0.75, Reason: "right"}, {P: 0.25, Reason: "right"}},
			Assessed: []sdk.Assessment{{Labels: map[string]float64{"correct": 1}}, {Score: &three}}},
		{ID: "y", Pairs: []sdk.Verdict{{Abstain: "no idea"}, {Abstain: "no idea"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// batch is n comparisons of which the first text is the longer one where i is even.
func batch(n int) []sdk.Comparison {
	var out []sdk.Comparison
	for i := range n {
		out = append(out, compare(fmt.Sprint(i), 10+(i+1)%2, 10+i%2))
	}
	return out
}

func checkLonger(t *testing.T, got []sdk.Verdicts, err error, n int) {
	t.Helper()
	if err != nil || len(got) != n {
		t.Fatalf("%d verdicts, %v", len(got), err)
	}
	for i, v := range got {
		want := []sdk.Verdict{{P: 0.9}, {P: 0.2}}
		if i%2 == 1 {
			want = []sdk.Verdict{{P: 0.2}, {P: 0.9}}
		}
		if v.ID != fmt.Sprint(i) || !cmp.Equal(v.Pairs, want) {
			t.Errorf("comparison %d: %+v, want %+v", i, v, want)
		}
	}
}

func TestF9AServiceThatFailsOften(t *testing.T) {
	t.Parallel()
	url, requests := service(t, func(n int32, w http.ResponseWriter, r *http.Request) {
		questions := read(t, r)
		if len(questions) > 5 {
			t.Errorf("%d questions in a request, at most 5", len(questions))
		}
		if n%3 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var answers []reply
		for _, q := range questions {
			answers = append(answers, longer(q))
		}
		write(t, w, answers)
	})
	o := oracle(t, sdk.Settings{"url": url, "batch": 5, "retries": 9})
	got, err := o.Judge(context.Background(), batch(11)) // 22 questions
	checkLonger(t, got, err, 11)
	if n := requests.Load(); n != 8 { // 5 parts, and requests 1, 4 and 7 fail
		t.Errorf("%d requests", n)
	}
}

// As many requests as allowed are on their way at once: each waits for the others. And not one more.
func TestConcurrencyIsReachedAndKept(t *testing.T) {
	t.Parallel()
	const allowed = 3
	var now atomic.Int32
	full := make(chan struct{})
	url, _ := service(t, func(n int32, w http.ResponseWriter, r *http.Request) {
		questions := read(t, r)
		if at := now.Add(1); at > allowed {
			t.Errorf("%d requests at once", at)
		}
		if n == allowed {
			close(full)
		}
		<-full
		now.Add(-1) // before the answer, which lets the next one begin
		write(t, w, []reply{longer(questions[0])})
	})
	o := oracle(t, sdk.Settings{"url": url, "batch": 1, "concurrency": allowed})
	var calls [2][]sdk.Verdicts
	errs := make(chan error, 2)
	for i := range calls { // the limit is of all calls together
		go func() {
			var err error
			calls[i], err = o.Judge(context.Background(), batch(10))
			errs <- err
		}()
	}
	for range calls {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	for _, got := range calls {
		checkLonger(t, got, nil, 10)
	}
}

func TestF11F14GarbageFailsTheBatchAndNamesItsIndex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"nothing":            {``, `want {"answers"`},
		"an HTML page":       {`<html>login</html>`, `"<html>login</html>": want {"answers"`},
		"prose":              {`I prefer the first.`, `want {"answers"`},
		"cut off":            {`{"answers":[{"id":"1","p":1}`, `want {"answers"`},
		"an error object":    {`{"error":{"message":"context length"}}`, `has no answers`},
		"null":               {`null`, `has no answers`},
		"p above 1":          {`{"answers":[{"id":"2","p":1},{"id":"1","p":7}]}`, `answers[1], "{\"id\":\"1\",\"p\":7}": "p" is 7`},
		"p as a word":        {`{"answers":[{"id":"1","p":"A"},{"id":"2","p":1}]}`, `answers[0]`},
		"no p":               {`{"answers":[{"id":"1","p":1},{"id":"2"}]}`, `answers[1], "{\"id\":\"2\"}": want "p" or "abstain"`},
		"one too few":        {`{"answers":[{"id":"2","p":1}]}`, `questions[0] (id "1") has no answer`},
		"one too many":       {`{"answers":[{"id":"1","p":1},{"id":"2","p":1},{"id":"9","p":1}]}`, `answers[2]`},
		"another one's":      {`{"answers":[{"id":"1","p":1},{"id":"1","p":1}]}`, `answers[1]`},
		"one with two ps":    {`{"answers":[{"id":"1","p":1,"p":0},{"id":"2","p":1}]}`, `answers[0]`},
		"bytes of something": {"{\"answers\":[{\"id\":\"1\",\"p\":1,\"reason\":\"\xff\"},{\"id\":\"2\",\"p\":1}]}", `is not UTF-8`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, requests := service(t, func(_ int32, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.body) })
			got, err := oracle(t, sdk.Settings{"url": url}).Judge(context.Background(), batch(1))
			if got != nil || sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "the service's answer: ") {
				t.Errorf("got %+v, %v\nwant %s", got, err, c.want)
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests: garbage is not asked for twice", requests.Load())
			}
		})
	}
}

func TestF10ARefusalSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for status, hint := range map[int]string{401: "check the key", 404: "check the path", 400: ""} {
		url, requests := service(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, `{"error":"no such thing"}`)
		})
		_, err := oracle(t, sdk.Settings{"url": url}).Judge(context.Background(), batch(1))
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != sdk.CodePlugin || !strings.Contains(e.Hint, hint) || (hint == "") != (e.Hint == "") {
			t.Fatalf("%d: %v, hint %q", status, err, e.Hint)
		}
		if want := fmt.Sprintf(`ask the service: POST %s: status %d %s: "{\"error\":\"no such thing\"}"`, url, status, http.StatusText(status)); e.Error() != want || requests.Load() != 1 {
			t.Errorf("%d requests\n%s\nwant\n%s", requests.Load(), e, want)
		}
	}
}

// The requests that are still to come are not sent once one has failed.
func TestTheFirstFailureEndsTheOthers(t *testing.T) {
	t.Parallel()
	url, requests := service(t, func(_ int32, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	o := oracle(t, sdk.Settings{"url": url, "batch": 1, "concurrency": 1})
	_, err := o.Judge(context.Background(), batch(50))
	if err == nil || !strings.Contains(err.Error(), "status 400") {
		t.Errorf("got %v", err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests although the first one failed", n)
	}
}

func TestACancelledCallEnds(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	url, _ := service(t, func(n int32, w http.ResponseWriter, r *http.Request) {
		questions := read(t, r)
		if n == 1 {
			_, _ = io.ReadAll(r.Body) // its end, or the server does not notice that the client is gone
			close(began)
			<-r.Context().Done()
			return
		}
		write(t, w, []reply{longer(questions[0]), longer(questions[1])})
	})
	o := oracle(t, sdk.Settings{"url": url})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-began
		cancel()
	}()
	if _, err := o.Judge(ctx, batch(1)); !errors.Is(err, context.Canceled) || sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("got %v", err)
	}
	got, err := o.Judge(context.Background(), batch(1))
	checkLonger(t, got, err, 1)
}

func TestF33F41TheKeyGoesToItsHostAlone(t *testing.T) {
	const key = "sk-CANARY-42"
	t.Setenv("DNO_TEST_KEY", key)
	other, asked := service(t, func(_ int32, _ http.ResponseWriter, r *http.Request) {
		t.Errorf("another server was asked, with the key %q", r.Header.Get("Authorization"))
	})
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   string // of the error; "" for none
	}{
		"it is sent": {func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != "Bearer "+key {
				t.Errorf("Authorization is %q", got)
			}
			questions := read(t, r)
			write(t, w, []reply{longer(questions[0]), longer(questions[1])})
		}, ""},
		"a redirect to another host is refused": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other, http.StatusPermanentRedirect)
		}, "which is not asked"},
		"a refusal that repeats it": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "bad key ", r.Header.Get("Authorization"))
		}, "bad key Bearer ***"},
		"garbage that repeats it": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, strings.Repeat("x", 195), key) // where the quotation ends
		}, "want {"},
		"an id that repeats it": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"answers":[{"id":%q,"p":1}]}`, key)
		}, "answers[0]"},
	} {
		url, _ := service(t, func(_ int32, w http.ResponseWriter, r *http.Request) { c.answer(w, r) })
		got, err := oracle(t, sdk.Settings{"url": url, "key": "env:DNO_TEST_KEY"}).Judge(context.Background(), batch(1))
		if c.want == "" {
			checkLonger(t, got, err, 1)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANAR") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("another server was asked %d times", asked.Load())
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	const url = "https://judge.example/"
	for name, c := range map[string]struct {
		given sdk.Settings
		want  string
	}{
		"no url":                               {sdk.Settings{}, `needs the setting "url"`},
		"F41 http to another machine":          {sdk.Settings{"url": "http://judge.example/"}, "want https://, or insecure = true"},
		"a key, not the name of one":           {sdk.Settings{"url": url, "key": "sk-CANARY"}, `want "env:NAME"`},
		"a key that is not there":              {sdk.Settings{"url": url, "key": "env:DNO_TEST_NONE"}, "DNO_TEST_NONE is not set"},
		"half a question a request":            {sdk.Settings{"url": url, "batch": 1.5}, "whole number"},
		"half a request at once":               {sdk.Settings{"url": url, "concurrency": 1.5}, "whole number"},
		"half an attempt":                      {sdk.Settings{"url": url, "retries": 0.5}, "whole number"},
		"no request at once":                   {sdk.Settings{"url": url, "concurrency": 0}, "at least 1"},
		"no time":                              {sdk.Settings{"url": url, "request_timeout": 0}, "at least 0.001"},
		"the settings of the oracle in a file": {sdk.Settings{"url": url, "path": "judge.sh"}, `no setting "path"`},
	} {
		o := New()
		resolved, err := o.Manifest().Resolve(c.given)
		if err == nil {
			err = o.Configure(context.Background(), resolved)
		}
		if sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if err := New().Configure(context.Background(), sdk.Settings{"url": "http://judge.example/", "insecure": true}); err != nil {
		t.Errorf("as is said, it may be asked: %v", err)
	}
}

func TestAskedBeforeItIsConfigured(t *testing.T) {
	t.Parallel()
	o := New().(*Oracle)
	if _, err := o.Judge(context.Background(), batch(1)); sdk.CodeOf(err) != sdk.CodePlugin || o.Close() != nil {
		t.Errorf("got %v", err)
	}
}
