package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"strings"
	"testing"
)

// FuzzMessages: what parses encodes to the same bytes, so no message has two spellings; a
// message depends on its own bytes alone; and 8,192 bytes decide on everything that a server
// takes.
func FuzzMessages(f *testing.F) {
	for _, tt := range goldenMessages {
		f.Add(wireHex(f, tt.hex))
	}
	f.Add(bytes.Repeat([]byte{opBet, 1}, maxMessage/2))
	f.Add(append([]byte{opBatch, 0x02, 0xaa}, bytes.Repeat([]byte{opBet, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 683)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = data[:len(data):len(data)]
		v, size, err := wireParse(data)
		if err != nil {
			serverTakes := len(data) > 0 && (data[0] == opBet || data[0] == opBatch || data[0] == opNotify ||
				data[0] == opHello)
			if err == errShort && serverTakes && len(data) >= maxMessage {
				t.Fatalf("got errShort with %d bytes there, want a decision", len(data))
			}
			return
		}
		if size > len(data) {
			t.Fatalf("got size %d of %d bytes", size, len(data))
		}
		if _, ok := v.(Ack); !ok || size <= maxMessage { // a longer status is another server's: ours are cut
			if got := wireEncode(v); !bytes.HasPrefix(got, data[:size]) || len(got) != size {
				t.Fatalf("got %x, want as parsed %x", got, data[:size])
			}
		}
		again, n, err := wireParse(data[:size:size])
		if fmt.Sprintf("%q", again) != fmt.Sprintf("%q", v) || n != size || err != nil {
			t.Fatalf("without what follows: got %q, %d, %v, want %q, %d", again, n, err, v, size)
		}
		for _, n := range []int{size - 1, size / 2, 1, 0} {
			if _, _, err := wireParse(data[:n:n]); err != errShort {
				t.Fatalf("first %d bytes of %d: got %v, want errShort", n, size, err)
			}
		}
	})
}

// refusedAgain parses a status to its end.
func refusedAgain(t *testing.T, status string) (positions []int, texts []string) {
	t.Helper()
	for rest := status; rest != ""; {
		position, reason, next := parseRefused(rest)
		if len(next) >= len(rest) {
			t.Fatalf("parseRefused(%q) left %q: it would never end", rest, next)
		}
		if position < 0 || position == 0 && (reason != "" || next != "") {
			t.Fatalf("parseRefused(%q): got %d, %q, %q, want a position from 1, "+
				"or nothing", rest, position, reason, next)
		}
		if rest = next; position > 0 {
			positions, texts = append(positions, position), append(texts, reason)
		}
	}
	return positions, texts
}

// TestRefusedStatus has all numbers of refusals that a batch can have, of each reason and mixed.
func TestRefusedStatus(t *testing.T) {
	t.Parallel()
	const most = (maxMessage - batchHead) / minBet // 682
	rnd := rand.New(rand.NewSource(1))
	for why := accepted + 1; why <= refusal(len(reasons)); why++ {
		step := 31
		if why == otherAgency || int(why) == len(reasons) {
			step = 1 // the longest, and mixed
		}
		for n := 1; n <= most; n += step {
			checkRefused(t, rnd, why, n, most)
		}
		checkRefused(t, rnd, why, most, most)
	}
}

// checkRefused checks the status of n refusals at the last positions of most; a refusal that
// there is none of stands for random ones.
func checkRefused(t *testing.T, rnd *rand.Rand, why refusal, n, most int) {
	t.Helper()
	var refused []refusedBet
	long, short := []string{}, []string{}
	for i := range n {
		r := refusedBet{most - n + i + 1, why}
		if int(why) == len(reasons) {
			r.why = 1 + refusal(rnd.Intn(len(reasons)-1))
		}
		refused = append(refused, r)
		long = append(long, fmt.Sprintf("#%d %s", r.position, reasons[r.why].long))
		short = append(short, fmt.Sprintf("#%d %s", r.position, reasons[r.why].short))
	}
	want := strings.Join(long, "; ")
	if len(want) > maxStatus {
		want = strings.Join(short, "; ")
	}
	status := refusedStatus(refused)
	if status != want {
		t.Fatalf("%d of refusal %d: got %.80q…, want %.80q…", n, why, status, want)
	}
	if m := appendAck(nil, ackRefused, status); len(m) > maxMessage || len(m) != 4+len(status) {
		t.Fatalf("%d of refusal %d: got an ACK of %d bytes for a status of %d, want it "+
			"whole in %d", n, why, len(m), len(status), maxMessage)
	}
	positions, texts := refusedAgain(t, status)
	for i, r := range refused {
		if i >= len(positions) || positions[i] != r.position || texts[i] != reasons[r.why].long &&
			texts[i] != reasons[r.why].short {
			t.Fatalf("%d of refusal %d: parsed: got %d entries, entry %d wrong, "+
				"want %d %q", n, why, len(positions), i, r.position, r.why.reason())
		}
	}
}

func TestReasons(t *testing.T) {
	for why, r := range reasons {
		if why > 0 && (r.long == "" || r.short == "" || len(r.short) > 5) || strings.Contains(r.long+r.short, ";") {
			t.Errorf("refusal %d: got %q, %q, want texts without a semicolon, the short one of at "+
				"most 5 bytes", why, r.long, r.short)
		}
	}
}

func TestParseRefused(t *testing.T) {
	tests := []struct {
		status   string
		position int
		reason   string
		rest     string
	}{
		{"", 0, "", ""}, {"full", 0, "", ""}, {"#", 0, "", ""}, {"# x", 0, "", ""}, {"#x 1", 0, "", ""},
		{" #1 x", 0, "", ""},
		{"#0 x", 0, "", ""}, {"#-1 x", 0, "", ""}, {"#+1 x", 0, "", ""}, {"#99999999999999999999 x", 0, "", ""},
		{"#0 x; #1 y", 0, "", ""},
		{"#1", 1, "", ""}, {"#1 ", 1, "", ""}, {"#007 x", 7, "x", ""}, {"#1 x", 1, "x", ""}, {"#1x", 1, "x", ""},
		{"#1  x", 1, " x", ""},
		{"#1 x; y", 1, "x; y", ""}, {"#1 x; #", 1, "x", "#"}, {"#12 x y; #13 z; #14 w", 12, "x y", "#13 z; #14 w"},
		{"#1; #2", 1, "", "#2"}, {"#1 x;#2 y", 1, "x;#2 y", ""}, {"#1 \xff; #2 ñ", 1, "\xff", "#2 ñ"},
		{"#1 ñ; #2 y", 1, "ñ", "#2 y"},
	}
	for _, tt := range tests {
		position, reason, rest := parseRefused(tt.status)
		if position != tt.position || reason != tt.reason || rest != tt.rest {
			t.Errorf("%q: got %d, %q, %q, want "+
				"%d, %q, %q", tt.status, position, reason, rest, tt.position, tt.reason, tt.rest)
		}
	}
}

// FuzzRefused: any status of any server is read to its end; what is in the form of the protocol
// is read as it was meant.
func FuzzRefused(f *testing.F) {
	f.Add("#1 x; #2 y", uint16(682), "date")
	f.Add("#; #; #", uint16(1), "x; y")
	f.Add("#1 \xff; #2", uint16(0), "")
	f.Fuzz(func(t *testing.T, status string, position uint16, reason string) {
		refusedAgain(t, status)
		if position == 0 || strings.Contains(reason+"; ", "; #") || strings.HasSuffix(reason, ";") {
			return
		}
		entry := fmt.Sprintf("#%d %s", position, reason)
		positions, texts := refusedAgain(t, entry+"; "+entry)
		if len(positions) != 2 || positions[0] != int(position) || positions[1] != int(position) ||
			texts[0] != reason ||
			texts[1] != reason {
			t.Fatalf("got %d %q, want %d %q twice", positions, texts, position, reason)
		}
	})
}

// realBatch is a BATCH of 150 bets like those of the real data.
func realBatch(t testing.TB) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := writeSample(&file, 1, 150); err != nil {
		t.Fatal(err)
	}
	m, s, err := newBatcher(bytes.NewReader(file.Bytes()), 1, 150, 0).next(nil)
	if err != nil || s.bets != 150 {
		t.Fatalf("got a batch of %d bets, %v, want 150", s.bets, err)
	}
	return m
}

