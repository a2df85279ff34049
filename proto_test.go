package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// wireHex reads bytes in hex; white space and what stands behind a # do not count.
func wireHex(t testing.TB, text string) []byte {
	t.Helper()
	digits := ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits += strings.Join(strings.Fields(line), "")
	}
	m, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}

// A Batch and a Winners are what the tests read a BATCH and a WINNERS into; the program itself
// never holds one whole.
type (
	Batch   []Bet
	Winners []string
)

// wireParse reads the message that m starts with, of whichever kind.
func wireParse(m []byte) (v any, size int, err error) {
	if len(m) == 0 {
		return nil, 0, errShort
	}
	switch m[0] {
	case opBet:
		var b Bet
		size, err = parseBet(m, 0, &b)
		return b, size, err
	case opAck:
		return anyMessage(parseAck(m))
	case opBatch:
		return wireParseBatch(m)
	case opNotify:
		return anyMessage(parseNotify(m))
	case opWinners:
		return wireParseWinners(m)
	case opHello:
		return anyMessage(parseHello(m))
	case opResume:
		return anyMessage(parseResume(m))
	}
	return nil, 0, protocolErrorf("unknown op %d", m[0])
}

func anyMessage[T any](v T, size int, err error) (any, int, error) { return v, size, err }

func wireParseBatch(m []byte) (v any, size int, err error) {
	count, err := parseBatchHead(m)
	if err != nil {
		return nil, 0, err
	}
	batch, at := Batch{}, batchHead
	for i := range count {
		var b Bet
		if at, err = parseBatchBet(m, at, i, count, &b); err != nil {
			return nil, 0, err
		}
		batch = append(batch, b)
	}
	return batch, at, nil
}

func wireParseWinners(m []byte) (v any, size int, err error) {
	count, size, err := parseWinnersHead(m)
	documents := Winners{}
	for range count {
		var s []byte
		if s, size, err = parseString(m, size, maxReply); err != nil {
			return nil, 0, err
		}
		documents = append(documents, string(s))
	}
	return documents, size, err
}

// wireEncode is the reverse of wireParse.
func wireEncode(v any) (m []byte) {
	switch v := v.(type) {
	case Bet:
		return appendBet(nil, &v)
	case Ack:
		return appendAck(nil, v.Code, string(v.Status))
	case Batch:
		m = appendBatchHead(nil, len(v))
		for i := range v {
			m = appendBet(m, &v[i])
		}
		return m
	case Notify:
		return appendNotify(nil, v)
	case Winners:
		m = appendWinnersHead(nil, len(v))
		for _, document := range v {
			m = appendString(m, document)
		}
		return m
	case Hello:
		return appendHello(nil, v)
	}
	return appendResume(nil, v.(Resume))
}

// goldenBet and oddBet are bets of the golden messages: one as all are, one as few are.
var (
	goldenBet = Bet{1, []byte("Santiago Lionel"), []byte("Lorca"), []byte("30904465"), []byte("1999-03-17"), 2201}
	oddBet    = Bet{255, []byte("Agustín"), []byte(`Núñez, de la "O"`), []byte("1"), []byte("0001-01-01"), 65535}
)

const (
	goldenBetHex = `01 01  000f 53616e746961676f204c696f6e656c  0005 4c6f726361  ` +
		`0008 3330393034343635  000a 313939392d30332d3137  0899`
	oddBetHex = `01 ff  0008 41677573 74c3ad6e  0012 4ec3bac3b1657a2c206465206c6120224f22  ` +
		`0001 31  000a 303030312d30312d3031  ffff`
)

