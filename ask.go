package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"
)

// What a client asks beside sending its file: whether the server has what was sent, who has won, and the two small modes bet and health.

const (
	// waitLineEvery is how often the log says that the client waits for the draw.
	waitLineEvery = 5 * time.Second
	// winnersLine is how many documents one line of the log holds at most.
	winnersLine = 500
)

// verify compares what the server has of the source with what was sent.
func (c *client) verify() error {
	if !c.cfg.resume {
		return nil
	}
	at, err := c.hello()
	if err != nil {
		return err
	}
	here := c.settled.after
	// Equal counts and CRCs mean that the server decided on these records in this order, each once: what it stores is in its log of exactly these bytes.
	if at != here {
		c.log.Error("verificar", fail, "apuestas", here.Records, "crc", crcText(here.CRC), "apuestas_servidor", at.Records, "crc_servidor", crcText(at.CRC))
		return fmt.Errorf("the server has %d bets of source %q, CRC %s, and %d with CRC %s were sent", at.Records, c.cfg.dataSource, crcText(at.CRC), here.Records, crcText(here.CRC))
	}
	if !c.verified {
		c.log.Info("verificar", success, "apuestas", at.Records, "crc", crcText(at.CRC))
	}
	c.verified = true
	return nil
}

// askWinners says that the agency has finished, and asks for its winners until they come.
func (c *client) askWinners(ctx context.Context) error {
	if c.cfg.drawAgencies == 0 {
		return nil
	}
	// Each session says that the agency has finished: a server that was restarted before it noted that must hear it again, and to the others it is no news.
	if c.stopWaiting == nil {
		c.stopWaiting = c.sayWaiting()
	}
	agency := uint8(c.cfg.id)
	m := appendNotify(nil, Notify{agency, notifyFinished})
	for asked := false; ; asked = true {
		m = appendNotify(m, Notify{agency, notifyWinners})
		err := c.write(m)
		drawn := false
		if err == nil {
			drawn, err = c.readWinners()
		}
		if asked && errors.Is(err, errClosed) {
			return errAskAgain // the server answers one question a connection
		}
		if err != nil || drawn {
			return err
		}
		if !sleep(ctx, pollEvery) {
			return errStopped
		}
		m = m[:0]
	}
}

// sayWaiting says in the log now and then that the client waits for the draw, until the function that it returns is called.
func (c *client) sayWaiting() (stop func()) {
	done := make(chan struct{})
	var said sync.WaitGroup
	said.Add(1)
	go func() {
		defer said.Done()
		tick := time.NewTicker(waitLineEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				c.log.Info("consulta_ganadores", inProgress, "client_id", c.cfg.id)
			}
		}
	}()
	return func() {
		close(done)
		said.Wait()
	}
}

// readWinners reads the answer to NOTIFY 1; drawn is false if the draw has not taken place.
func (c *client) readWinners() (drawn bool, err error) {
	c.holding.Store(true)
	defer c.holding.Store(false)
	var ack Ack
	size := 0
	if err := c.fillFor(func(m []byte) (err error) { ack, size, err = parseAck(m); return err }); err != nil {
		return false, err
	}
	defer c.succeeded()
	c.holding.Store(false) // what is left to come comes at once
	switch ack.Code {
	case ackNoDraw:
		c.framer.discard(size)
		return false, nil
	case ackWinners:
		c.framer.discard(size)
		return true, c.readDocuments()
	}
	return false, ackError(ack)
}

// readDocuments reads WINNERS, and those that follow a full one, and says them in the log.
func (c *client) readDocuments() error {
	total := 0
	var lines [][]byte // of at most winnersLine documents each
	// A full WINNERS is followed by another one, which may be empty.
	for count := maxWinners; count == maxWinners; total += count {
		if err := c.fillFor(func(m []byte) (err error) { count, _, err = parseWinnersHead(m); return err }); err != nil {
			return err
		}
		c.framer.discard(3)
		for i := range count {
			document, err := c.readString()
			if err != nil {
				return err
			}
			if (total+i)%winnersLine == 0 {
				lines = append(lines, nil)
			}
			last := &lines[len(lines)-1]
			*last = append(append(*last, ' '), document...)
		}
	}
	c.log.Info("consulta_ganadores", success, "cant_ganadores", total)
	for _, line := range lines {
		c.log.Info("ganadores", success, "documentos", string(bytes.TrimSpace(line)))
	}
	return nil
}

