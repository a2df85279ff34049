package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"tp0/tools/proc"
)

const (
	// perAgency is how many connections one agency may have at most.
	perAgency = 32
	// handshakes is how many are made to measure how long one takes, by greeters at a time.
	handshakes, greeters = 2000, 4
	// calmTime is how long connections have been idle when their memory is measured.
	calmTime = 6 * time.Second
)

// What connections with keys cost, beside those without.
var (
	handshakeRate = metric{name: "TLS: connections made, one message each", unit: "1/s", digits: 0}
	idleTLS       = metric{name: "TLS: 1,000 idle connections: each", unit: "KiB", digits: 1}.atMost(40, 0)
	workedTLS     = metric{name: "TLS: the same, after 64 KiB each", unit: "KiB", digits: 1}.atMost(40, 0)
)

// A keyed load is one of these windows.
func isKeyed(window int) bool { return window == 1 || window == 32 }

// makeKeys makes the keys of a server and of as many agencies as there are clients, or as 1,000
// connections need. A program that has no keys leaves their rows out.
func (b *bench) makeKeys(ctx context.Context) error {
	program, err := filepath.Abs(b.program)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "-mode=keys",
		"-agencies="+strconv.Itoa(max(b.clients, idleConnections/perAgency+1)))
	cmd.Dir = b.dir
	if cmd.Run() == nil {
		b.keys = filepath.Join(b.dir, "keys")
	}
	return ctx.Err()
}

// withKeys adds the settings of TLS to a process's arguments, where a load is measured with it.
func (b *bench) withKeys(file string, args ...string) []string {
	if b.keyed {
		args = append(args, "-tls.cert="+filepath.Join(b.keys, file), "-tls.known="+filepath.Join(b.keys, "known"))
	}
	return args
}

// keyedLoad is load with TLS.
func (b *bench) keyedLoad(ctx context.Context, window int, plain load) error {
	if b.keys == "" || !isKeyed(window) {
		return nil
	}
	b.keyed = true
	defer func() { b.keyed = false }()
	l, err := b.load(ctx, b.data, window)
	if err != nil {
		return fmt.Errorf("window %d with TLS: %w", window, err)
	}
	row := func(name, unit string) metric {
		return metric{name: fmt.Sprintf("TLS, window %d: %s", window, name), unit: unit, digits: 3}
	}
	of := row("rate of that without", "")
	if window == 32 {
		of.goal = 0.6
	}
	b.table.add(row("rate", "M bets/s"), l.rate/1e6)
	b.table.add(of, l.rate/plain.rate)
	b.table.add(row("server CPU", "µs/bet"), l.serverCPU)
	b.table.add(row("client CPU", "µs/bet"), l.clientCPU)
	return nil
}

// greetings measures connections with keys: how many are made in a second, and the memory of
// those that say nothing more.
func (b *bench) greetings(ctx context.Context) error {
	if b.keys == "" {
		return nil
	}
	b.keyed = true
	defer func() { b.keyed = false }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var all sync.WaitGroup
	errs := make([]error, greeters)
	for i := range greeters {
		all.Add(1)
		go func() {
			defer all.Done()
			for range handshakes / greeters {
				c, err := b.greet(srv.address, i+1)
				if err != nil {
					errs[i] = err
					return
				}
				c.Close()
			}
		}()
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b.table.add(handshakeRate, handshakes/time.Since(began).Seconds())
	if err := errors.Join(srv.Stop(), srv.drop()); err != nil {
		return err
	}
	return b.idleWithKeys(ctx)
}

// idleWithKeys is idle for connections with keys: once before they have sent anything, and once
// after each has sent 64 KiB of batches and all are idle again.
func (b *bench) idleWithKeys(ctx context.Context) error {
	srv, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	first, err := b.greet(srv.address, idleConnections/perAgency+1)
	if err != nil {
		return err
	}
	defer first.Close()
	// What any work takes is the server's, and no connection's.
	if err := sendBatches(first, idleConnections/perAgency+1); err != nil {
		return err
	}
	time.Sleep(calmTime)
	before, known := proc.Memory(srv.Cmd.Process.Pid, "VmRSS")
	each := func(m metric) {
		if now, _ := proc.Memory(srv.Cmd.Process.Pid, "VmRSS"); known {
			b.table.add(m, float64(now-before)/1024/idleConnections)
		}
	}
	var conns []*tls.Conn
	for i := range idleConnections {
		c, err := b.greet(srv.address, i/perAgency+1)
		if err != nil {
			return err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	each(idleTLS)
	for i, c := range conns {
		if err := sendBatches(c, i/perAgency+1); err != nil {
			return err
		}
	}
	time.Sleep(calmTime)
	each(workedTLS)
	return errors.Join(srv.Stop(), srv.drop())
}

// sendBatches sends 64 KiB of an agency's bets in batches, in records of 15 KiB as the program's
// clients do, and waits for the answers.
func sendBatches(c *tls.Conn, agency int) error {
	bet := []byte{1, byte(agency)}
	for _, text := range []string{"Santiago Lionel", "Lorca", "30904465", "1999-03-17"} {
		bet = append(binary.BigEndian.AppendUint16(bet, uint16(len(text))), text...)
	}
	bet = binary.BigEndian.AppendUint16(bet, 7574)
	const bets, batches = 160, 8
	batch := append([]byte{3, 0, bets}, bytes.Repeat(bet, bets)...)
	for part := range slices.Chunk(bytes.Repeat(batch, batches), 15<<10) {
		if _, err := c.Write(part); err != nil {
			return err
		}
	}
	answers := make([]byte, 4*batches)
	if _, err := io.ReadFull(c, answers); err != nil ||
		!bytes.Equal(answers, bytes.Repeat([]byte{2, 0, 0, 0}, batches)) {
		return fmt.Errorf("batches over TLS: got answers %x and %v", answers, err)
	}
	return nil
}

// greet connects as an agency, and asks for health.
func (b *bench) greet(address string, agency int) (net *tls.Conn, err error) {
	path := filepath.Join(b.keys, fmt.Sprintf("agency-%d.pem", agency))
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return nil, err
	}
	pair.Certificate = pair.Certificate[:1] // the others are the servers'
	c, err := tls.Dial("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	answer := make([]byte, 4)
	if _, err = c.Write([]byte{3, 0, 0}); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	return c, err
}
