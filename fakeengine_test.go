//go:build !nostream && !notls

package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeEngine speaks the engine's protocol for one stream, TP0, and does what a script says with
// each record that it is sent.
type fakeEngine struct {
	listener net.Listener
	version  string
	payload  int // max_payload

	mu      sync.Mutex
	records [][]byte       // the one at i has the number i+1; nil: this replica has lost it
	whole   bool           // the leader has all records, whatever this replica has
	lacks   uint64         // the leader has lost this record, another replica has it
	taken   func()         // is called with each record; nil: nothing is
	late    []byte         // is stored when the next record comes
	config  map[string]any // of the stream
	deleted bool           // there is no such stream
	script  []string       // for the records that come next; then "ok"
	reads   []string       // for the questions that come next; then "ok"
	said    [][]byte       // signs of life
	conns   []net.Conn
}

func newFakeEngine(t *testing.T) *fakeEngine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &fakeEngine{listener: l, version: "2.15.2", payload: 1 << 20}
	good, _ := json.Marshal(goodConfig())
	json.Unmarshal(good, &e.config)
	t.Cleanup(func() {
		l.Close()
		e.cut()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			e.conns = append(e.conns, conn)
			e.mu.Unlock()
			go e.serve(conn)
		}
	}()
	return e
}

// goodConfig is a configuration that nothing is wrong with.
func goodConfig() streamConfig {
	return streamConfig{Name: "TP0", Subjects: []string{"tp0.log"}, Retention: "limits", Storage: "file", Replicas: 3,
		Discard: "new", streamLimits: streamLimits{MaxMsgs: -1, MaxBytes: -1, MaxPerSubject: -1, MaxMsgSize: -1,
			MaxConsumers: -1}, AllowDirect: true, DenyDelete: true, DenyPurge: true,
		Metadata: map[string]string{storeKey: testStoreID.String(), "_nats.ver": "2.15.2"}}
}

var testStoreID = storeID{1, 2, 3}

// cut ends all connections.
func (e *fakeEngine) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, conn := range e.conns {
		conn.Close()
	}
	e.conns = nil
}

// serve is one connection.
func (e *fakeEngine) serve(conn net.Conn) {
	defer conn.Close()
	e.mu.Lock()
	version, payload := e.version, e.payload
	e.mu.Unlock()
	fmt.Fprintf(conn, "INFO {\"server_id\":\"x\",\"version\":%q,\"headers\":true,\"max_payload\":%d}\r\n", version,
		payload)
	in := bufio.NewReader(conn)
	sids := map[string]string{}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		args := strings.Fields(line)
		switch args[0] {
		case "PING":
			io.WriteString(conn, "PONG\r\n")
		case "SUB":
			sids[args[1]] = args[2]
		case "PUB", "HPUB":
			size, _ := strconv.Atoi(args[len(args)-1])
			all := make([]byte, size+2)
			if _, err := io.ReadFull(in, all); err != nil {
				return
			}
			header := 0
			if args[0] == "HPUB" {
				header, _ = strconv.Atoi(args[len(args)-2])
			}
			reply := ""
			if len(args) > 3 {
				reply = args[2]
			}
			sid := "1"
			if reply == "" {
				reply, sid = args[1], sids[args[1]]
			}
			e.mu.Lock()
			answers, alive := e.take(args[1], string(all[:header]), all[header:size])
			e.mu.Unlock()
			if !alive {
				return
			}
			for _, a := range answers {
				switch {
				case a.err != "":
					fmt.Fprintf(conn, "-ERR '%s'\r\n", a.err)
				case a.header != "":
					fmt.Fprintf(conn, "HMSG %s %s %d %d\r\n%s%s\r\n", reply, sid, len(a.header),
						len(a.header)+len(a.body), a.header, a.body)
				default:
					fmt.Fprintf(conn, "MSG %s %s %d\r\n%s\r\n", reply, sid, len(a.body), a.body)
				}
			}
		}
	}
}

// A fakeAnswer is what the engine says to a message.
type fakeAnswer struct {
	header string
	body   []byte
	err    string
}

// say is an answer in JSON.
func say(format string, args ...any) []fakeAnswer {
	return []fakeAnswer{{body: fmt.Appendf(nil, format, args...)}}
}

// sayError is the engine's error of that code.
func sayError(code int) []fakeAnswer {
	return say(`{"error":{"code":400,"err_code":%d,"description":"error %d"}}`, code, code)
}

// pop takes the next word of a script.
func pop(script *[]string) string {
	if len(*script) == 0 {
		return "ok"
	}
	word := (*script)[0]
	*script = (*script)[1:]
	return word
}

