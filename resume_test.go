package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSkip resumes files behind each of their bets, in batches of various sizes: what is left to send is the rest of the bets, no more and no less.
func TestSkip(t *testing.T) {
	files := []string{rejectedFile}
	for seed := range uint64(20) {
		files = append(files, mixedFile(rand.New(rand.NewPCG(seed, 1)), 60))
	}
	for _, text := range files {
		path := filepath.Join(t.TempDir(), "agency.csv")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		file, size, err := openAgencyFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		bets := betsFrom(t, newBatcher(file, 1, 1))
		for _, amount := range []int{1, 2, 7, 150} {
			at := Resume{}
			for n := 0; n <= len(bets); n++ {
				cfg := &config{id: 1, batchMaxAmount: amount, dataFile: path, dataRejects: filepath.Join(t.TempDir(), "rejects.csv"), maxNumber: 9998}
				c := newClient(cfg, quiet, nil, file, size)
				c.ctx = context.Background()
				if err := c.skip(at); err != nil {
					t.Fatalf("%q: behind bet %d in batches of %d: %v", text, n, amount, err)
				}
				if got, want := strings.Join(betsFrom(t, c.batcher), " "), strings.Join(bets[n:], " "); got != want {
					t.Fatalf("%q: behind bet %d in batches of %d: left to send: got %q, want %q", text, n, amount, got, want)
				}
				c.rejects.close()
				if n < len(bets) {
					at = Resume{at.Records + 1, crc32.Update(at.CRC, castagnoli, []byte(bets[n]))}
				}
			}
		}
	}
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