// goldenMessages has every kind of message, its bytes and its value.
var goldenMessages = []struct {
	name, hex string
	value     any
}{
	{"BET", goldenBetHex, goldenBet},
	{"BET with accents, comma, quotes", oddBetHex, oddBet},
	{"BET of nothing", "01 00 0000 0000 0000 0000 0000", Bet{}},
	{"ACK stored", "02 00 0000", Ack{ackStored, nil}},
	{"ACK refused", "02 01 0021 233220646f63756d656e74206973206e6f74203120746f20313020646967697473",
		Ack{ackRefused, []byte("#2 document is not 1 to 10 digits")}},
	{"ACK no draw", "02 03 001c 746865206472617720686173206e6f742074616b656e20706c616365",
		Ack{ackNoDraw, []byte("the draw has not taken place")}},
	{"ACK winners", "02 04 0000", Ack{ackWinners, nil}},
	{"ACK unavailable", "02 05 0009 74727920616761696e", Ack{ackUnavailable, []byte("try again")}},
	{"ACK protocol", "02 06 000c 756e6b6e6f776e206f702039", Ack{ackProtocol, []byte("unknown op 9")}},
	{"ACK of another server", "02 c8 0002 c3b1", Ack{200, []byte("ñ")}},
	{"BATCH of none", "03 0000", Batch{}},
	{"BATCH", "03 0002" + goldenBetHex + oddBetHex, Batch{goldenBet, oddBet}},
	{"NOTIFY finished", "04 07 00", Notify{7, notifyFinished}},
	{"NOTIFY winners", "04 ff 01", Notify{255, notifyWinners}},
	{"WINNERS of none", "05 0000", Winners{}},
	{"WINNERS", "05 0002 0008 3330393034343635 0001 31", Winners{"30904465", "1"}},
	{"HELLO", "06 01 05 000c 6167656e63792d352e637376", Hello{1, 5, []byte("agency-5.csv")}},
	{"HELLO beyond ASCII", "06 01 ff 0002 c3b1", Hello{1, 255, []byte("ñ")}},
	{"RESUME of none", "07 0000000000000000 00000000", Resume{}},
	{"RESUME", "07 0000000000006938 deadbeef", Resume{26936, 0xdeadbeef}},
	{"RESUME of most", "07 ffffffffffffffff ffffffff", Resume{1<<64 - 1, 1<<32 - 1}},
}

func TestGoldenMessages(t *testing.T) {
	for _, tt := range goldenMessages {
		m := wireHex(t, tt.hex)
		if got := wireEncode(tt.value); !bytes.Equal(got, m) {
			t.Errorf("%s: encoded: got %x, want %x", tt.name, got, m)
		}
		for _, behind := range []string{"", "\x00", "\x01\xff\xff", strings.Repeat("\xff", 100)} {
			got, size, err := wireParse(append(bytes.Clone(m), behind...))
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.value) || size != len(m) || err != nil {
				t.Errorf("%s, then %x: parsed: got %q, %d, %v, "+
					"want %q, %d", tt.name, behind, got, size, err, tt.value, len(m))
			}
		}
		for n := range len(m) {
			if _, _, err := wireParse(m[:n:n]); err != errShort {
				t.Errorf("%s: its first %d bytes: got %v, want errShort", tt.name, n, err)
			}
		}
		if b, ok := tt.value.(Bet); ok && betSize(&b) != len(m) {
			t.Errorf("%s: betSize: got %d, want %d", tt.name, betSize(&b), len(m))
		}
	}
}

// zeros is so many bytes in hex.
func zeros(n int) string { return strings.Repeat("00", n) }

