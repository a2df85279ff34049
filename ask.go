package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// What is asked on a link beside sending a file: who has won, and the two small
// modes bet and health.

const (
	// pollEvery is how often the winners are asked for where the server does not
	// answer by itself when the draw takes place.
	pollEvery = 500 * time.Millisecond
	// waitLineEvery is how often the log says that the client waits for the draw.
	waitLineEvery = 5 * time.Second
	// winnersLine is how many documents one line of the log holds at most: a value is
	// cut at 512 bytes.
	winnersLine = 46
	// mostWinners is how many winners are taken from a server: it must end some time.
	mostWinners = 1024 * maxWinners
	// healthTime is how long mode health waits for each server: for a connection and the answer.
	healthTime = 3 * time.Second
)

// askWinners says that the agency has finished, and asks for its winners until
// they come. Each session says that it has finished: a server that was restarted
// before it noted that must hear it again, and to the others it is no news.
func askWinners(ctx context.Context, l *link, agency uint8, r *retry) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for sleep(waiting, waitLineEvery) {
			r.log.Info(actConsultaGanadores, inProgress, "client_id", int(agency))
		}
	}()
	m := appendNotify(nil, Notify{agency, notifyFinished})
	for {
		m = appendNotify(m, Notify{agency, notifyWinners})
		ack, err := askHeld(ctx, l, m, r)
		switch {
		case err != nil:
			return err
		case ack.Code == ackWinners:
			return readWinners(l, r.log)
		case ack.Code != ackNoDraw:
			return ackError(ack)
		}
		r.alive()
		if !sleep(ctx, pollEvery) {
			return errStopped
		}
		m = m[:0]
	}
}

// askHeld writes m and waits for the answer, which may come with the draw. The
// time of that wait does not count, and one longer than retry.timeout is a sign
// of life: what ends it is a new trouble.
func askHeld(ctx context.Context, l *link, m []byte, r *retry) (ack Ack, err error) {
	defer context.AfterFunc(ctx, func() { l.close() })()
	asked := time.Now()
	ack, err = l.ask(m, forever)
	held := time.Since(asked)
	r.life = r.life.Add(held)
	if held > r.timeout {
		r.alive()
	}
	return ack, err
}

// readWinners reads WINNERS, and those that follow a full one, and says them in
// the log as they come.
func readWinners(l *link, log *slog.Logger) error {
	total := 0
	for count := maxWinners; count == maxWinners; total += count {
		err := l.read(l.idle, func(m []byte) (size int, err error) {
			count, size, err = parseWinnersHead(m)
			return size, err
		})
		if err != nil {
			return err
		}
		if total+count > mostWinners {
			return fmt.Errorf("%s names over %d winners: there is something wrong with that server", l.address,
				mostWinners)
		}
		var line []byte
		for i := range count {
			err := l.read(l.idle, func(m []byte) (size int, err error) {
				document, size, err := parseString(m, 0, 2+maxDocument)
				switch {
				case err != nil:
					return 0, err
				case !isDocument(document):
					return 0, protocolErrorf("a winner's document is not 1 to %d digits", maxDocument)
				}
				line = append(append(line, document...), ' ')
				return size, nil
			})
			if err != nil {
				return err
			}
			if i%winnersLine == winnersLine-1 || i == count-1 {
				log.Info(actGanadores, success, "documentos", string(line[:len(line)-1]))
				line = line[:0]
			}
		}
	}
	log.Info(actConsultaGanadores, success, "cant_ganadores", total)
	return nil
}

// betFrom makes the bet of mode bet from the environment variables that the course gives it.
func betFrom(id int, lookup func(string) (string, bool)) (*Bet, error) {
	var fields [][]byte
	for _, name := range []string{"NOMBRE", "APELLIDO", "DOCUMENTO", "NACIMIENTO", "NUMERO"} {
		value, ok := lookup(name)
		if !ok {
			return nil, usageErrorf("%s: not set in the environment: "+
				"-mode=bet takes NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO and NUMERO from there", name)
		}
		fields = append(fields, []byte(value))
	}
	b := new(Bet)
	if malformed := toBet(&record{fields: fields}, 0, uint8(id), b); malformed != "" {
		return nil, usageErrorf("NOMBRE, APELLIDO, DOCUMENTO, NACIMIENTO, NUMERO: %.32q: this bet cannot be sent: %s",
			fields, malformed)
	}
	return b, nil
}

// runBet is mode bet: it sends one bet, once. It has no source to resume, so a
// bet whose answer is lost is not sent again: that might store it twice.
func runBet(ctx context.Context, cfg *config, b *Bet, log *slog.Logger) error {
	cfg.logTo(log)
	r, err := newRetry(cfg, log)
	if err != nil {
		return err
	}
	for {
		err := sendBet(ctx, r, b)
		if err == nil {
			log.Info(actApuestaEnviada, success, "dni", string(b.Document), "numero", int(b.Number))
			return nil
		}
		if err = r.next(ctx, err); err == nil {
			continue
		}
		if !errors.Is(err, errStopped) {
			log.Error(actApuestaEnviada, fail, "dni", string(b.Document), "numero", int(b.Number), "motivo", err)
		}
		return err
	}
}

// sendBet sends one bet on a connection of its own and reads its ACK.
func sendBet(ctx context.Context, r *retry, b *Bet) error {
	ack, err := askOnce(ctx, r, appendBet(nil, b))
	switch {
	case errors.Is(err, errEnded): // %v: it is not tried again
		return fmt.Errorf("%s: %v before the answer: whether the bet is stored is not known: see the server's bets.csv",
			r.addresses[0], err)
	case err != nil:
		return err
	case ack.Code == ackRefused:
		return fmt.Errorf("refused: %s", ack.Status)
	case ack.Code != ackStored:
		return ackError(ack)
	}
	return nil
}

// askOnce asks m on a connection of its own.
func askOnce(ctx context.Context, r *retry, m []byte) (Ack, error) {
	l, err := r.connect(ctx)
	if err != nil {
		return Ack{}, err
	}
	defer l.close()
	return l.ask(m, l.idle)
}

// runHealth is mode health: it asks each address once, until one takes bets.
func runHealth(ctx context.Context, cfg *config) error {
	r, err := newRetry(cfg, nil)
	if err != nil {
		return err
	}
	report := "health"
	for all := false; !all; all = r.turn() {
		err := askHealth(ctx, r)
		if err == nil {
			return nil
		}
		report += fmt.Sprintf(": %s: %v", r.addresses[0], err)
	}
	return errors.New(report)
}

// askHealth asks the server whose turn it is. A BATCH of no bets costs it nothing, and yet is
// answered with 5 where a real one would be.
func askHealth(ctx context.Context, r *retry) error {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	ack, err := askOnce(ctx, r, appendBatchHead(nil, 0))
	if err == nil && ack.Code != ackStored {
		err = ackError(ack)
	}
	return err
}
