// Package dataset is prompts in: the JSON lines that a run starts from, with TRL's column names,
// read, checked, kept apart and split. Preferences that others have judged are read as well.
//
// A line is one JSON object. Lines may end in CR LF, the file may begin with a byte order mark,
// blank lines are passed over. Everything else that is not as described is an error that names the
// file, the line and what is legal there, with the code sdk.CodeUsage; a file that cannot be read
// is sdk.CodeIO.
package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// Set is the prompts of one file.
type Set struct {
	Name    string // the file's name, as given
	Prompts []sdk.Prompt
	Lines   []int // the line that each prompt stands on, from 1
}

const promptForm = `want {"prompt": text or messages, "answer"?, "id"?, ...}`

// ReadPrompts reads a set of prompts, one a line:
//
//	{"prompt": text or [{"role", "content"}, ...], "answer"?: text, "id"?: text, ...}
//
// A text is one turn of the user; a list of messages has to end with the user's turn. A number is
// taken for an answer or an id as it is written. The id is the first 16 hex digits of the content
// hash where the line gives none. Other keys become the prompt's metadata.
//
// Errors also for two lines with the same id or the same prompt, and for a file without prompts.
// name stands in errors only.
func ReadPrompts(r io.Reader, name string) (Set, error) {
	set := Set{Name: name}
	ids, contents := map[string]int{}, map[string]int{}
	err := eachLine(r, name, func(line int, text []byte) error {
		fields, err := parseObject(text, promptForm)
		if err != nil {
			return err
		}
		prompt, err := fields.prompt()
		if err != nil {
			return err
		}
		hash := prompt.Hash()
		if first, seen := contents[hash]; seen {
			return fmt.Errorf("the prompt of line %d is here again: a prompt may stand once in a file", first)
		}
		if first, seen := ids[prompt.ID]; seen {
			return fmt.Errorf("the id %q is that of line %d: ids must be unique within a file", prompt.ID, first)
		}
		ids[prompt.ID], contents[hash] = line, line
		set.Prompts = append(set.Prompts, prompt)
		set.Lines = append(set.Lines, line)
		return nil
	})
	if err == nil && len(set.Prompts) == 0 {
		err = sdk.Errorf(sdk.CodeUsage, "%s has no prompts: %s on each line", name, promptForm)
	}
	if err != nil {
		return Set{}, err
	}
	return set, nil
}

// ReadPromptsFile is [ReadPrompts] of a file.
func ReadPromptsFile(path string) (Set, error) { return readFile(path, ReadPrompts) }

// Demonstration is a prompt with a completion to imitate.
type Demonstration struct {
	Prompt     sdk.Prompt
	Completion string
}

const demonstrationForm = `want {"prompt": text or messages, "completion": text} or {"messages": [..., the assistant's turn]}`

// ReadDemonstrations reads demonstrations, one a line:
//
//	{"prompt": text or messages, "completion": text, ...}  or
//	{"messages": [..., {"role": "assistant", "content": completion}], ...}
//
// Other keys are as in [ReadPrompts]; but a prompt may have several demonstrations, and ids may be
// given twice.
func ReadDemonstrations(r io.Reader, name string) ([]Demonstration, error) {
	var out []Demonstration
	err := eachLine(r, name, func(_ int, text []byte) error {
		fields, err := parseObject(text, demonstrationForm)
		if err != nil {
			return err
		}
		d, err := fields.demonstration()
		out = append(out, d)
		return err
	})
	if err == nil && len(out) == 0 {
		err = sdk.Errorf(sdk.CodeUsage, "%s has no demonstrations: %s on each line", name, demonstrationForm)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ReadDemonstrationsFile is [ReadDemonstrations] of a file.
func ReadDemonstrationsFile(path string) ([]Demonstration, error) {
	return readFile(path, ReadDemonstrations)
}

func readFile[T any](path string, read func(io.Reader, string) (T, error)) (T, error) {
	f, err := os.Open(path)
	if err != nil {
		var zero T
		code := sdk.CodeIO
		if errors.Is(err, fs.ErrNotExist) {
			code = sdk.CodeUsage
		}
		return zero, sdk.Errorf(code, "read %s: %w", path, err)
	}
	defer f.Close() // opened for reading: closing loses nothing
	return read(f, path)
}

// CheckDisjoint returns an error that names both places of a prompt which stands in two of the
// sets: by content hash, whatever its ids are. A prompt of the test set that is trained on makes
// the test worthless, so a leak ends the run.
func CheckDisjoint(sets ...Set) error {
	type place struct{ set, prompt int }
	seen := map[string]place{}
	var leak *sdk.Error
	leaks := 0
	for s, set := range sets {
		for i, p := range set.Prompts {
			hash := p.Hash()
			first, twice := seen[hash]
			if !twice {
				seen[hash] = place{s, i}
				continue
			}
			if first.set == s {
				continue
			}
			leaks++
			if other := sets[first.set]; leak == nil {
				leak = sdk.Errorf(sdk.CodeUsage, "the sets of prompts overlap: %s and %s are the same prompt", other.place(first.prompt), set.place(i))
			}
		}
	}
	if leak == nil {
		return nil
	}
	return leak.WithHint("prompts that stand in two sets: %d; keep each in one of them", leaks)
}

// place says where a prompt stands; a set that no file was read for has no lines.
func (s Set) place(i int) string {
	if i >= len(s.Lines) {
		return fmt.Sprintf("%s (id %q)", s.Name, s.Prompts[i].ID)
	}
	return fmt.Sprintf("%s:%d (id %q)", s.Name, s.Lines[i], s.Prompts[i].ID)
}

// Split returns part t (from 1) of n disjoint parts that together are all prompts and whose sizes
// differ by one at most. The parts, and the order within them, depend on the seed and on what the
// prompts say, not on their order in the file.
//
// Errors: sdk.CodeUsage unless 1 ≤ t ≤ n ≤ len(prompts).
func Split(prompts []sdk.Prompt, t, n int, seed uint64) ([]sdk.Prompt, error) {
	if n < 1 || t < 1 || t > n {
		return nil, sdk.Errorf(sdk.CodeUsage, "split of prompts: want a part from 1 to the number of parts, have part %d of %d", t, n)
	}
	if n > len(prompts) {
		return nil, sdk.Errorf(sdk.CodeUsage, "split of prompts: cannot make %d parts of %d prompts", n, len(prompts))
	}
	shuffled := Shuffle(prompts, seed)
	return shuffled[(t-1)*len(prompts)/n : t*len(prompts)/n], nil
}

// Shuffle returns the prompts in an order that depends on the seed and on what they say: by the
// SHA-256 of the two, so it is the same in every release of dno and of Go.
func Shuffle(prompts []sdk.Prompt, seed uint64) []sdk.Prompt {
	type keyed struct {
		key    [sha256.Size]byte
		prompt sdk.Prompt
	}
	order := make([]keyed, len(prompts))
	for i, p := range prompts {
		order[i] = keyed{sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, seed), p.Hash()...)), p}
	}
	slices.SortStableFunc(order, func(a, b keyed) int { return bytes.Compare(a.key[:], b.key[:]) })
	out := make([]sdk.Prompt, len(prompts))
	for i, k := range order {
		out[i] = k.prompt
	}
	return out
}
