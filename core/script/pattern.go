package script

import "errors"

// Lua's patterns, matched by backtracking like the original, but every attempt is a step of the
// script's budget: a pattern can be slow, never endless.

const (
	maxItems    = 1000 // of a pattern; also the depth of the recursion
	maxCaptures = 32
)

// Values of a capture's end while it has none.
const (
	open     = -1
	position = -2 // "()": only where it is
)

type kind byte

const (
	itemByte     kind = iota // one byte of a set, perhaps repeated
	itemOpen                 // "("
	itemClose                // ")"
	itemPosition             // "()"
	itemBack                 // "%1"
	itemBalance              // "%bxy"
	itemFrontier             // "%f[set]"
	itemTail                 // "$" at the end
	itemEnd
)

// item is one piece of a pattern.
type item struct {
	kind   kind
	repeat byte // 0, '*', '+', '-' or '?'
	set    byteSet
	index  int  // of a capture
	x, y   byte // of %bxy
}

// pattern is a compiled pattern.
type pattern struct {
	items    []item
	anchored bool
}

// byteSet is a set of bytes, a bit each.
type byteSet [4]uint64

func (s *byteSet) add(b byte)      { s[b>>6] |= 1 << (b & 63) }
func (s *byteSet) has(b byte) bool { return s[b>>6]>>(b&63)&1 != 0 }

func (s *byteSet) addClass(letter byte) {
	var in func(b byte) bool
	switch letter | 0x20 {
	case 'a':
		in = isLetter
	case 'c':
		in = func(b byte) bool { return b < 0x20 || b == 0x7f }
	case 'd':
		in = isDigit
	case 'l':
		in = func(b byte) bool { return isLetter(b) && b&0x20 != 0 }
	case 'p':
		in = func(b byte) bool { return b > 0x20 && b < 0x7f && !isLetter(b) && !isDigit(b) }
	case 's':
		in = func(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }
	case 'u':
		in = func(b byte) bool { return isLetter(b) && b&0x20 == 0 }
	case 'w':
		in = func(b byte) bool { return isLetter(b) || isDigit(b) }
	case 'x':
		in = func(b byte) bool { return isDigit(b) || b|0x20 >= 'a' && b|0x20 <= 'f' }
	case 'z':
		in = func(b byte) bool { return b == 0 }
	default:
		s.add(letter)
		return
	}
	complement := letter&0x20 == 0
	for b := range 256 {
		if in(byte(b)) != complement {
			s.add(byte(b))
		}
	}
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
func isDigit(b byte) bool  { return b >= '0' && b <= '9' }

// compilePattern reads a pattern. Where anchors are off, as in gmatch, '^' stands for itself.
func compilePattern(source string, anchors bool) (*pattern, error) {
	p := &pattern{}
	if anchors && source != "" && source[0] == '^' {
		p.anchored, source = true, source[1:]
	}
	var opened []int // captures that are not closed yet
	captures := 0
	capture := func() (int, error) {
		captures++
		if captures > maxCaptures {
			return 0, errors.New("too many captures")
		}
		return captures - 1, nil
	}
	for i := 0; i < len(source); {
		it := item{}
		switch c := source[i]; {
		case c == '(' && i+1 < len(source) && source[i+1] == ')':
			n, err := capture()
			if err != nil {
				return nil, err
			}
			it, i = item{kind: itemPosition, index: n}, i+2
		case c == '(':
			n, err := capture()
			if err != nil {
				return nil, err
			}
			opened = append(opened, n)
			it, i = item{kind: itemOpen, index: n}, i+1
		case c == ')':
			if len(opened) == 0 {
				return nil, errors.New("')' without '('")
			}
			it, i = item{kind: itemClose, index: opened[len(opened)-1]}, i+1
			opened = opened[:len(opened)-1]
		case c == '$' && i+1 == len(source):
			it, i = item{kind: itemTail}, i+1
		case c == '%' && i+1 < len(source) && source[i+1] == 'b':
			if i+3 >= len(source) {
				return nil, errors.New("two characters must follow %b")
			}
			it, i = item{kind: itemBalance, x: source[i+2], y: source[i+3]}, i+4
		case c == '%' && i+1 < len(source) && source[i+1] == 'f':
			if i+2 >= len(source) || source[i+2] != '[' {
				return nil, errors.New("a set must follow %f")
			}
			set, next, err := compileSet(source, i+2)
			if err != nil {
				return nil, err
			}
			it, i = item{kind: itemFrontier, set: set}, next
		case c == '%' && i+1 < len(source) && isDigit(source[i+1]):
			n := int(source[i+1]) - '1'
			if n < 0 || n >= captures {
				return nil, errors.New("it refers to a capture that does not exist")
			}
			it, i = item{kind: itemBack, index: n}, i+2
		default:
			set, next, err := compileSingle(source, i)
			if err != nil {
				return nil, err
			}
			it, i = item{set: set}, next
			if i < len(source) && (source[i] == '*' || source[i] == '+' || source[i] == '-' || source[i] == '?') {
				it.repeat = source[i]
				i++
			}
		}
		p.items = append(p.items, it)
		if len(p.items) > maxItems {
			return nil, errors.New("it is too long")
		}
	}
	if len(opened) > 0 {
		return nil, errors.New("'(' without ')'")
	}
	p.items = append(p.items, item{kind: itemEnd})
	return p, nil
}

// compileSingle reads what stands for one byte: a character, ".", a class or a set.
func compileSingle(source string, i int) (set byteSet, next int, err error) {
	switch source[i] {
	case '.':
		return byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}, i + 1, nil
	case '[':
		return compileSet(source, i)
	case '%':
		if i+1 == len(source) {
			return set, 0, errors.New("it ends with '%'")
		}
		set.addClass(source[i+1])
		return set, i + 2, nil
	}
	set.add(source[i])
	return set, i + 1, nil
}

