package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// startEngines starts three real engines that end with the test, and returns what a server is told
// of them.
func startEngines(t *testing.T, edits ...func(engine int, config string) string) (es *proc.Engines, args []string) {
	t.Helper()
	if _, err := proc.NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	es, err := proc.StartEngines(t.TempDir(), 3, edits...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(es.Kill)
	return es, []string{"-stream.servers=" + es.Servers(), "-stream.user=" + proc.EngineUser,
		"-stream.password=" + proc.EnginePassword}
}

// betsFile returns n rows as a server stores them.
func betsFile(n int) []byte {
	var rows []byte
	for i := range n {
		rows = fmt.Appendf(rows, "%d,Ana María,Paz,%d,2000-01-01,%d\r\n", i%5+1, 10_000_000+i, i%9999)
	}
	return rows
}

// TestE2EReplicate puts a store into a stream, killed again and again on the way.
func TestE2EReplicate(t *testing.T) {
	t.Parallel()
	replicateKilled(t, 3)
}

// TestTortureReplicate kills it KILLS times.
func TestTortureReplicate(t *testing.T) {
	replicateKilled(t, torture.Count(t, "KILLS", 100))
}

// replicateKilled kills mode replicate at moments of its life, then lets it end. Its stream is that
// of the store: the same store goes in once more, one that differs in a byte does not.
func replicateKilled(t *testing.T, kills int) {
	es, stream := startEngines(t)
	dir, args := t.TempDir(), append([]string{"-mode=replicate"}, stream...)
	bets := betsFile(50_000 * min(kills, 100))
	writeFile(t, dir, "bets.csv", string(bets))
	const done = "action: replicate | result: success"
	for i := range kills {
		p := launch(t, dir, "replicate", args...)
		p.waitFor("action: config | result: success", "stream_password: set")
		if i%4 != 0 {
			p.waitFor("action: store | result: success")
		}
		select {
		case <-time.After(time.Duration(rand.IntN(150)) * time.Millisecond):
		case <-p.Done:
		}
		p.kill()
		if len(p.lines(done)) > 0 {
			t.Logf("all is in the stream after %d kills", i)
			break
		}
	}
	p := launch(t, dir, "replicate", args...)
	p.wantExit(exitDone)
	records := field(p.waitFor(done), "records")
	for _, e := range es.All {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			facts, err := e.Stream("TP0")
			if got := fmt.Sprint(facts.State.Messages, " ", facts.State.LastSeq); err == nil && got == records+" "+records {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s: got %s records, %v, want %s", e.Name, got, err, records)
			}
		}
	}
	same, other := t.TempDir(), t.TempDir()
	writeFile(t, same, "bets.csv", string(bets))
	out, errs, status := runProgram(t, same, nil, args...)
	if status != exitDone || !strings.Contains(out, "| records: "+records+" | reason: these it has already") {
		t.Errorf("the same bets: got status %d, %s%s", status, out, errs)
	}
	writeFile(t, other, "bets.csv", strings.Replace(string(bets), "Ana", "Ina", 1))
	_, errs, status = runProgram(t, other, nil, args...)
	wantOneLine(t, "bets that differ", errs, "stream TP0: it has records that this store does not give")
	if status != exitFailed {
		t.Errorf("bets that differ: got status %d, want 1", status)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "bets.csv")); err != nil || !bytes.Equal(got, bets) {
		t.Errorf("the store's bets have changed, or %v", err)
	}
	if out, errs, status := runProgram(t, dir, nil, "-mode=verify"); status != exitDone {
		t.Errorf("verify: got status %d, %s%s", status, out, errs)
	}
	if n, _ := strconv.Atoi(records); n < 2 {
		t.Errorf("got %s records, want some to be killed between", records)
	}
}

