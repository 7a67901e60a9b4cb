package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder is a step from tokens to text; the last one's strings are joined.
type decoder func(tokens []string) []string

// decodeByteLevel undoes the spelling of bytes. A token with a character that spells no byte, such as
// an added one, stands for itself.
func decodeByteLevel(tokens []string) []string {
	var out []byte
	for _, token := range tokens {
		out = appendSpelled(out, token)
	}
	return []string{validUTF8(out)}
}

// appendSpelled appends the bytes that a token spells.
func appendSpelled(out []byte, token string) []byte {
	begin := len(out)
	for _, r := range token {
		b, ok := runeBytes[r]
		if !ok {
			return append(out[:begin], token...)
		}
		out = append(out, b)
	}
	return out
}

// validUTF8 puts one U+FFFD for each maximal part of a character that is cut off (Unicode Standard 3.9,
// "U+FFFD Substitution of Maximal Subparts"); strings.ToValidUTF8 puts one for several.
func validUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			for n < len(b) && !utf8.FullRune(b[:n+1]) {
				n++
			}
		}
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}

// decodeByteFallback makes bytes of <0x00> to <0xFF> and joins neighbours to characters. If they are none,
// each becomes U+FFFD.
func decodeByteFallback(tokens []string) []string {
	var out []string
	var bytes []byte
	flush := func() {
		switch {
		case len(bytes) == 0:
		case utf8.Valid(bytes):
			out = append(out, string(bytes))
		default:
			out = append(out, strings.Repeat(string(utf8.RuneError), len(bytes)))
		}
		bytes = bytes[:0]
	}
	for _, token := range tokens {
		if b, ok := fallbackByte(token); ok {
			bytes = append(bytes, b)
			continue
		}
		flush()
		out = append(out, token)
	}
	flush()
	return out
}

// fallbackByte returns the byte of a token <0x00> to <0xFF>.
func fallbackByte(token string) (byte, bool) {
	if len(token) != 6 || !strings.HasPrefix(token, "<0x") || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

func decodeFuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// eachToken decodes tokens one by one.
func eachToken(f func(string) string) decoder {
	return func(tokens []string) []string {
		out := make([]string, len(tokens))
		for i, token := range tokens {
			out[i] = f(token)
		}
		return out
	}
}

// strip cuts up to start times c from a token's beginning and up to stop times from its end.
func strip(c string, start, stop int) func(string) string {
	return func(token string) string {
		for i := 0; i < start && strings.HasPrefix(token, c); i++ {
			token = token[len(c):]
		}
		for i := 0; i < stop && strings.HasSuffix(token, c); i++ {
			token = token[:len(token)-len(c)]
		}
		return token
	}
}

// decoder makes marks spaces again, and drops those of the first token, which stand before the text.
func (m metaspace) decoder() decoder {
	return func(tokens []string) []string {
		out := make([]string, len(tokens))
		for i, token := range tokens {
			space := " "
			if i == 0 && m.prepend != "never" {
				space = ""
			}
			out[i] = strings.ReplaceAll(token, m.mark, space)
		}
		return out
	}
}
