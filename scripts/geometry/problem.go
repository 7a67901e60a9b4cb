package geometry

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Problem is one worked problem: words, the solution step by step, and the final value.
type Problem struct {
	Prompt string
	Steps  []Step
	Answer int
}

// Step is one line of a solution: A op B = Value.
type Step struct {
	A, B  int
	Op    byte // '+', '-' or '*'
	Value int  // what the writer of the solution got; equal to A op B where there is no slip
	Wordy bool // written with the word "then" before it
}

// Worked returns the solution as the model writes it: "17+45=62;then 62+8=70".
func (p Problem) Worked() string {
	lines := make([]string, len(p.Steps))
	for i, s := range p.Steps {
		lines[i] = fmt.Sprintf("%d%c%d=%d", s.A, s.Op, s.B, s.Value)
		if s.Wordy {
			lines[i] = filler + " " + lines[i]
		}
	}
	return strings.Join(lines, ";")
}

// Part is one of the disjoint sets that a problem belongs to, by a hash of its words.
type Part int

const (
	Corpus   Part = iota // 70 %: what π_1 was fine-tuned on
	Training             // 20 %: prompts of the iterations, and of validation
	Testing              // 10 %: prompts of the report
)

// PartOf returns the set of a prompt. It depends on the words alone, so no seed can leak one.
func PartOf(prompt string) Part {
	h := fnv.New32a()
	h.Write([]byte(prompt))
	// The low bits of FNV-1a are its weakest: mix before the remainder.
	x := h.Sum32()
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	switch d := x % 10; {
	case d < 7:
		return Corpus
	case d < 9:
		return Training
	}
	return Testing
}

// filler is the word of wordy steps: it carries nothing, but a preference for length can find it.
const filler = "then"

// Habits are what the writers of a corpus do, each with a probability at each chance for it.
type Habits struct {
	Slips float64 // forget a carry or a borrow
	Words float64 // begin a step with a word
}

// writer solves a problem by its habits.
type writer struct {
	Habits
	rng   *rand.Rand
	steps []Step
}

// do writes one step and returns the value that the writer carries on with.
func (w *writer) do(a int, op byte, b int) int {
	value := apply(a, op, b)
	if slipped, chance := slip(a, op, b); chance && w.rng.Float64() < w.Slips {
		value = slipped
	}
	w.steps = append(w.steps, Step{a, b, op, value, w.rng.Float64() < w.Words})
	return value
}

func apply(a int, op byte, b int) int {
	switch op {
	case '+':
		return a + b
	case '-':
		return a - b
	}
	return a * b
}

// slip is what a careless person gets: a dropped carry in a sum, a dropped carry in a product by
// one digit, a forgotten borrow in a difference. chance is false where nothing is carried or borrowed.
func slip(a int, op byte, b int) (value int, chance bool) {
	switch op {
	case '+':
		return a + b - 10, a%10+b%10 >= 10
	case '-':
		return a - b + 10, a%10 < b%10
	}
	carry := (a % 10) * b / 10 * 10
	return a*b - carry, a > 9 && b < 10 && carry > 0
}

// family is one kind of problem: it draws numbers, writes the words, and solves.
type family func(r *rand.Rand, w *writer) (prompt string, answer int)

var families = []family{perimeter, shopping, rooms, frame, box, fence}

func between(r *rand.Rand, lo, hi int) int { return lo + r.IntN(hi-lo+1) }

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// sum adds the numbers one after another, and returns the writer's and the right total.
func sum(w *writer, numbers []int) int {
	total := numbers[0]
	for _, x := range numbers[1:] {
		total = w.do(total, '+', x)
	}
	return total
}

