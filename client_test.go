package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestVerifiedOnce has a client go through several sessions with its whole file sent, as one does
// that waits for the draw: that the server has all is said once, and again where the server had
// lost bets and they were sent again.
func TestVerifiedOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agency-1.csv")
	rows := "Ana,Paz,12345678,2000-01-01,7\nLuz,Paz,12345679,2000-01-01,8\n"
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := &logLines{}
	cfg := &config{id: 1, dataFile: path, dataRejects: path + ".rejected", dataSource: "agency-1.csv", resume: true,
		batchMaxAmount: 10, batchWindow: 2, maxNumber: 9998, connIdle: time.Minute, connMax: 2}
	var err error
	c := &client{cfg: cfg, log: newLogger(lines, slog.LevelInfo), window: newWindow(1)}
	if c.retry, err = newRetry(cfg, c.log); err != nil {
		t.Fatal(err)
	}
	if c.file, err = openAgencyFile(cfg, c.log); err != nil {
		t.Fatal(err)
	}
	defer c.close(false)
	c.bar = newProgress(os.Stderr, c.file.size)
	for said := 1; said <= 2; said++ {
		s := openTest(t, newSimDisk(), testOptions()) // the second one has lost all
		srv := newServer(cfg, s, newCounts(), quiet)
		if srv.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		srv.ended.Go(srv.serve)
		c.retry.addresses = []string{srv.listener.Addr().String()}
		for range 3 {
			if err := c.session(context.Background()); err != nil {
				t.Fatal(err)
			}
			const line = "action: verify | result: success | apuestas: 2 "
			if got := strings.Count(string(lines.text), line); got != said {
				t.Errorf("server %d: said %d times, want %d:\n%s", said, got, said, lines.text)
			}
		}
		srv.shutdown()
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Count(string(lines.text), "| lost: 2 |"); got != 1 {
		t.Errorf("got %d lines that bets were lost, want 1", got)
	}
}