// TestAllocations: what happens to a bet makes no garbage.
func TestAllocations(t *testing.T) {
	m := realBatch(t)
	var b Bet
	if _, err := parseBet(m, batchHead, &b); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, maxMessage)
	log, queue := newLogger(io.Discard, slog.LevelInfo), newAnswerQueue()
	for name, do := range map[string]func(){
		"parseBatchHead": func() { parseBatchHead(m) },
		"parseBatchBet":  func() { parseBatchBet(m, batchHead, 0, 150, &b) },
		"check":          func() { rule{maxNumber: 9998}.check(&b) },
		"check odd":      func() { rule{maxNumber: 9998}.check(&oddBet) },
		"appendBet":      func() { appendBet(dst, &b) },
		"fastRows":       func() { f := newFastRows(rule{maxNumber: 9998}, b.Agency); f.appendRow(dst, m, batchHead) },
		"appendRow":      func() { appendRow(dst, &b) },
		"appendRow odd":  func() { appendRow(dst, &oddBet) },
		"appendAck":      func() { appendAck(dst, ackStored, "") },
		"parseAck":       func() { parseAck([]byte{opAck, 0, 0, 0}) },
		"logBatch":       func() { logBatch(log, actApuestaRecibida, success, slog.Int("cantidad", 150)) },
		"an answer": func() {
			queue.owe(&answer{bets: 150})
			queue.remove()
		},
	} {
		if got := testing.AllocsPerRun(100, do); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
}

// benchBets calls do for the bets of a real batch, over and over; an operation of the benchmark
// is one bet.
func benchBets(b *testing.B, do func(m []byte, at int, bet *Bet) (next int)) {
	m := realBatch(b)
	var bets [150]Bet
	for i, at := 0, batchHead; at < len(m); i++ {
		at, _ = parseBet(m, at, &bets[i])
	}
	b.ReportAllocs()
	at, i := batchHead, 0
	for b.Loop() {
		if at = do(m, at, &bets[i]); at == len(m) {
			at = batchHead
		}
		if i++; i == len(bets) {
			i = 0
		}
	}
}

func BenchmarkParseBet(b *testing.B) {
	benchBets(b, func(m []byte, at int, bet *Bet) int {
		next, err := parseBatchBet(m, at, 0, 150, bet)
		if err != nil {
			b.Fatal(err)
		}
		return next
	})
}

func BenchmarkCheck(b *testing.B) {
	r := rule{agency: 1, maxNumber: 9999}
	benchBets(b, func(m []byte, at int, bet *Bet) int {
		if why := r.check(bet); why != accepted {
			b.Fatal(why.reason())
		}
		return at
	})
}

func BenchmarkAppendRow(b *testing.B) {
	dst := make([]byte, 0, maxMessage)
	benchBets(b, func(m []byte, at int, bet *Bet) int { appendRow(dst, bet); return at })
}

func BenchmarkEncodeBet(b *testing.B) {
	dst := make([]byte, 0, maxMessage)
	benchBets(b, func(m []byte, at int, bet *Bet) int { appendBet(dst, bet); return at })
}