func list(numbers []int) string {
	words := make([]string, len(numbers))
	for i, x := range numbers {
		words[i] = strconv.Itoa(x)
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

func perimeter(r *rand.Rand, w *writer) (string, int) {
	sides := make([]int, between(r, 4, 6))
	answer := 0
	for i := range sides {
		sides[i] = between(r, 2, 60)
		answer += sides[i]
	}
	sum(w, sides)
	shape := map[int]string{4: "field", 5: "pentagon", 6: "hexagon"}[len(sides)]
	return fmt.Sprintf("A %s has sides of %s %s. Find its perimeter.", shape, list(sides), pick(r, "cm", "m")), answer
}

// products multiplies each pair, then adds the results.
func products(w *writer, pairs [][2]int) (answer int) {
	parts := make([]int, len(pairs))
	for i, p := range pairs {
		parts[i] = w.do(p[0], '*', p[1])
		answer += p[0] * p[1]
	}
	sum(w, parts)
	return answer
}

func shopping(r *rand.Rand, w *writer) (string, int) {
	pairs := make([][2]int, between(r, 2, 3))
	words := make([]string, len(pairs))
	for i := range pairs {
		pairs[i] = [2]int{between(r, 11, 49), between(r, 2, 9)}
		words[i] = fmt.Sprintf("%d %s at %d", pairs[i][1], []string{"pens", "books", "lamps"}[i], pairs[i][0])
	}
	return fmt.Sprintf("A school buys %s. What is the cost?", strings.Join(words, ", ")), products(w, pairs)
}

func rooms(r *rand.Rand, w *writer) (string, int) {
	pairs := make([][2]int, between(r, 2, 3))
	words := make([]string, len(pairs))
	for i := range pairs {
		pairs[i] = [2]int{between(r, 11, 39), between(r, 3, 9)}
		words[i] = fmt.Sprintf("%d by %d", pairs[i][0], pairs[i][1])
	}
	return fmt.Sprintf("Rooms measure %s m. Find the total area.", strings.Join(words, ", ")), products(w, pairs)
}

func frame(r *rand.Rand, w *writer) (string, int) {
	a, b := between(r, 31, 89), between(r, 6, 9)
	c, d := between(r, 11, 29), between(r, 2, 5)
	e, f := between(r, 2, 9), between(r, 2, 9)
	outer := w.do(a, '*', b)
	inner := w.do(c, '*', d)
	rest := w.do(outer, '-', inner)
	corner := w.do(e, '*', f)
	w.do(rest, '-', corner)
	return fmt.Sprintf("A wall of %d by %d m has a gate of %d by %d m and a door of %d by %d m. Find the area left.", a, b, c, d, e, f), a*b - c*d - e*f
}

func box(r *rand.Rand, w *writer) (string, int) {
	a, b, c := between(r, 11, 29), between(r, 3, 9), between(r, 2, 9)
	top, front, side := w.do(a, '*', b), w.do(a, '*', c), w.do(b, '*', c)
	half := w.do(w.do(top, '+', front), '+', side)
	w.do(half, '+', half)
	return fmt.Sprintf("A box is %d by %d by %d cm. Find its surface.", a, b, c), 2 * (a*b + a*c + b*c)
}

func fence(r *rand.Rand, w *writer) (string, int) {
	a, b, gate := between(r, 21, 89), between(r, 12, 69), between(r, 3, 19)
	half := w.do(a, '+', b)
	w.do(w.do(half, '+', half), '-', gate)
	return fmt.Sprintf("A garden of %d by %d m has a gate of %d m. How long is its fence?", a, b, gate), 2*(a+b) - gate
}

// Generator draws worked problems of one part, each prompt once.
type Generator struct {
	rng    *rand.Rand
	part   Part
	habits Habits
	seen   map[string]bool
}

// NewGenerator returns a generator of one part's problems. Without habits solutions are right and terse.
func NewGenerator(seed uint64, part Part, habits Habits) *Generator {
	return &Generator{rng: rand.New(rand.NewPCG(seed, 0x67656f6d)), part: part, habits: habits, seen: map[string]bool{}}
}

// Next draws a problem. Families take turns at random, all alike.
func (g *Generator) Next() Problem {
	for {
		w := &writer{Habits: g.habits, rng: g.rng}
		prompt, answer := families[g.rng.IntN(len(families))](g.rng, w)
		if PartOf(prompt) == g.part && !g.seen[prompt] {
			g.seen[prompt] = true
			return Problem{Prompt: prompt, Steps: w.steps, Answer: answer}
		}
	}
}
