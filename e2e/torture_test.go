package e2e

import (
	"fmt"
	"testing"

	"tp0/tools/torture"
)

// The tests that take as long as they take: `make torture`. Each prints a table of what it did
// and found.

// TestTortureKills kills the server and clients KILLS times each.
func TestTortureKills(t *testing.T) {
	kills := torture.Count(t, "KILLS", 2000)
	var sum siegeCount
	for seed := uint64(100); sum.serverKills < kills && !t.Failed(); seed++ {
		t.Run(fmt.Sprintf("siege %d", seed), func(t *testing.T) {
			done := besiege(t, seed, 4000, min(40, kills))
			sum.serverKills += done.serverKills
			sum.recoveryKills += done.recoveryKills
			sum.clientKills += done.clientKills
			sum.rounds += done.rounds
			sum.rows += done.rows
			sum.rejects += done.rejects
		})
	}
	fmt.Printf("kill -9 of the server        %9d\nkill -9 while it recovered   %9d\nkill -9 of a client          %9d\n",
		sum.serverKills, sum.recoveryKills, sum.clientKills)
	fmt.Printf("files sent to their end      %9d\nrows stored, compared        %9d\nrecords rejected, compared   %9d\n",
		sum.rounds, sum.rows, sum.rejects)
	fmt.Printf("lost, twice, out of order    %9s\n", verdict(t))
}

// verdict is what a torture found: it fails at the first finding.
func verdict(t *testing.T) string {
	if t.Failed() {
		return "FOUND"
	}
	return "0"
}

// TestTortureProxy sends PROXY batches through a bad network at each of several rates of lost
// answers.
func TestTortureProxy(t *testing.T) {
	batches := torture.Count(t, "PROXY", 100_000)
	fmt.Printf("%-8s%10s%12s%10s%10s%13s%10s\n", "lost", "window", "batches", "answers", "lost", "connections", "found")
	for _, lose := range []float64{0.01, 0.10, 0.50} {
		for _, window := range []int{1, 32} {
			t.Run(fmt.Sprintf("%v lost, window %d", lose, window), func(t *testing.T) {
				const amount = 4
				records := batches / 6 * amount / 5 // three rates, two windows, five clients
				done := sendThrough(t, records, lose, 0, 0, fmt.Sprintf("-batch.maxAmount=%d", amount),
					fmt.Sprintf("-batch.window=%d", window))
				fmt.Printf("%-8.0f%10d%12d%10d%10d%13d%10s\n", 100*lose, window, records/amount*5, done.answers,
					done.lost, done.connections, verdict(t))
			})
		}
	}
}
