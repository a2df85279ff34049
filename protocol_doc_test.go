package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"
)

// docBlock finds the blocks of hex in docs/protocol.md: name, further words, contents.
var docBlock = regexp.MustCompile("(?ms)^```hex name=([a-z-]+) ?([a-z0-9=]*)\n(.*?)^```$")

// docBlocks returns the document and its blocks of hex.
func docBlocks(t *testing.T) (text string, blocks [][]string) {
	t.Helper()
	data, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks = docBlock.FindAllStringSubmatch(string(data), -1)
	if marks := strings.Count(string(data), "```hex"); marks != len(blocks) {
		t.Fatalf("got %d blocks of hex that can be read, want %d", len(blocks), marks)
	}
	return string(data), blocks
}

// docWinner is the bet that wins in the document, docRefused one that is refused there, docLast
// the last one.
var (
	docWinner  = rowBet(1, "Ana", "Paz", "27182818", "2000-02-29", 7574)
	docRefused = rowBet(1, "Eva", "Ruiz", "12.345", "1985-06-30", 10)
	docLast    = rowBet(1, "Sol", "Núñez", "31415926", "1970-01-01", 1)
)

// TestProtocolDoc compares the messages of docs/protocol.md with the code.
func TestProtocolDoc(t *testing.T) {
	crc := func(bets ...Bet) (crc uint32) {
		for i := range bets {
			crc = crc32.Update(crc, castagnoli, appendBet(nil, &bets[i]))
		}
		return crc
	}
	all := crc(goldenBet, docWinner, docRefused, docLast)
	want := map[string]any{
		"bet": goldenBet, "batch": Batch{goldenBet, docWinner}, "batch-empty": Batch{},
		"ack-stored": Ack{ackStored, nil}, "ack-winners": Ack{ackWinners, nil},
		"ack-protocol": Ack{ackProtocol, []byte("unknown op 9")},
		"ack-refused":  Ack{ackRefused, []byte(refusedStatus([]refusedBet{{3, badDocument}}))},
		"ack-refused-short": Ack{ackRefused, []byte("#1 " + reasons[emptyFirst].short +
			"; #2 " + reasons[badBirthdate].short)},
		"ack-no-draw":     Ack{ackNoDraw, []byte("the draw has not taken place")},
		"ack-unavailable": Ack{ackUnavailable, []byte(unavailableStatus)},
		"hello":           Hello{helloVersion, 1, []byte("agency-1.csv")}, "resume": Resume{4, all},
		"notify-finished": Notify{1, notifyFinished}, "notify-winners": Notify{1, notifyWinners},
		"winners": Winners{"27182818"}, "winners-none": Winners{},
	}
	text, blocks := docBlocks(t)
	for _, block := range blocks {
		name := block[1]
		value, ok := want[name]
		if delete(want, name); strings.HasPrefix(name, "session-") {
			continue
		}
		m := wireHex(t, block[3])
		got, size, err := wireParse(m)
		if !ok || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", value) ||
			size != len(m) || err != nil || !bytes.Equal(wireEncode(value), m) {
			t.Errorf("%s: got %q, %d of %d bytes, %v, want %q", name, got, size, len(m), err, value)
		}
	}
	for name := range want {
		t.Errorf("%s: got no such block in the document, want one", name)
	}
	if check := crc32.Checksum([]byte("123456789"), castagnoli); check != 0xe3069283 {
		t.Errorf("CRC of 123456789: got %08x, want e3069283", check)
	}
	for _, line := range []string{"crc after the first bet    " + crcText(crc(goldenBet)),
		"crc after the second bet   " + crcText(crc(goldenBet, docWinner)),
		"crc after all four         " + crcText(all)} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("got no line %q in the document, want one", line)
		}
	}
}
