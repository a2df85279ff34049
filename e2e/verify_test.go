package e2e

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// verify runs mode verify on the office's store, which must agree, and returns what it prints.
func (o *office) verify(t *testing.T) string {
	t.Helper()
	out, errs, status := runProgram(t, o.dir, nil, "-mode=verify")
	if status != exitDone {
		t.Fatalf("mode verify: got status %d and %s, want 0", status, errs)
	}
	return out
}

// TestE2EVerify verifies a store over and over while bets come, and after the draw: the seal is
// that of the log, and of the file, before and after a restart.
func TestE2EVerify(t *testing.T) {
	t.Parallel()
	samples := func(t *testing.T, dir string) (lots []*lot) {
		for agency := 1; agency <= 3; agency++ {
			lots = append(lots, makeSample(t, dir, agency, 20_000))
		}
		return lots
	}
	for name, lotsOf := range map[string]func(t *testing.T, dir string) []*lot{"sample": samples, "course": realLots} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			lots := lotsOf(t, dir)
			draw := fmt.Sprintf("-draw.agencies=%d", len(lots))
			o := openOffice(t, draw)
			o.verify(t) // of nothing
			var clients []*process
			for _, l := range lots {
				clients = append(clients, o.client(t, dir, l.agency, draw, "-batch.maxAmount=20", "-batch.window=4"))
			}
			for len(o.lines("action: sorteo | result: success")) == 0 {
				o.verify(t)
			}
			for _, c := range clients {
				c.wantExit(exitDone)
			}
			seal := fmt.Sprintf("%x", sha256.Sum256([]byte(o.stored(t))))
			for range 2 {
				o.waitFor("action: sorteo_sello | result: success", "sha256: "+seal)
				got := o.verify(t)
				if !strings.Contains(got, "drawn: 7574 | sha256: "+seal+"\n") {
					t.Errorf("got %s, want the seal %s", got, seal)
				}
				for _, l := range lots {
					bets := len(l.sizes) - len(l.rejects)
					want := fmt.Sprintf("agency: %d | bets: %d | winners: %d\n", l.agency, bets, len(l.winners))
					source := fmt.Sprintf("agency: %d | records: %d | stored: %d | crc: ", l.agency, len(l.sizes), bets)
					if !strings.Contains(got, want) || !strings.Contains(got, source) {
						t.Errorf("got %s, want %s and %s", got, want, source)
					}
				}
				o.kill()
				o.verify(t) // of what a kill leaves: the rows are there, their records in the log
				o.start(t)
			}
			o.stop()
			o.verify(t)
			writeFile(t, o.dir, "bets.csv", strings.Replace(o.stored(t), "a", "e", 1))
			out, errs, status := runProgram(t, o.dir, nil, "-mode=verify")
			if status != exitFailed || out != "" {
				t.Errorf("a byte changed: got status %d and %q, want 1 and nothing", status, out)
			}
			wantOneLine(t, "standard error", errs, "bets.csv: the CRC-32C of its first", "bets.csv.state")
		})
	}
}
