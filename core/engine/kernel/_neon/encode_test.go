package main

import (
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

// Each word means what the comment beside it says: a disassembler reads it so.
func TestWordsAreWhatTheirCommentsSay(t *testing.T) {
	generate()
	words := regexp.MustCompile(`WORD \$(\S+) // (.*)`).FindAllStringSubmatch(asm.String(), -1)
	if len(words) < 100 {
		t.Fatalf("there are %d words", len(words))
	}
	for _, w := range words {
		code, err := strconv.ParseUint(w[1], 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		got, err := arm64asm.Decode(binary.LittleEndian.AppendUint32(nil, uint32(code)))
		if err != nil || !strings.EqualFold(arm64asm.GNUSyntax(got), w[2]) {
			t.Errorf("%s is %s, the comment says %s (%v)", w[1], arm64asm.GNUSyntax(got), w[2], err)
		}
	}
}