// TestE2EReplicateLeaves takes a store out of its stream; one that is in none says so in a line.
func TestE2EReplicateLeaves(t *testing.T) {
	t.Parallel()
	_, stream := startEngines(t)
	dir := t.TempDir()
	writeFile(t, dir, "bets.csv", string(betsFile(100)))
	p := launch(t, dir, "replicate", append([]string{"-mode=replicate"}, stream...)...)
	p.wantExit(exitDone)
	p = launch(t, dir, "leave", "-mode=replicate")
	p.wantExit(exitDone)
	p.waitFor("action: replicate | result: success", "the store is in no stream any more")
	_, errs, status := runProgram(t, dir, nil, "-mode=replicate")
	if wantOneLine(t, "leaving once more", errs, "stream.servers: not set"); status != exitUsage {
		t.Errorf("leaving once more: got status %d, want 2", status)
	}
	server := launch(t, dir, "server", "-mode=server", "-server.host=127.0.0.1", "-server.port=0")
	server.waitFor("action: listen | result: success")
	server.stop()
}

// ask sends the first engine a request, as the servers' user, and returns the answer.
func ask(t *testing.T, es *proc.Engines, subject string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", es.All[0].Listen, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "CONNECT {\"user\":%q,\"pass\":%q}\r\nSUB _INBOX.test 1\r\nPUB %s _INBOX.test 0\r\n\r\n",
		proc.EngineUser, proc.EnginePassword, subject)
	for in := bufio.NewScanner(conn); in.Scan(); {
		if strings.HasPrefix(in.Text(), "MSG ") && in.Scan() {
			return in.Text()
		}
	}
	t.Fatalf("%s: got no answer", subject)
	return ""
}

// TestE2EReplicateHeals loses the stream (TestTortureStreamCut has what a server says to that, after
// 30 s). A new one is made from a store, which has all, and another server follows it from nothing,
// but not with its old store.
func TestE2EReplicateHeals(t *testing.T) {
	t.Parallel()
	es, stream := startEngines(t, func(_ int, config string) string {
		return strings.Replace(config, `"$JS.API.STREAM.CREATE.TP0"`, `"$JS.API.STREAM.CREATE.TP0", "$JS.API.STREAM.DELETE.TP0"`, 1)
	})
	first, second := t.TempDir(), t.TempDir()
	replicate := append([]string{"-mode=replicate"}, stream...)
	start := func(dir string) *process {
		return launch(t, dir, "server", append([]string{"-mode=server", "-server.host=127.0.0.1", "-server.port=0"},
			stream...)...)
	}
	launch(t, first, "replicate", replicate...).wantExit(exitDone)
	server := start(first)
	port := field(server.waitFor("action: listen | result: success"), "port")
	makeLots(t, first, 1, 1000, 8)
	launch(t, first, "client", "-mode=client", "-id=1", "-data.file=agency-1.csv",
		"-server.address=127.0.0.1:"+port).wantExit(exitDone)
	follower := start(second)
	waitForCopy(t, first, second)
	server.stop()
	follower.stop()
	if answer := ask(t, es, "$JS.API.STREAM.DELETE.TP0"); !strings.Contains(answer, `"success":true`) {
		t.Fatalf("deleting the stream: got %s", answer)
	}
	again := launch(t, first, "replicate", replicate...)
	again.wantExit(exitDone)
	again.waitFor("the store leaves the stream that it was in", "have each of them begin with an empty folder")
	server = start(first)
	server.waitFor("action: listen | result: success")
	old := start(second)
	old.wantExit(exitFailed)
	wantOneLine(t, "the old store of another server", old.errs.String(), "bets.csv")
	third := t.TempDir()
	follower = start(third)
	waitForCopy(t, first, third)
	server.stop()
	follower.stop()
}

// waitForCopy waits until the server in folder to has the bets of the one in from.
func waitForCopy(t *testing.T, from, to string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(from, "bets.csv"))
	if err != nil || len(want) == 0 {
		t.Fatalf("got %d bytes of bets, %v", len(want), err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got, err := os.ReadFile(filepath.Join(to, "bets.csv"))
		if bytes.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d bytes, %v, want the other server's %d", len(got), err, len(want))
		}
	}
}
