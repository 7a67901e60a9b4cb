package rundir

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
)

func keyOf(n int) (k Key) {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	copy(k[:], sum[:])
	return k
}

func openJudgments(t *testing.T, run *Run) *Judgments {
	t.Helper()
	j, err := run.Judgments()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestJudgmentsAreReadBack(t *testing.T) {
	run := create(t)
	j := openJudgments(t, run)
	p, score := 0.1+0.2, -3.0
	want := map[int]Judgment{
		1: {Key: keyOf(1), Iteration: 2, P: &p, Cost: 0.5},
		2: {Key: keyOf(2), Iteration: 2, Abstain: "no idea"},
		3: {Key: keyOf(3), Iteration: 3, Assessed: &sdk.Assessment{Score: &score, Labels: map[string]float64{"correct": 1}}},
	}
	first := want[1]
	first.Reason, first.Oracle = "it is right", "verifier"
	if err := j.Add(first, want[2]); err != nil {
		t.Fatal(err)
	}
	if err := j.Add(want[3]); err != nil {
		t.Fatal(err)
	}
	again := openJudgments(t, run)
	for _, j := range []*Judgments{j, again} {
		for n, rec := range want {
			if got, ok := j.Get(keyOf(n)); !ok || !cmp.Equal(got, rec) {
				t.Errorf("judgment %d (-want +got):\n%s", n, cmp.Diff(rec, got))
			}
		}
		if _, ok := j.Get(keyOf(4)); ok || j.Len() != 3 {
			t.Errorf("%d judgments are known, want 3", j.Len())
		}
	}
	other := create(t)
	reused := openJudgments(t, other)
	own := 0.9
	if err := reused.Add(Judgment{Key: keyOf(1), Iteration: 1, P: &own}); err != nil {
		t.Fatal(err)
	}
	if err := reused.Reuse(run.Dir()); err != nil {
		t.Fatal(err)
	}
	if got, _ := reused.Get(keyOf(1)); *got.P != own {
		t.Errorf("another run's judgment hides the run's own: %v", *got.P)
	}
	if got, _ := reused.Get(keyOf(2)); got.Iteration != Elsewhere || got.Abstain != "no idea" {
		t.Errorf("the reused judgment is %+v", got)
	}
	if lines, _ := ReadLog[Judgment](other.path(JudgmentsFile)); len(lines) != 1 {
		t.Errorf("reusing wrote %d lines, want the run's own", len(lines))
	}
	if err := reused.Reuse(t.TempDir()); sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("a folder without a run: %v", err)
	}
}

// F5: a torn tail is cut and told; damage before it is an error, and leaves the file as it is.
func TestF5AJournalOfJudgmentsThatIsDamaged(t *testing.T) {
	run := create(t)
	j := openJudgments(t, run)
	p := 0.5
	for n := range 3 {
		if err := j.Add(Judgment{Key: keyOf(n), P: &p}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(run.Dir(), JudgmentsFile)
	whole := mustRead(t, path)
	line := len(whole) / 3
	for cut := 1; cut < line; cut++ {
		if err := os.WriteFile(path, whole[:len(whole)-cut], 0o644); err != nil {
			t.Fatal(err)
		}
		j, err := run.Judgments()
		if err != nil || j.Len() != 2 || j.Torn() != int64(line-cut) {
			t.Fatalf("%d bytes short: %v", cut, err)
		}
		j.Close()
	}
	for at := range 2 * line {
		broken := append([]byte{}, whole...)
		broken[at] ^= 4
		if err := os.WriteFile(path, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := run.Judgments(); sdk.CodeOf(err) != sdk.CodeCorrupt {
			t.Fatalf("byte %d changed: %v", at, err)
		}
		if got := mustRead(t, path); string(got) != string(broken) {
			t.Fatalf("byte %d changed: the file was changed too", at)
		}
	}
}

// BenchmarkJudgments is the journal of a million judgments: opening it, and a look at one.
func BenchmarkJudgments(b *testing.B) {
	run, err := Create(filepath.Join(b.TempDir(), "run"), header(), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer run.Close()
	j, err := run.Judgments()
	if err != nil {
		b.Fatal(err)
	}
	const n = 1_000_000
	p := 0.75
	for at := 0; at < n; at += 10_000 {
		var batch []Judgment
		for i := range 10_000 {
			batch = append(batch, Judgment{Key: keyOf(at + i), Iteration: 1, Oracle: "verifier", P: &p})
		}
		if err := j.Add(batch...); err != nil {
			b.Fatal(err)
		}
	}
	j.Close()
	b.Run("open a million", func(b *testing.B) {
		for b.Loop() {
			if j, err = run.Judgments(); err != nil || j.Len() != n {
				b.Fatal(j.Len(), err)
			}
			j.Close()
		}
	})
	keys := make([]Key, 4096)
	for i := range keys {
		keys[i] = keyOf(i * 241)
	}
	b.Run("look up", func(b *testing.B) {
		i := 0
		for b.Loop() {
			if _, ok := j.Get(keys[i%len(keys)]); !ok {
				b.Fatal("a key is not there")
			}
			i++
		}
	})
}

// FuzzJudgments: whatever is in a journal, it is read or refused; what is read is written again as it was.
func FuzzJudgments(f *testing.F) {
	p, score := 0.5, 1.0
	for _, rec := range []Judgment{
		{Key: keyOf(1), Iteration: 1, Oracle: "o", P: &p, Reason: "r", Cost: 1},
		{Key: keyOf(2), Abstain: "no"}, {Key: keyOf(3), Assessed: &sdk.Assessment{Score: &score}},
	} {
		line, err := Line(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line, true)
		f.Add(line[:len(line)-20], true) // the checksum is added below
		f.Add(line, false)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte, sealed bool) {
		if sealed { // else hardly any input gets past the checksum
			text = fmt.Appendf(slices.Clone(text), ",\"crc\":\"%08x\"}\n", crc32.Checksum(text, castagnoli))
		}
		path := filepath.Join(dir, JudgmentsFile)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		var records []Judgment
		err := eachRecord(path, func(rec Judgment) error {
			records = append(records, rec)
			return rec.check()
		})
		if err == nil {
			j := NewJudgments()
			for _, rec := range records {
				j.put(rec)
			}
			for _, rec := range records {
				if got, ok := j.Get(rec.Key); !ok || got.check() != nil {
					t.Errorf("%+v is kept as %+v", rec, got)
				}
			}
		}
		if err != nil {
			if sdk.CodeOf(err) != sdk.CodeCorrupt {
				t.Errorf("it is refused with %v", err)
			}
			return
		}
		if err := WriteLog(path, records); err != nil {
			t.Fatal(err)
		}
		again, err := ReadLog[Judgment](path)
		if err != nil || !cmp.Equal(records, again) {
			t.Errorf("written again it is %+v, %v, not %+v", again, err, records)
		}
	})
}
