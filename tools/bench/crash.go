package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"tp0/tools/proc"
)

const (
	// idleConnections is how many connections say nothing.
	idleConnections = 1000
	// logToRecover is how many bytes of rows are in the log when the server is killed: a little
	// less than what makes it write a checkpoint.
	logToRecover = 15 << 20
)

// idle measures the memory of a server that has nothing to do, and what each connection adds that
// says nothing.
func (b *bench) idle(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	before, known := proc.Memory(srv.Cmd.Process.Pid, "VmRSS")
	if !known {
		return errors.Join(srv.Stop(), srv.drop()) // the table then has no such rows, and says so
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range idleConnections {
		c, err := net.Dial("tcp", srv.address)
		if err != nil {
			return err
		}
		conns = append(conns, c)
	}
	if err := srv.awaitAccepted(idleConnections); err != nil {
		return err
	}
	after, _ := proc.Memory(srv.Cmd.Process.Pid, "VmRSS")
	b.table.add(idleRSS, float64(before)/mebi)
	b.table.add(idleConnection, float64(after-before)/1024/idleConnections)
	b.table.add(startTime, srv.ready.Seconds()*1e3)
	return errors.Join(srv.Stop(), srv.drop())
}

// awaitAccepted waits until the server has accepted n connections, by its log.
func (s *server) awaitAccepted(n int) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(10 * pollPeriod) {
		text, err := os.ReadFile(s.Log)
		if err != nil {
			return err
		}
		if bytes.Count(text, []byte("action: accept_connections | result: success")) >= n {
			return nil
		}
	}
	return fmt.Errorf("the server has not accepted %d connections within %v", n, startTimeout)
}

// recovery kills the server when its log is full, and starts it again.
func (b *bench) recovery(ctx context.Context) error {
	dir, err := b.crash(ctx)
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	srv, err := b.restartServer(ctx, dir)
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	if err := srv.Stop(); err != nil {
		return err
	}
	replayed, err := srv.findNumber("recover", "bytes")
	if err != nil {
		if replayed, err = srv.findNumber("recuperar", "bytes"); err != nil { // versions before this one
			return err
		}
	}
	rate := replayed / 1e6 / srv.ready.Seconds()
	b.table.add(recoveryTime, srv.ready.Seconds()*1e3)
	b.table.add(recoveredLog, replayed/1e6)
	b.table.add(recoveryRate, rate)
	b.table.add(recoveryOfLimit, rate/b.table.median(limitBytes))
	return srv.drop()
}

// crash kills a server and its clients in the middle of a load, and returns the folder of the
// store.
func (b *bench) crash(ctx context.Context) (dir string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	srv, err := b.startServer(ctx)
	if err != nil {
		cancel()
		return "", err
	}
	clients, err := b.startClients(ctx, srv, b.data, 64)
	defer func() {
		cancel()
		for _, c := range append(clients, srv.process) {
			<-c.Done
		}
	}()
	if err != nil {
		return "", err
	}
	enough := min(logToRecover, b.data.want.bytes/2)
	for {
		info, err := os.Stat(srv.bets())
		if err != nil {
			return "", err
		}
		if info.Size() >= enough {
			srv.Kill()
			return srv.dir, nil
		}
		select {
		case <-srv.Done:
			return "", errors.Join(errors.New("the server ended before it was killed"), srv.Wait())
		case <-time.After(pollPeriod):
		}
	}
}
