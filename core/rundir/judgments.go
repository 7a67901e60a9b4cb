package rundir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/dno-project/dno/sdk"
)

// JudgmentsFile is the journal of all that oracles said, in the run's folder.
const JudgmentsFile = "judgments.jsonl"

// Key names what was asked, by content: the first half of a sha256 of the oracle's identity and of all that
// it saw.
type Key [16]byte

// MarshalText writes the key in hex.
func (k Key) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText reads it back.
func (k *Key) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(k)) {
		return fmt.Errorf("the key %.80q has not %d hex digits", text, hex.EncodedLen(len(k)))
	}
	_, err := hex.Decode(k[:], text)
	return err
}

// Judgment is one line of judgments.jsonl: what an oracle said of one ordered pair, or of one candidate.
type Judgment struct {
	Key       Key    `json:"key"`
	Iteration int    `json:"iteration"` // in which it was asked
	Oracle    string `json:"oracle,omitempty"`
	// Of a pair: one of the first two, and the oracle's words.
	P       *float64 `json:"p,omitempty"`
	Abstain string   `json:"abstain,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	// Of a candidate; empty where the oracle said nothing of it.
	Assessed *sdk.Assessment `json:"assessed,omitempty"`
	// Of the answer that this is the first judgment of.
	Cost   float64 `json:"cost,omitempty"`
	Tokens int     `json:"tokens,omitempty"`
	Calls  int     `json:"calls,omitempty"` // questions that it answered
}

// check says what is wrong with a judgment: it is of a pair or of a candidate, and says something.
func (rec Judgment) check() error {
	said := 0
	for _, has := range []bool{rec.P != nil, rec.Abstain != "", rec.Assessed != nil} {
		if has {
			said++
		}
	}
	switch {
	case said != 1:
		return errors.New("a judgment has one of p, abstain and assessed")
	case rec.P != nil && !(*rec.P >= 0 && *rec.P <= 1):
		return fmt.Errorf("p is %v, want a probability", *rec.P)
	case !(rec.Cost >= 0):
		return fmt.Errorf("cost is %v, want at least 0", rec.Cost)
	case rec.Tokens < 0 || rec.Calls < 0:
		return fmt.Errorf("%d tokens and %d calls, want at least 0", rec.Tokens, rec.Calls)
	}
	return nil
}

// Elsewhere is the iteration of a judgment that another run paid for.
const Elsewhere = -1

// Judgments are all that oracles said in a run, and in the runs that it reuses: a cache by content, and
// what a run is resumed and replayed from. It is safe for concurrent use.
type Judgments struct {
	mu    sync.RWMutex
	log   *Log[Judgment] // nil: they are kept in memory only
	known map[Key]*Judgment
	spent Spent
}

// Spent is what answers of oracles took.
type Spent struct {
	Calls  int     // questions: ordered pairs, the scores of a pointwise oracle, the lists of a listwise one
	Tokens int     // as far as oracles count them
	Money  float64 // in the currency of the oracles' bills
}

// Spent is what the run itself has spent, not what it reused.
func (j *Judgments) Spent() Spent {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.spent
}

// NewJudgments returns judgments that are kept in memory only.
func NewJudgments() *Judgments { return &Judgments{known: map[Key]*Judgment{}} }

// Judgments opens the run's journal. A torn last line, what a crash leaves, is cut, and its bytes are
// counted; damage anywhere else is an error with [sdk.CodeCorrupt].
func (r *Run) Judgments() (*Judgments, error) {
	j := NewJudgments()
	log, err := openLog(r.path(JudgmentsFile), func(rec Judgment) error {
		j.put(rec)
		return rec.check()
	})
	if err != nil {
		return nil, err
	}
	j.log = log
	return j, nil
}

// Reuse adds what the run in dir paid for. It reads only, and what this run knows itself wins.
func (j *Judgments) Reuse(dir string) error {
	if !Exists(dir) {
		return sdk.Errorf(sdk.CodeUsage, "reuse the judgments of %s: there is no run in it", dir)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return eachRecord(filepath.Join(dir, JudgmentsFile), func(rec Judgment) error {
		if _, ok := j.known[rec.Key]; !ok {
			rec.Iteration, rec.Cost, rec.Tokens, rec.Calls = Elsewhere, 0, 0, 0
			j.put(rec)
		}
		return rec.check()
	})
}

// put keeps what is asked for again; the oracle's words stay on disk.
func (j *Judgments) put(rec Judgment) {
	rec.Reason, rec.Oracle = "", ""
	j.spent.Calls += rec.Calls
	j.spent.Tokens += rec.Tokens
	j.spent.Money += rec.Cost
	j.known[rec.Key] = &rec
}

// Get returns the judgment under a key, without the oracle's words.
func (j *Judgments) Get(k Key) (Judgment, bool) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if rec := j.known[k]; rec != nil {
		return *rec, true
	}
	return Judgment{}, false
}

// Len is how many judgments are known.
func (j *Judgments) Len() int {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return len(j.known)
}

// Add keeps the judgments of one answer; when it returns nil they are durable.
func (j *Judgments) Add(records ...Judgment) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log != nil {
		if err := j.log.Append(records...); err != nil {
			return err
		}
	}
	for _, rec := range records {
		j.put(rec)
	}
	return nil
}

// Torn is how many bytes of a torn last line were cut when the journal was opened.
func (j *Judgments) Torn() int64 {
	if j.log == nil {
		return 0
	}
	return j.log.Torn()
}

// Close closes the journal.
func (j *Judgments) Close() error {
	if j.log == nil {
		return nil
	}
	return j.log.Close()
}
