package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// A small client of the bench's own: it knows when a batch left and when its answer came, which
// tp0's log does not tell.

const (
	batchBets  = 150  // of a batch at most
	batchBytes = 8192 // of a message at most
	batchHead  = 3    // op and count
)

// answerTimes measures the time from a batch's write to its answer with one batch in flight on
// each of CLIENTS connections.
func (b *bench) answerTimes(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	times := make([][]time.Duration, len(b.data.files))
	errs := make([]error, len(b.data.files))
	var all sync.WaitGroup
	for i, file := range b.data.files {
		all.Add(1)
		go func() {
			defer all.Done()
			times[i], errs[i] = ask(srv.address, i+1, file)
		}()
	}
	all.Wait()
	if err := errors.Join(append(errs, srv.Stop())...); err != nil {
		return fmt.Errorf("answer times: %w", err)
	}
	if err := b.data.check(srv.bets()); err != nil {
		return err
	}
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	p50, p99 := quantile(sorted, 0.50), quantile(sorted, 0.99)
	b.table.add(answerP50, p50.Seconds()*1e3)
	b.table.add(answerP99, p99.Seconds()*1e3)
	b.table.add(answerSpread, float64(p99)/float64(p50))
	return srv.drop()
}

// quantile returns the value below which a part of sorted lies.
func quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}

// ask sends an agency file a batch at a time and returns how long each answer took.
func ask(address string, agency int, file string) (times []time.Duration, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	if err := hello(conn, answers, agency); err != nil {
		return nil, err
	}
	send := func(batch []byte) error {
		began := time.Now()
		if _, err := conn.Write(batch); err != nil {
			return err
		}
		err := readAck(answers)
		times = append(times, time.Since(began))
		return err
	}
	times = make([]time.Duration, 0, 64<<10)
	var p packer
	err = eachLine(file, func(line []byte) error {
		full, err := p.add(agency, line)
		if err != nil || full == nil {
			return err
		}
		return send(full)
	})
	if err == nil && p.count > 0 {
		err = send(p.take())
	}
	return times, err
}

// hello opens a connection as tp0's client does: the server then also keeps account of the file.
func hello(conn net.Conn, answers *bufio.Reader, agency int) error {
	source := "bench"
	m := append([]byte{6, 1, byte(agency), 0, byte(len(source))}, source...)
	if _, err := conn.Write(m); err != nil {
		return err
	}
	var resume [13]byte
	if _, err := io.ReadFull(answers, resume[:]); err != nil {
		return err
	}
	if resume[0] != 7 {
		return fmt.Errorf("got op %d, want RESUME", resume[0])
	}
	return nil
}

// readAck reads the answer to a batch; only ACK 0, and ACK 1 for numbers that are too high, are
// in order.
func readAck(answers *bufio.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(answers, head[:]); err != nil {
		return err
	}
	if _, err := answers.Discard(int(binary.BigEndian.Uint16(head[2:]))); err != nil {
		return err
	}
	if head[0] != 2 || head[1] > 1 {
		return fmt.Errorf("got op %d, response %d, want ACK 0 or 1", head[0], head[1])
	}
	return nil
}

// A packer makes batches as tp0's client does: full by the count of bets or by the bytes.
type packer struct {
	batch []byte // the one that fills
	count int    // of its bets
	full  []byte // the one before
	bet   []byte // of the line in hand
}

// add adds the bet in a line of an agency file, and returns the batch that had no room for it or
// is full with it, if so; it is valid until the next one.
func (p *packer) add(agency int, line []byte) (full []byte, err error) {
	// Nothing here makes garbage: the collector's work would be seen in the times.
	bet, err := appendBet(p.bet[:0], agency, line)
	if err != nil {
		return nil, err
	}
	p.bet = bet
	if p.count > 0 && (p.count == batchBets || len(p.batch)+len(bet) > batchBytes) {
		full = p.take()
	}
	if p.count == 0 {
		p.batch = append(p.batch[:0], make([]byte, batchHead)...)
	}
	p.batch = append(p.batch, bet...)
	p.count++
	return full, nil
}

// take returns the batch that fills and begins another.
func (p *packer) take() []byte {
	p.batch[0] = 3
	binary.BigEndian.PutUint16(p.batch[1:], uint16(p.count))
	p.batch, p.full, p.count = p.full, p.batch, 0
	return p.full
}

// appendBet appends the BET of a line without quotes.
func appendBet(dst []byte, agency int, line []byte) ([]byte, error) {
	rest := bytes.TrimRight(line, "\r\n")
	dst = append(dst, 1, byte(agency))
	for i := range 4 {
		field, behind, found := bytes.Cut(rest, []byte(","))
		if !found {
			return nil, fmt.Errorf("got %d fields, want 5: %q", i+1, line)
		}
		dst = append(binary.BigEndian.AppendUint16(dst, uint16(len(field))), field...)
		rest = behind
	}
	number, err := strconv.ParseUint(string(rest), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("the last of 5 fields: %w", err)
	}
	return binary.BigEndian.AppendUint16(dst, uint16(number)), nil
}
