package answers

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is read at most of an answer in LaTeX; a longer or deeper one is compared as text.
const (
	maxLaTeX = 4 << 10 // bytes
	maxDepth = 32      // of brackets
)

// Boxed is the content of a text's last \boxed{} or \fbox{} whose braces are balanced; false where there
// is none. Escaped braces are no braces.
func Boxed(text string) (string, bool) {
	end := len(text) // of what is looked at for the box: what comes later holds no whole one
	for at := end; ; {
		if at = strings.LastIndexByte(text[:at], '\\'); at < 0 {
			return "", false
		}
		rest, ok := strings.CutPrefix(text[at:end], `\boxed`)
		if !ok {
			if rest, ok = strings.CutPrefix(text[at:end], `\fbox`); !ok {
				continue
			}
		}
		rest = strings.TrimLeft(rest, " ")
		if n := balanced(rest); n > 0 {
			return strings.TrimSpace(rest[1 : n-1]), true
		}
		end = at
	}
}

// balanced is the length of the group in braces at the start of a text; 0 where it does not end.
func balanced(text string) int {
	if !strings.HasPrefix(text, "{") {
		return 0
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// token is one token of TeX: a command with its backslash, a character, or the words of a \text{}.
type token struct {
	text  string
	words bool
}

func (t token) is(text string) bool { return !t.words && t.text == text }

func (t token) digit() bool { return !t.words && len(t.text) == 1 && isDigit(t.text[0]) }

// meaningless are commands that change how an answer looks and not what it says.
var meaningless = set(`\left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \displaystyle \textstyle \limits \, \; \: \! \quad \qquad \( \) \[ \] \$ \space`)

// synonyms are written in one way.
var synonyms = map[string]string{
	`\dfrac`: `\frac`, `\tfrac`: `\frac`, `\cfrac`: `\frac`,
	`\times`: "*", `\cdot`: "*", "×": "*", "·": "*", "⋅": "*", `\div`: "/", "÷": "/", "−": "-", "∕": "/", "⁄": "/",
	`\le`: `\leq`, "≤": `\leq`, `\leqslant`: `\leq`, `\ge`: `\geq`, "≥": `\geq`, `\geqslant`: `\geq`, `\ne`: `\neq`, "≠": `\neq`, `\lt`: "<", `\gt`: ">",
	"π": `\pi`, "∞": `\infty`, "∪": `\cup`, "∩": `\cap`, "√": `\sqrt`, "∅": `\emptyset`, `\varnothing`: `\emptyset`,
	`\%`: "%", `\lbrace`: `\{`, `\rbrace`: `\}`, `\lbrack`: "[", `\rbrack`: "]", `\degree`: "°", `\dots`: `\ldots`,
}

var textCommands = set(`\text \textrm \textbf \textit \mathrm \mathbf \mathit \mathsf \mbox \hbox \operatorname \textnormal`)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

// lex reads LaTeX into tokens: without spaces, dollar signs and what only changes the looks; with one
// spelling for what has several; with fractions' and roots' single characters in braces.
func lex(text string) []token { return lexDeep(typography.Replace(text), 0) }

func lexDeep(text string, depth int) []token {
	var out []token
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == '\\' {
			size = commandLength(text[i:])
		}
		word := text[i : i+size]
		i += size
		switch {
		case textCommands[word] && strings.HasPrefix(text[i:], "{"):
			n := balanced(text[i:])
			if n == 0 {
				n = len(text[i:])
			}
			content := strings.TrimSuffix(text[i+1:i+n], "}")
			i += n
			out = append(out, words(content, depth)...)
		case meaningless[word] || word == "$" || unicode.IsSpace(r) || r == '~' || word == `\ `:
			continue
		case synonyms[word] != "":
			out = append(out, token{text: synonyms[word]})
		default:
			out = append(out, token{text: word})
		}
	}
	return degrees(out)
}

// words are the tokens of a \text{}: "or" and "and" join answers as a comma does, letters are words, and
// anything else is LaTeX as it would be outside.
func words(content string, depth int) []token {
	content = strings.Join(strings.Fields(content), " ")
	switch strings.ToLower(content) {
	case "":
		return nil
	case "or", "and":
		return []token{{text: ","}}
	}
	letters := 0
	for _, r := range content {
		if unicode.IsLetter(r) {
			letters++
		}
	}
	if depth < maxDepth && (letters < 2 || strings.Contains(content, `\`)) {
		return lexDeep(content, depth+1)
	}
	return []token{{strings.ReplaceAll(content, " ", ""), true}}
}

func commandLength(text string) int {
	n := 1
	for n < len(text) && (text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		n++
	}
	if n == 1 && len(text) > 1 {
		_, size := utf8.DecodeRuneInString(text[1:])
		n += size
	}
	return n
}

// degrees writes ^\circ and ^{\circ} as °, and takes the braces off a comma between digits.
func degrees(tokens []token) []token {
	var out []token
	for i := 0; i < len(tokens); i++ {
		rest := tokens[i:]
		switch {
		case len(rest) >= 2 && rest[0].is("^") && rest[1].is(`\circ`):
			out = append(out, token{text: "°"})
			i++
		case len(rest) >= 4 && rest[0].is("^") && rest[1].is("{") && rest[2].is(`\circ`) && rest[3].is("}"):
			out = append(out, token{text: "°"})
			i += 3
		case len(rest) >= 3 && rest[0].is("{") && rest[1].is(",") && rest[2].is("}"):
			i += 2 // a separator of thousands: "1{,}000"
		default:
			out = append(out, rest[0])
		}
	}
	return out
}

// plainText writes tokens for comparison: braces around one token are left out, \frac{a}{b} is a/b.
func plainText(tokens []token) string {
	var b strings.Builder
	writePlain(&b, tokens, 0)
	return b.String()
}

func writePlain(b *strings.Builder, tokens []token, depth int) {
	for len(tokens) > 0 {
		t := tokens[0]
		switch {
		case t.is(`\frac`) && depth < maxDepth:
			over, rest := argument(tokens[1:])
			under, rest := argument(rest)
			writeSide(b, over, depth+1)
			b.WriteByte('/')
			writeSide(b, under, depth+1)
			tokens = rest
		case t.is("{") && depth < maxDepth:
			inner, rest := argument(tokens)
			if len(inner) == 1 {
				b.WriteString(inner[0].text)
			} else {
				b.WriteByte('{')
				writePlain(b, inner, depth+1)
				b.WriteByte('}')
			}
			tokens = rest
		default:
			b.WriteString(t.text)
			tokens = tokens[1:]
		}
	}
}

// writeSide writes a numerator or denominator, in brackets where it is more than a number or a letter.
func writeSide(b *strings.Builder, side []token, depth int) {
	simple := true
	for _, t := range side {
		simple = simple && t.digit()
	}
	if simple || len(side) == 1 {
		writePlain(b, side, depth)
		return
	}
	b.WriteByte('(')
	writePlain(b, side, depth)
	b.WriteByte(')')
}

// argument is what a command takes: the group in braces, or one token. Of a group that does not end it
// is all there is.
func argument(tokens []token) (inner, rest []token) {
	if len(tokens) == 0 {
		return nil, nil
	}
	if !tokens[0].is("{") {
		return tokens[:1], tokens[1:]
	}
	if end := match(tokens, "{", "}"); end > 0 {
		return tokens[1:end], tokens[end+1:]
	}
	return tokens[1:], nil
}

// match is where the bracket that tokens begin with is closed; 0 where it is not.
func match(tokens []token, open, closed string) int {
	depth := 0
	for i, t := range tokens {
		if t.is(open) {
			depth++
		} else if t.is(closed) {
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return 0
}