// readString reads a string.
func (c *client) readString() (s []byte, err error) {
	err = c.fillFor(func(m []byte) (err error) { s, _, err = parseLongString(m, 0); return err })
	if err != nil {
		return nil, err
	}
	s = bytes.Clone(s)
	c.framer.discard(2 + len(s))
	return s, nil
}

// betFrom makes the bet of mode bet from the environment variables that the course gives it.
func betFrom(id int, lookup func(string) (string, bool)) (*Bet, error) {
	b := &Bet{Agency: uint8(id)}
	for _, v := range []struct {
		name string
		at   *[]byte
	}{{"NOMBRE", &b.First}, {"APELLIDO", &b.Last}, {"DOCUMENTO", &b.Document}, {"NACIMIENTO", &b.Birthdate}} {
		value, ok := lookup(v.name)
		if !ok {
			return nil, usageErrorf("%s: not set in the environment: -mode=bet takes NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO and NUMERO from there", v.name)
		}
		*v.at = []byte(value)
	}
	text, _ := lookup("NUMERO")
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, usageErrorf("NUMERO: %q is not a number: takes 0 to 65535", text)
	}
	b.Number = uint16(number)
	if betSize(b) > maxMessage {
		return nil, usageErrorf("the bet is longer than a message may be: %d bytes, and %d are the limit", betSize(b), maxMessage)
	}
	return b, nil
}

// runBet is mode bet: it sends one bet, once. It has no source to resume, so a bet whose answer is lost is not sent again: that might store it twice.
func runBet(ctx context.Context, cfg *config, b *Bet, log *slog.Logger) error {
	cfg.logTo(log)
	c := &client{cfg: cfg, log: log, ctx: ctx, lastHope: time.Now()}
	for {
		err := c.sendOne(ctx, appendBet(nil, b))
		if ctx.Err() != nil {
			return errStopped
		}
		if err == nil {
			log.Info("apuesta_enviada", success, "dni", string(b.Document), "numero", int(b.Number))
			return nil
		}
		if !resumable(err) || time.Since(c.lastHope) >= cfg.retryTimeout {
			if resumable(err) {
				c.gaveUp(err)
			}
			log.Error("apuesta_enviada", fail, "dni", string(b.Document), "numero", int(b.Number), "motivo", err)
			return err
		}
		if !c.pause(ctx, err) {
			return errStopped
		}
	}
}

// sendOne sends one message on a connection of its own and reads its ACK.
func (c *client) sendOne(ctx context.Context, m []byte) error {
	dialer := net.Dialer{Timeout: c.dialTimeout()}
	conn, err := dialer.DialContext(ctx, "tcp", c.cfg.serverAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now().Add(stopTime)) })()
	c.conn, c.framer = conn, framer{src: conn, buf: make([]byte, maxReply)}
	var ack Ack
	err = c.write(m)
	if err == nil {
		err = c.fillFor(func(m []byte) (err error) { ack, _, err = parseAck(m); return err })
	}
	switch {
	case err != nil: // not resumable: see runBet
		return fmt.Errorf("the connection to %s broke before the answer, so whether the bet is stored is not known: %v", c.cfg.serverAddress, err)
	case ack.Code == ackRefused:
		return fmt.Errorf("refused: %s", ack.Status)
	case ack.Code != ackStored:
		return ackError(ack)
	}
	return nil
}

// runHealth is mode health: a BATCH of no bets, which a server answers with 0 while it takes bets.
func runHealth(ctx context.Context, cfg *config) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", cfg.serverAddress)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	// A BATCH of no bets costs the server nothing, and yet is answered with 5 where a real one would be.
	f := framer{src: conn, buf: make([]byte, maxReply)}
	if _, err := conn.Write(binary.BigEndian.AppendUint16([]byte{opBatch}, 0)); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	for {
		if err := f.fill(); err != nil {
			return fmt.Errorf("health: %s does not answer: %w", cfg.serverAddress, err)
		}
		ack, _, err := parseAck(f.unread())
		if err == errShort {
			continue
		}
		if err == nil && ack.Code != ackStored {
			err = ackError(ack)
		}
		if err != nil {
			return fmt.Errorf("health: %s: %w", cfg.serverAddress, err)
		}
		return nil
	}
}
