package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"tp0/tools/proc"
)

// Redis beside it, where redis-server is installed: a peer that answers once its log is synced
// (appendfsync always). A value of a list is what a batch has, 150 rows; there are as many
// producers as clients, each with as many values unanswered as batch.window says. They are
// goroutines of this process, which read no file and check nothing: that favours Redis.

// redisValue is how many rows a value has.
const redisValue = 150

// findRedis looks for redis-server, and says so where there is none.
func findRedis() (program string) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		fmt.Fprintln(os.Stderr, "redis-server is not installed: its rows are left out")
	}
	return program
}

// redisLoad measures at a window how many rows a second Redis takes, and compares l with it.
func (b *bench) redisLoad(ctx context.Context, window int, l load) error {
	if b.redis == "" {
		return nil
	}
	rate, err := b.fillRedis(ctx, window)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	name := fmt.Sprintf("window %d: Redis, %d bets a value", window, redisValue)
	b.table.add(metric{name: name + ": rate", unit: "M bets/s", digits: 3}, rate/1e6)
	b.table.add(metric{name: name + ": rate against that", digits: 2, goal: 2}, l.rate/rate)
	return nil
}

// fillRedis puts all rows into an empty Redis, and returns rows a second.
func (b *bench) fillRedis(ctx context.Context, window int) (rate float64, err error) {
	rows, err := os.ReadFile(b.data.expected)
	if err != nil {
		return 0, err
	}
	values := valuesOf(rows, redisValue)
	dir, err := filepath.Abs(filepath.Join(b.dir, "redis"))
	if err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	server, err := proc.Start(ctx, filepath.Join(dir, "redis.log"), os.Environ(), b.redis, "--port", port, "--bind",
		"127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--auto-aof-rewrite-percentage", "0")
	defer func() {
		cancel()
		if server != nil {
			<-server.Done
		}
	}()
	if err != nil {
		return 0, err
	}
	producers := make([]net.Conn, b.clients)
	for i := range producers {
		if producers[i], err = dialRedis(server, "127.0.0.1:"+port); err != nil {
			return 0, err
		}
		defer producers[i].Close()
	}
	began, ended := time.Now(), make(chan error, b.clients)
	for i, conn := range producers {
		part := values[i*len(values)/b.clients : (i+1)*len(values)/b.clients]
		go func() { ended <- produce(conn, part, window) }()
	}
	for range producers {
		if err := <-ended; err != nil {
			return 0, err
		}
	}
	return float64(bytes.Count(rows, []byte{'\n'})) / time.Since(began).Seconds(), nil
}

// valuesOf cuts rows into values of n each.
func valuesOf(rows []byte, n int) (values [][]byte) {
	for start, end, count := 0, 0, 0; end < len(rows); {
		end += bytes.IndexByte(rows[end:], '\n') + 1
		if count++; count == n || end == len(rows) {
			values = append(values, rows[start:end])
			start, count = end, 0
		}
	}
	return values
}

// freePort returns a port that was free just now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// dialRedis connects to a server that may be starting.
func dialRedis(server *proc.Process, address string) (net.Conn, error) {
	for end := time.Now().Add(startTimeout); ; time.Sleep(10 * pollPeriod) {
		conn, err := net.Dial("tcp", address)
		if err == nil || server.Ended() || time.Now().After(end) {
			return conn, err
		}
	}
}

// produce appends values to a list, with so many of them unanswered.
func produce(conn net.Conn, values [][]byte, window int) error {
	out, in := bufio.NewWriterSize(conn, 64<<10), bufio.NewReader(conn)
	for sent, answered := 0, 0; answered < len(values); {
		for ; sent < len(values) && sent-answered < window; sent++ {
			fmt.Fprintf(out, "*3\r\n$5\r\nRPUSH\r\n$4\r\nbets\r\n$%d\r\n", len(values[sent]))
			out.Write(values[sent])
			out.WriteString("\r\n")
		}
		if err := out.Flush(); err != nil {
			return err
		}
		for more := true; more; more = in.Buffered() > 0 && answered < sent {
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			if line[0] != ':' {
				return fmt.Errorf("got the answer %q", line)
			}
			answered++
		}
	}
	return nil
}
