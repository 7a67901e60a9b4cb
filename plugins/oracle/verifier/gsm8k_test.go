package verifier

import (
	"bufio"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// Every reference solution of GSM8K (Cobbe et al. 2021, arXiv 2110.14168) is right by its own answer, and
// one off it is wrong. The data is MIT's and is not part of this repository.
func TestGSM8K(t *testing.T) {
	t.Parallel()
	dir := "../../../../shared/data/gsm8k" // ../shared, from the module's root
	if _, err := os.Stat(dir); err != nil {
		t.Skip("NOT TESTED: the reference solutions of GSM8K are not at hand: ", err)
	}
	o := configured(t, sdk.Settings{"check": "number"})
	for _, name := range []string{"test.jsonl", "train.jsonl"} {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		n := 0
		lines := bufio.NewScanner(file)
		for ; lines.Scan(); n++ {
			var record struct{ Question, Answer string }
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				t.Fatal(err)
			}
			worked, final, ok := strings.Cut(record.Answer, "\n#### ")
			v, isNumber := new(big.Rat).SetString(strings.ReplaceAll(final, ",", ""))
			if !ok || !isNumber {
				t.Fatalf("%s:%d: %q", name, n+1, record.Answer)
			}
			wrong := v.Add(v, big.NewRat(1, 1)).RatString()
			for _, c := range []struct {
				answer, text string
				score        float64
			}{
				{final, record.Answer, 1},
				{record.Answer, record.Answer, 1}, // the record's answer as it is, for the reference
				{final, "So it follows.\nThe answer is " + final + ".", 1},
				{final, `Hence $\boxed{` + final + "}$.", 1},
				{final, worked + "\n#### " + wrong, 0},
				{wrong, record.Answer, 0},
			} {
				if got, why := assessOne(t, o, sdk.Prompt{Answer: c.answer}, c.text); why != "" || *got.Score != c.score {
					t.Errorf("%s:%d: score %v, want %v (%s): %q", name, n+1, got.Score, c.score, why, c.text)
				}
			}
		}
		if err := lines.Err(); err != nil || n < 100 {
			t.Fatalf("%s: %d records, %v", name, n, err)
		}
		t.Logf("%s: %d solutions", name, n)
	}
}