// take does what the script says about a message. Without alive the connection ends.
func (e *fakeEngine) take(subject, header string, body []byte) (answers []fakeAnswer, alive bool) {
	name, question := "", seqRequest{}
	if i := strings.LastIndexByte(subject, '.'); strings.HasPrefix(subject, "$JS.API.") {
		subject, name = subject[:i], subject[i+1:]
	}
	switch {
	case subject == "tp0.alive":
		e.said = append(e.said, body)
		return []fakeAnswer{{body: body}}, true
	case subject == "tp0.log":
		return e.append(header, body)
	case name != "TP0":
		return nil, true
	}
	switch word := pop(&e.reads); word {
	case "ok":
	case "silence":
		return nil, true
	case "503":
		return []fakeAnswer{{header: "NATS/1.0 503\r\n\r\n"}}, true
	case "cut":
		return nil, false
	case "garbage":
		return say("{"), true
	default: // an error's code
		code, _ := strconv.Atoi(word)
		return sayError(code), true
	}
	if subject == "$JS.API.STREAM.CREATE" {
		if !e.deleted {
			return sayError(codeNameInUse), true
		}
		e.deleted, e.config = false, map[string]any{}
		json.Unmarshal(body, &e.config)
		return say(`{"config":%s}`, body), true
	}
	if e.deleted {
		return sayError(codeStreamGone), true
	}
	json.Unmarshal(body, &question)
	switch subject {
	case "$JS.API.STREAM.INFO":
		messages := 0
		for _, r := range e.records {
			if r != nil || e.whole {
				messages++
			}
		}
		config, _ := json.Marshal(e.config)
		return say(`{"config":%s,"state":{"messages":%d,"last_seq":%d}}`, config, messages, len(e.records)), true
	case "$JS.API.STREAM.MSG.GET":
		at := int(question.Seq) - 1
		if at >= len(e.records) || e.records[at] == nil || question.Seq == e.lacks {
			return sayError(codeNoMessage), true
		}
		return say(`{"message":{"subject":"tp0.log","seq":%d,"data":%q}}`, question.Seq,
			base64.StdEncoding.EncodeToString(e.records[at])), true
	case "$JS.API.DIRECT.GET":
		for i := int(question.Seq) - 1; i < len(e.records) && len(answers) < question.Batch; i++ {
			if e.records[i] != nil {
				answers = append(answers, fakeAnswer{body: e.records[i],
					header: fmt.Sprintf("NATS/1.0\r\nNats-Stream: TP0\r\nNats-Sequence: %d\r\n\r\n", i+1)})
			}
		}
		if answers == nil {
			return []fakeAnswer{{header: "NATS/1.0 404 Message Not Found\r\n\r\n"}}, true
		}
		return append(answers, fakeAnswer{header: "NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n"}), true
	}
	return nil, true
}

// append does what the script says about a record.
func (e *fakeEngine) append(header string, record []byte) (answers []fakeAnswer, alive bool) {
	if e.taken != nil {
		e.taken()
	}
	if e.late != nil {
		e.records, e.late = append(e.records, e.late), nil
	}
	word := pop(&e.script)
	next := strings.Contains(header, fmt.Sprintf("Nats-Expected-Last-Sequence: %d\r\n", len(e.records)))
	switch word {
	case "silence":
		return nil, true
	case "503":
		return []fakeAnswer{{header: "NATS/1.0 503\r\n\r\n"}}, true
	case "cut":
		return nil, false
	case "late": // it lands, but only later
		e.late = bytes.Clone(record)
		return nil, true
	case "foreign": // another one was faster
		if next {
			e.records = append(e.records, []byte("foreign"))
		}
		return sayError(10071), true
	case "pending": // it is proposed, and never gets its quorum
		return sayError(10071), true
	case "garbage":
		return say("no JSON"), true
	case "denied":
		return []fakeAnswer{{err: `Permissions Violation for Publish to "tp0.log"`}}, true
	case "other":
		return say(`{"stream":"OTHER","seq":%d}`, len(e.records)+1), true
	case "ahead":
		return say(`{"stream":"TP0","seq":%d}`, len(e.records)+2), true
	case "deleted":
		e.deleted = true
		return []fakeAnswer{{header: "NATS/1.0 503\r\n\r\n"}}, true
	case "ok", "stored", "stored and cut", "stored twice":
	default:
		code, _ := strconv.Atoi(word)
		return sayError(code), true
	}
	if !strings.Contains(header, "Nats-Expected-Stream: TP0\r\n") {
		return say("no stream was expected"), true
	}
	if !next {
		return sayError(10071), true
	}
	e.records = append(e.records, bytes.Clone(record))
	ack := say(`{"stream":"TP0","seq":%d}`, len(e.records))
	switch word {
	case "stored": // the answer is lost
		return nil, true
	case "stored and cut":
		return nil, false
	case "stored twice": // and answered twice
		return append(ack, ack...), true
	}
	return ack, true
}

// lostWait is how long an answer is waited for that does not come.
const lostWait = 20 * time.Millisecond

// openFake returns a stream of these engines.
func openFake(t *testing.T, engines ...*fakeEngine) *stream {
	t.Helper()
	var servers []string
	for _, e := range engines {
		servers = append(servers, e.listener.Addr().String())
	}
	settings := &streamSettings{servers: strings.Join(servers, ","), name: "TP0"}
	s, err := dialStream(settings, newLogger(io.Discard, slog.LevelError))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	s.wait = 10 * time.Second
	return s
}
