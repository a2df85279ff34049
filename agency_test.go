package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// openTestAgency opens an agency file with this text. Its rejects file is at path.
func openTestAgency(t testing.TB, text, path string) (*agencyFile, *bytes.Buffer) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "agency.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cfg := &config{id: 1, batchMaxAmount: 150, dataFile: name, dataRejects: path, dataSource: "agency.csv",
		maxNumber: 9998}
	a, err := openAgencyFile(cfg, newLogger(&out, 0))
	if err != nil {
		t.Fatalf("%.200q with rejects at %s: %v", text, path, err)
	}
	t.Cleanup(func() { a.file.Close() })
	return a, &out
}

// TestSkip resumes files behind each of their bets, in batches of various sizes:
// what is left to send is the rest of the bets, no more and no less.
func TestSkip(t *testing.T) {
	files := []string{rejectedFile}
	for seed := range uint64(20) {
		files = append(files, mixedFile(rand.New(rand.NewPCG(seed, 1)), 60))
	}
	for _, text := range files {
		a, _ := openTestAgency(t, text, filepath.Join(t.TempDir(), "rejects.csv"))
		bets := betsFrom(t, newBatcher(a.file, 1, 1, 0))
		for _, a.batcher.maxAmount = range []int{1, 2, 7, 150} {
			at := Resume{}
			for n := 0; n <= len(bets); n++ {
				if err := a.skip(context.Background(), at); err != nil {
					t.Fatalf("%q: behind bet %d in batches of %d: %v", text, n, a.batcher.maxAmount, err)
				}
				a.batcher.goOn(a.settled)
				if got, want := strings.Join(betsFrom(t, a.batcher), " "), strings.Join(bets[n:], " "); got != want {
					t.Fatalf("%q: behind bet %d in batches of %d: left to send: got %q, want %q", text, n,
						a.batcher.maxAmount, got, want)
				}
				if n < len(bets) {
					at = at.after(1, []byte(bets[n]))
				}
			}
		}
	}
}

// TestSkipOther has a server whose count or CRC is not of this file.
func TestSkipOther(t *testing.T) {
	a, _ := openTestAgency(t, rejectedFile, filepath.Join(t.TempDir(), "rejects.csv"))
	for _, at := range []Resume{{rejectedBets + 1, 0}, {1 << 63, 0}, {2, 7}} {
		err := a.resume(context.Background(), at, nil)
		if err == nil || !strings.Contains(err.Error(), "it is another file: choose another data.source") {
			t.Errorf("%+v: got %v, want an error that says what to do", at, err)
		}
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err := a.resume(stopped, Resume{1, 0}, nil); err != context.Canceled {
		t.Errorf("after a signal: got %v, want %v", err, context.Canceled)
	}
}

// TestResumeRejects kills clients behind each bet, with each number of answers
// lost before that: the next one, and one that lives on, leave the same rejects.
func TestResumeRejects(t *testing.T) {
	for seed := range uint64(8) {
		text := mixedFile(rand.New(rand.NewPCG(seed, 2)), 30)
		path := filepath.Join(t.TempDir(), "rejects.csv")
		whole, _ := openTestAgency(t, text, path)
		want := sendAll(t, whole, 1<<30)
		bets := betsFrom(t, newBatcher(whole.file, 1, 1, 0))
		for n := range len(bets) + 1 {
			for lost := range min(n, 3) + 1 {
				os.Remove(path)
				first, _ := openTestAgency(t, text, path)
				sendAll(t, first, n-lost)
				at := Resume{}
				for _, bet := range bets[:n] {
					at = at.after(1, []byte(bet))
				}
				next := first
				if seed%2 == 0 {
					next, _ = openTestAgency(t, text, path)
				}
				closeRejects(&first.rejects)
				first.rejects.file = nil
				if err := next.resume(context.Background(), at, nil); err != nil {
					t.Fatal(err)
				}
				if got := sendAll(t, next, 1<<30); got != want {
					t.Fatalf("%q: behind bet %d, %d answers lost: rejects: got %q, want %q", text, n, lost, got, want)
				}
				if got, want := next.refused(), strings.Count(want, "\r\n"); got != want {
					t.Fatalf("%q: behind bet %d: got %d refused in all, want %d", text, n, got, want)
				}
			}
		}
	}
}

// sendAll has most bets answered, one a batch, and returns the rejects file. With
// all it deals with the records behind the last one too.
func sendAll(t *testing.T, a *agencyFile, most int) (rejects string) {
	t.Helper()
	a.batcher.maxAmount = 1
	for ; most > 0; most-- {
		_, s, err := a.batcher.next(nil)
		if err == io.EOF {
			if err := a.settleLast(); err != nil {
				t.Fatal(err)
			}
			break
		}
		ack := Ack{Code: ackStored}
		a.again.each(s, func(_ *record, position int, b *Bet, malformed string) bool {
			if why := a.rule.check(b); malformed == "" && why != accepted {
				ack = Ack{ackRefused, []byte(refusedStatus([]refusedBet{{position, why}}))}
			}
			return true
		})
		if err := a.settle(s, ack); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := os.ReadFile(a.rejects.path)
	return string(text)
}

// mixedFile is an agency file of which about a half is malformed.
func mixedFile(random *rand.Rand, records int) string {
	var text strings.Builder
	for i := range records {
		text.WriteString([]string{
			fmt.Sprintf("Ana,Paz,%d,1999-03-17,7\r\n", i),
			fmt.Sprintf("\"two\nlines\",Paz,%d,1999-03-17,7\r\n", i),
			fmt.Sprintf(",no name,%d,1999-03-17,7\n", i),
			"a,b,c,d\n",
			"Leo,Paz,4,1999-03-17,x\n",
			"stray \"quote,Paz,5,1999-03-17,10\n",
			"\r\n",
		}[random.IntN(7)])
	}
	return text.String()
}

// betsFrom returns the BETs of all batches that a batcher still makes.
func betsFrom(t *testing.T, b *batcher) (bets []string) {
	t.Helper()
	for {
		m, s, err := b.next(nil)
		if err == io.EOF {
			return bets
		}
		if err != nil {
			t.Fatal(err)
		}
		at := batchHead
		for range s.bets {
			var bet Bet
			next, err := parseBet(m, at, &bet)
			if err != nil {
				t.Fatal(err)
			}
			bets = append(bets, string(m[at:next]))
			at = next
		}
	}
}
