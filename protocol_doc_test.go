package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
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

// docWinner is the bet that wins in the document, docRefused one that is refused there, docLast the last one.
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
		"ack-stored": Ack{ackStored, nil}, "ack-winners": Ack{ackWinners, nil}, "ack-protocol": Ack{ackProtocol, []byte("unknown op 9")},
		"ack-refused":       Ack{ackRefused, []byte(refusedStatus([]refusedBet{{3, badDocument}}))},
		"ack-refused-short": Ack{ackRefused, []byte("#1 " + reasons[emptyFirst].short + "; #2 " + reasons[badBirthdate].short)},
		"ack-no-draw":       Ack{ackNoDraw, []byte("the draw has not taken place")}, "ack-unavailable": Ack{ackUnavailable, []byte(unavailableStatus)},
		"hello": Hello{helloVersion, 1, []byte("agency-1.csv")}, "resume": Resume{4, all},
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
		if !ok || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", value) || size != len(m) || err != nil || !bytes.Equal(wireEncode(value), m) {
			t.Errorf("%s: got %q, %d of %d bytes, %v, want %q", name, got, size, len(m), err, value)
		}
	}
	for name := range want {
		t.Errorf("%s: got no such block in the document, want one", name)
	}
	if check := crc32.Checksum([]byte("123456789"), castagnoli); check != 0xe3069283 {
		t.Errorf("CRC of 123456789: got %08x, want e3069283", check)
	}
	for _, line := range []string{"crc after the first bet    " + crcText(crc(goldenBet)), "crc after the second bet   " + crcText(crc(goldenBet, docWinner)),
		"crc after all four         " + crcText(all)} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("got no line %q in the document, want one", line)
		}
	}
}

// TestProtocolDocSessions plays the sessions of docs/protocol.md against a server.
func TestProtocolDocSessions(t *testing.T) {
	_, blocks := docBlocks(t)
	played := 0
	for _, block := range blocks {
		if !strings.HasPrefix(block[1], "session-") {
			continue
		}
		played++
		t.Run(block[1], func(t *testing.T) {
			conn := docServer(t, "-draw."+block[2])
			for line := range strings.Lines(block[3]) {
				m := wireHex(t, line[1:])
				if line[0] == '>' {
					if _, err := conn.Write(m); err != nil {
						t.Fatalf("%s: %v", line, err)
					}
					continue
				}
				got := make([]byte, len(m))
				if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, m) {
					t.Fatalf("got %x, %v, want %x", got, err, m)
				}
			}
			if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil { // each session ends with an ACK 6
				t.Errorf("behind the last answer: got %x, %v, want the connection closed", rest, err)
			}
		})
	}
	if played < 2 {
		t.Errorf("got %d sessions in the document, want 2", played)
	}
}

// docServer starts a server with a store of its own and returns a connection to it. Both end with the test.
func docServer(t *testing.T, args ...string) net.Conn {
	t.Helper()
	folder := t.TempDir()
	empty := filepath.Join(folder, "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(append(args, "-mode=server", "-config="+empty, "-server.host=127.0.0.1", "-server.port=0",
		"-store.path="+filepath.Join(folder, "bets.csv")), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	address, ended := make(addressWriter, 1), make(chan error, 1)
	go func() { ended <- runServer(ctx, cfg, newLogger(address, slog.LevelInfo)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: got %v, want it to end well", err)
		}
	})
	select {
	case at := <-address:
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		return conn
	case err := <-ended:
		ended <- err
		t.Fatalf("the server ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not listen after 30 s")
	}
	return nil
}

// An addressWriter takes a server's log and passes on the address that it listens at.
type addressWriter chan string

func (w addressWriter) Write(line []byte) (int, error) {
	if _, rest, ok := bytes.Cut(line, []byte("action: listen | result: success | address: ")); ok {
		address, _, _ := bytes.Cut(rest, []byte(" "))
		w <- string(address)
	}
	return len(line), nil
}