// compileSet reads "[...]" at i. A ']' that comes first stands for itself.
func compileSet(source string, i int) (set byteSet, next int, err error) {
	missing := errors.New("']' is missing")
	i++
	complement := i < len(source) && source[i] == '^'
	if complement {
		i++
	}
	for first := true; ; first = false {
		if i >= len(source) {
			return set, 0, missing
		}
		switch c := source[i]; {
		case c == ']' && !first:
			if complement {
				for k := range set {
					set[k] = ^set[k]
				}
			}
			return set, i + 1, nil
		case c == '%':
			if i+1 >= len(source) {
				return set, 0, missing
			}
			set.addClass(source[i+1])
			i += 2
		case i+2 < len(source) && source[i+1] == '-' && source[i+2] != ']':
			for b := int(c); b <= int(source[i+2]); b++ {
				set.add(byte(b))
			}
			i += 3
		default:
			set.add(c)
			i++
		}
	}
}

// span of a capture: text[from:to], or to is open or position.
type capture struct{ from, to int }

// matcher is one attempt at one position.
type matcher struct {
	*pattern
	text     string
	steps    int64 // left; the attempt fails when they are used up
	captures []capture
	problem  string
}

// match tries the items from k on at text[i:] and returns where the match ends, or -1. Recursion
// always goes on to a later item, so its depth is bounded by the pattern.
func (m *matcher) match(i, k int) int {
	for {
		if m.steps--; m.steps < 0 {
			return -1
		}
		switch it := &m.items[k]; it.kind {
		case itemEnd:
			return i
		case itemTail:
			if i < len(m.text) {
				return -1
			}
			k++
		case itemByte:
			next := i
			switch it.repeat {
			case 0:
				if !m.byteAt(it, i) {
					return -1
				}
				i, k = i+1, k+1
				continue
			case '?':
				if m.byteAt(it, i) {
					if end := m.match(i+1, k+1); end >= 0 {
						return end
					}
				}
				k++
				continue
			case '-':
				for {
					if end := m.match(i, k+1); end >= 0 || m.steps < 0 || !m.byteAt(it, i) {
						return end
					}
					i++
				}
			case '+':
				if !m.byteAt(it, i) {
					return -1
				}
				i, next = i+1, i+1
			}
			for m.byteAt(it, next) {
				next++
			}
			m.steps -= int64(next - i)
			for ; next > i && m.steps >= 0; next-- {
				if end := m.match(next, k+1); end >= 0 {
					return end
				}
			}
			k++ // the fewest: go on here
		case itemOpen, itemPosition:
			to := open
			if it.kind == itemPosition {
				to = position
			}
			m.captures = append(m.captures, capture{from: i, to: to})
			end := m.match(i, k+1)
			if end < 0 {
				m.captures = m.captures[:it.index]
			}
			return end
		case itemClose:
			m.captures[it.index].to = i
			end := m.match(i, k+1)
			if end < 0 {
				m.captures[it.index].to = open
			}
			return end
		case itemBack:
			c := m.captures[it.index]
			if c.to < 0 {
				m.problem = "the pattern refers to a capture that has no text"
				return -1
			}
			n := c.to - c.from
			m.steps -= int64(n)
			if len(m.text)-i < n || m.text[i:i+n] != m.text[c.from:c.to] {
				return -1
			}
			i, k = i+n, k+1
		case itemBalance:
			if i = m.balance(it, i); i < 0 {
				return -1
			}
			k++
		case itemFrontier:
			var before, here byte // \0 beyond both ends
			if i > 0 {
				before = m.text[i-1]
			}
			if i < len(m.text) {
				here = m.text[i]
			}
			if it.set.has(before) || !it.set.has(here) {
				return -1
			}
			k++
		}
	}
}

func (m *matcher) byteAt(it *item, i int) bool { return i < len(m.text) && it.set.has(m.text[i]) }

// balance returns the end of the balanced text from x to y at i, or -1.
func (m *matcher) balance(it *item, i int) int {
	if i >= len(m.text) || m.text[i] != it.x {
		return -1
	}
	depth := 1
	for at := i + 1; at < len(m.text); at++ {
		m.steps--
		switch m.text[at] {
		case it.y:
			if depth--; depth == 0 {
				return at + 1
			}
		case it.x:
			depth++
		}
	}
	return -1
}
