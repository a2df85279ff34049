package proc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// What an operator does to a stream by hand, and what a publisher does that is nothing else: so
// much of the engine's protocol as that takes. The program has its own, and is tested by this one.

const (
	// EngineOperator may do everything in the offices' account. WithOperator makes it.
	EngineOperator, EngineOperatorPass = "operator", "by hand"

	// askTimeout is how long an engine may take for an answer.
	askTimeout = 10 * time.Second
)

// WithOperator is an edit of StartEngines: the user EngineOperator, and streams of any name.
func WithOperator(_ int, config string) string {
	const users = "users: [\n      { user: tp0,"
	return strings.Replace(config, users, fmt.Sprintf("users: [\n      { user: %q, password: %q },\n      { user: tp0,",
		EngineOperator, EngineOperatorPass), 1)
}

// An Asker is a connection to an engine on which one question is asked at a time.
type Asker struct {
	conn  net.Conn
	in    *bufio.Reader
	asked int
}

// Dial connects to the engine as EngineOperator.
func (e *Engine) Dial() (*Asker, error) {
	conn, err := net.DialTimeout("tcp", e.Listen, askTimeout)
	if err != nil {
		return nil, err
	}
	a := &Asker{conn: conn, in: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(askTimeout))
	if _, err = a.in.ReadString('\n'); err == nil { // INFO
		_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,"+
			"\"user\":%q,\"pass\":%q}\r\n"+
			"SUB answer.%p.* 1\r\nPING\r\n", EngineOperator, EngineOperatorPass, a)
	}
	for err == nil {
		line := ""
		switch line, err = a.in.ReadString('\n'); {
		case strings.HasPrefix(line, "PONG"):
			return a, nil
		case strings.HasPrefix(line, "-ERR"):
			err = errors.New(strings.TrimSpace(line))
		}
	}
	conn.Close()
	return nil, fmt.Errorf("%s: %w", e.Name, err)
}

func (a *Asker) Close() { a.conn.Close() }

// Ask sends body with a header, lines with CRLF or nothing, and returns the answer.
func (a *Asker) Ask(subject, header string, body []byte) ([]byte, error) {
	a.asked++
	a.conn.SetDeadline(time.Now().Add(askTimeout))
	head := "NATS/1.0\r\n" + header + "\r\n"
	message := fmt.Appendf(nil, "HPUB %s answer.%p.%d %d %d\r\n%s", subject, a, a.asked, len(head),
		len(head)+len(body), head)
	if _, err := a.conn.Write(append(append(message, body...), "\r\n"...)); err != nil {
		return nil, err
	}
	for {
		line, err := a.in.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("asking %s: %w", subject, err)
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == "PONG" || fields[0] == "INFO":
		case fields[0] == "PING":
			a.conn.Write([]byte("PONG\r\n"))
		case fields[0] == "MSG" || fields[0] == "HMSG":
			answer, err := a.answer(fields)
			if err != nil || fields[1] == fmt.Sprintf("answer.%p.%d", a, a.asked) {
				return answer, err
			}
		default:
			return nil, fmt.Errorf("asking %s: %s", subject, strings.TrimSpace(line))
		}
	}
}

// answer reads what stands behind the line of a message.
func (a *Asker) answer(fields []string) ([]byte, error) {
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil || size > maxAnswer {
		return nil, fmt.Errorf("an answer of %q bytes", fields[len(fields)-1])
	}
	text := make([]byte, size+2)
	if _, err := io.ReadFull(a.in, text); err != nil || fields[0] == "MSG" {
		return text[:size], err
	}
	if strings.HasPrefix(string(text), "NATS/1.0 503") {
		return nil, errors.New("nobody answers: the stream has no leader, or is not there")
	}
	head, err := strconv.Atoi(fields[len(fields)-2])
	if err != nil || head > size {
		return nil, fmt.Errorf("a header of %q bytes", fields[len(fields)-2])
	}
	return text[head:size], nil
}

// Change asks the engine's API for something about streams, as an operator does, until it is done:
// "STREAM.DELETE.TP0". It returns the answer.
func (es *Engines) Change(api string, body string) (answer []byte, err error) {
	for end := time.Now().Add(engineTimeout); ; time.Sleep(enginePoll) {
		if answer, err = es.change(api, body); err == nil || time.Now().After(end) {
			return answer, err
		}
	}
}

func (es *Engines) change(api string, body string) ([]byte, error) {
	for _, e := range es.All {
		if e.away.Load() {
			continue
		}
		a, err := e.Dial()
		if err != nil {
			return nil, err
		}
		defer a.Close()
		text, err := a.Ask("$JS.API."+api, "", []byte(body))
		if err != nil {
			return nil, err
		}
		var answer struct {
			Error *struct {
				Description string `json:"description"`
			} `json:"error"`
		}
		if err = json.Unmarshal(text, &answer); err == nil && answer.Error != nil {
			err = errors.New(answer.Error.Description)
		}
		return text, err
	}
	return nil, errors.New("no engine runs")
}
