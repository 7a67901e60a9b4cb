package geometry

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"testing"
)

func TestRightSolutionsAreRight(t *testing.T) {
	g := NewGenerator(9, Training, Habits{})
	for range 2000 {
		p := g.Next()
		for _, s := range p.Steps {
			if s.Value != apply(s.A, s.Op, s.B) {
				t.Fatalf("%q: step %+v is wrong", p.Prompt, s)
			}
		}
		if last := p.Steps[len(p.Steps)-1].Value; last != p.Answer || last < 0 {
			t.Fatalf("%q: %s ends with %d, the answer is %d", p.Prompt, p.Worked(), last, p.Answer)
		}
	}
}

// Each kind of slip, by hand: 17+45 without its carry is 52, 23*4 without its carry is 82,
// 52-17 without its borrow is 45.
func TestSlips(t *testing.T) {
	for _, c := range []struct {
		a      int
		op     byte
		b      int
		value  int
		chance bool
	}{
		{17, '+', 45, 52, true}, {12, '+', 45, 57 - 10, false}, {23, '*', 4, 82, true}, {21, '*', 4, 84, false},
		{9, '*', 9, 0, false}, {52, '-', 17, 45, true}, {58, '-', 17, 51, false},
	} {
		value, chance := slip(c.a, c.op, c.b)
		if chance != c.chance || chance && value != c.value {
			t.Errorf("slip(%d %c %d) = %d, %v; want %d, %v", c.a, c.op, c.b, value, chance, c.value, c.chance)
		}
	}
}

// At a chance the corpus slips with probability p: of n chances p·n ± 4 standard deviations.
func TestSlipsAreAsFrequentAsStated(t *testing.T) {
	g := NewGenerator(10, Corpus, Habits{Slips: Slips})
	kinds := map[byte][2]int{}
	for range 4000 {
		for _, s := range g.Next().Steps {
			if _, chance := slip(s.A, s.Op, s.B); chance {
				k := kinds[s.Op]
				k[0]++
				if s.Value != apply(s.A, s.Op, s.B) {
					k[1]++
				}
				kinds[s.Op] = k
			}
		}
	}
	for op, k := range kinds {
		n, got := float64(k[0]), float64(k[1])
		if room := 4 * math.Sqrt(n*Slips*(1-Slips)); math.Abs(got-n*Slips) > room {
			t.Errorf("%c: %v slips of %v chances", op, got, n)
		}
	}
	if len(kinds) != 3 {
		t.Errorf("%d kinds of slips, want 3", len(kinds))
	}
}

// The committed prompts are what the generator makes, and no part holds a prompt of another.
func TestPromptFilesAreTheGenerators(t *testing.T) {
	want, err := PromptFiles()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		got, err := fs.ReadFile(Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, text) {
			t.Errorf("%s is not what the generator makes: make embedded-prompts", name)
		}
	}
	lines := func(name string) int { return strings.Count(string(want[name]), "\n") }
	if lines("train.jsonl") != TrainSize || lines("validation.jsonl") != ValidationSize || lines("test.jsonl") != TestSize {
		t.Error("the sets have other sizes than stated")
	}
}

func TestModelFilesAreTheGenerators(t *testing.T) {
	want, err := ModelFiles()
	if err != nil {
		t.Fatal(err)
	}
	got, err := fs.ReadFile(Files(), "model/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want["tokenizer.json"]) {
		t.Error("model/tokenizer.json is not what the generator makes: make embedded-model")
	}
}

// The committed weights are those that `make embedded-model` wrote with AVX-512 kernels; another
// instruction set rounds differently and gives another model.
func TestEmbeddedWeightsArePinned(t *testing.T) {
	weights, err := fs.ReadFile(Files(), "model/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := os.ReadFile("model.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(weights)); !strings.Contains(string(pinned), "avx512 "+sum+"\n") {
		t.Errorf("model.safetensors has sha256 %s, pinned are\n%s", sum, pinned)
	}
	if len(weights) > 5<<20 {
		t.Errorf("the weights take %d bytes, at most 5 MiB may be embedded", len(weights))
	}
}