func TestMessageLimits(t *testing.T) {
	const long, short = "message is longer than 8192 bytes", "the message goes on"
	const badSource = "HELLO with a source that is not 1 to 255 bytes of UTF-8"
	text := func(n int) string { return fmt.Sprintf("%04x", n) + strings.Repeat("61", n) }
	tests := []struct{ name, hex, want string }{
		{"BET of 8192 bytes", "0101" + text(4000) + text(4180) + text(0) + text(0) + "0000", ""},
		{"BET of 8193 bytes, but its last", "0101" + text(4000) + text(4181) + text(0) + text(0) + "00", long},
		{"BET of 8193 bytes", "0101" + text(4000) + text(4181) + text(0) + text(0) + "0000", long},
		{"BET of 20012 bytes", "0101" + text(5000) + text(5000) + text(5000) + text(5000) + "0000", long},
		{"BATCH of 8193 bytes", "030002 01" + zeros(11) + "0101" + text(4000) + text(4166) + text(0) + text(0) + "0000",
			long},
		{"HELLO of 8193 bytes", "060101" + text(8188), long},
		{"its strings end at 8192", "0101" + text(4000) + text(4182) + text(0) + text(0), long},
		{"first name ends at 8192", "0101 1ffc", short},
		{"first name runs past", "0101 1ffd", long},
		{"first name of 65535", "0101 ffff", long},
		{"last name runs past", "0101 0000 1ffb", long},
		{"document runs past", "0101 0000 0000 1ff9", long},
		{"birthdate runs past", "0101 0000 0000 0000 1ff7", long},
		{"birthdate ends at 8190", "0101 0000 0000 0000" + text(8180), short},
		{"birthdate ends at 8190, number", "0101 0000 0000 0000" + text(8180) + "0000", ""},
		{"BATCH of one bet of 8189", "030001 0101" + text(4000) + text(4177) + text(0) + text(0) + "0000", ""},
		{"BATCH of one bet of 8190", "030001 0101" + text(4000) + text(4178), short},
		{"BATCH of one bet of 8190, its " +
			"document", "030001 0101" + text(4000) + text(4178) + text(0) + text(0) + "00", long},
		{"BATCH, first name runs past", "030001 0101 1ffa", long},
		{"BATCH of 682", "0302aa", short},
		{"BATCH of 682 empty bets", "0302aa" + strings.Repeat("01"+zeros(11), 682), ""},
		{"BATCH of 683", "0302ab", "count does not match: 683 bets cannot fit in 8192 bytes"},
		{"BATCH of 65535", "03ffff", "count does not match: 65535 bets cannot fit in 8192 bytes"},
		{"BATCH, first op wrong", "030002 02", "count does not match: op 2 where bet 1 of 2 should start"},
		{"BATCH, second op wrong", "030002 01" + zeros(11) + "03", "count does not match: op 3 where bet 2 of 2 " +
			"should start"},
		{"BATCH, no room for the " +
			"last bet", "0302aa" + strings.Repeat("01"+zeros(11), 680) + "01010006" + zeros(6+8), long},
		{"HELLO of version 0", "060001", "HELLO of version 0: this server knows version 1"},
		{"HELLO of version 2", "060201", "HELLO of version 2: this server knows version 1"},
		{"HELLO of agency 0", "060100", "HELLO of agency 0: agencies are 1 to 255"},
		{"HELLO, source of 0", "060101 0000", badSource},
		{"HELLO, source of 1", "060101" + text(1), ""},
		{"HELLO, source of 255", "060101" + text(255), ""},
		{"HELLO, source of 256", "060101" + text(256), badSource},
		{"HELLO, source of 8187", "060101" + text(8187), badSource},
		{"HELLO, source of 8188", "060101 1ffc", long},
		{"HELLO, source of half a character", "060101 0001 c3", badSource},
		{"HELLO, source of a surrogate", "060101 0003 eda080", badSource},
		{"NOTIFY of agency 0", "040000", "NOTIFY of agency 0: agencies are 1 to 255"},
		{"NOTIFY of kind 2", "040102", "NOTIFY of unknown kind 2"},
		{"NOTIFY of kind 255", "0401ff", "NOTIFY of unknown kind 255"},
		{"ACK of the longest status", "0200" + text(65535), ""},
		{"ACK, status but its last byte", "0200 ffff" + zeros(65534), short},
	}
	for _, tt := range tests {
		m := wireHex(t, tt.hex)
		_, size, err := wireParse(m)
		var protocol *protocolError
		got := ""
		if err != nil {
			got = strings.TrimPrefix(err.Error(), "proto: ")
		}
		if got != tt.want || (err == nil) != (size == len(m)) ||
			(err != nil && err != errShort) != errors.As(err, &protocol) {
			t.Errorf("%s: got size %d, %T %q, want %q (%d bytes)", tt.name, size, err, got, tt.want, len(m))
		}
	}
}

// TestReplyOps has messages that stand where a reply of another kind should.
func TestReplyOps(t *testing.T) {
	if _, _, err := parseAck([]byte{opWinners, 0}); err == nil || err.Error() != "op 5 where an ACK should be" {
		t.Errorf("got %v, want op 5 where an ACK should be", err)
	}
	if _, _, err := parseWinnersHead([]byte{opAck, 0, 0}); err == nil || err.Error() != "op 2 where WINNERS should be" {
		t.Errorf("got %v, want op 2 where WINNERS should be", err)
	}
}

func TestAckStatusLimit(t *testing.T) {
	for _, char := range []string{"a", "ñ", "漢", "😀"} {
		for before := range 5 {
			for _, size := range []int{maxStatus - 1, maxStatus, maxStatus + 1, maxStatus + 2, maxStatus + 3,
				maxStatus + 4,
				70000} {
				status := strings.Repeat("x", before) + strings.Repeat(char, (size-before)/len(char))
				m := appendAck(nil, ackProtocol, status)
				ack, n, err := parseAck(m)
				got := string(ack.Status)
				if err != nil || n != len(m) || n > maxMessage || !utf8.ValidString(got) ||
					!strings.HasPrefix(status, got) {
					t.Fatalf("%q × %d: got %d of %d bytes, %v, want a whole ACK with the "+
						"status's start", char, size, n, len(m), err)
				}
				if most := min(len(status), maxStatus-len(char)+1); len(got) < most {
					t.Errorf("%q × %d: got %d bytes of the status, want at least %d", char, size, len(got), most)
				}
			}
		}
	}
}
