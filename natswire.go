//go:build !nostream && !notls

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The text protocol of a NATS engine, as bytes. What an engine sends:
//
//	INFO {json}                           who it is and what it takes; may come at any time
//	PING  PONG  +OK
//	-ERR 'text'
//	MSG subject sid [reply] n             then n bytes of body
//	HMSG subject sid [reply] h n          then n bytes, of which the first h are the header block
//
// What it is sent: CONNECT {json}, PING, PONG, SUB subject sid, and
//
//	PUB subject [reply] n                      then the body
//	HPUB subject [reply] h n                   then the header block and the body
//
// Each line ends with CR LF, and so does each body. A header block is
//
//	NATS/1.0[ status[ text]] CR LF, a line `Name: value` CR LF for each field, CR LF
const (
	// maxNATSLine is how long a line may be, its end included: the engine's own limit.
	maxNATSLine = 4096
	// maxNATSHeader is how many bytes of header block are read. The engine's own have a few
	// hundred.
	maxNATSHeader = 64 << 10
	// maxNATSMessage is how many bytes header and body of a message may have together, whatever an
	// engine says. Engines allow 1 MiB unless told otherwise, but their own answers may be longer.
	maxNATSMessage = 8 << 20

	natsHeaderStart = "NATS/1.0"
)

// errNATSTooLong: the message is longer than the engine takes, and was not sent.
var errNATSTooLong = errors.New("the message is longer than the engine takes")

// A natsError is what an engine said in an -ERR.
type natsError struct{ text string }

func (e *natsError) Error() string { return "the engine says: " + e.text }

// A natsInfo is what a server says of itself, in INFO.
type natsInfo struct {
	Version      string   `json:"version"`
	Headers      bool     `json:"headers"`
	MaxPayload   int      `json:"max_payload"`
	TLSRequired  bool     `json:"tls_required"`
	TLSAvailable bool     `json:"tls_available"`
	ConnectURLs  []string `json:"connect_urls"`
	LameDuck     bool     `json:"ldm"` // it is about to go
}

// A natsHello is what a server is told of a client, in CONNECT.
type natsHello struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	TLSRequired  bool   `json:"tls_required"`
	Echo         bool   `json:"echo"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
	Protocol     int    `json:"protocol"`
	Lang         string `json:"lang"`
	Version      string `json:"version"`
	Name         string `json:"name"`
	User         string `json:"user,omitempty"`
	Password     string `json:"pass,omitempty"`
	Token        string `json:"auth_token,omitempty"`
}

// A natsField is a field of a header.
type natsField struct{ name, value string }

// A natsMessage is what came on a subject. It is the receiver's own.
type natsMessage struct {
	subject string
	reply   string // where an answer is to go; empty: nowhere
	status  int    // of the header's first line; 0: none
	fields  []natsField
	body    []byte
}

// field returns the value of a field, or nothing. Of several it is the last: the engine puts its
// own behind those of whoever published the message.
func (m *natsMessage) field(name string) string {
	for i := len(m.fields) - 1; i >= 0; i-- {
		if m.fields[i].name == name {
			return m.fields[i].value
		}
	}
	return ""
}

// noResponders reports whether the engine says that nobody has taken the request.
func (m *natsMessage) noResponders() bool { return m.status == 503 && len(m.body) == 0 }

// size is how many bytes the message holds in memory, about.
func (m *natsMessage) size() int {
	const fixed = 128 // the structure itself, and what a list of them takes
	return fixed + len(m.subject) + len(m.reply) + len(m.body) + 32*len(m.fields)
}

// A natsOp is one thing that an engine sent.
type natsOp struct {
	verb    string      // INFO, PING, PONG, +OK, -ERR or MSG, which stands for HMSG too
	text    []byte      // what follows INFO or -ERR; valid until the next read
	sid     uint64      // of MSG: the subscription
	message natsMessage // of MSG
}

// A natsReader reads what an engine sends.
type natsReader struct{ *bufio.Reader }

func newNATSReader(src io.Reader) natsReader {
	return natsReader{bufio.NewReaderSize(src, maxNATSLine)}
}

// next reads one thing. After an error nothing more can be read.
func (r natsReader) next() (op natsOp, err error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return op, fmt.Errorf("a line has more than %d bytes", maxNATSLine)
	}
	if err != nil {
		return op, err
	}
	line, whole := bytes.CutSuffix(line, []byte("\r\n"))
	if !whole {
		return op, errors.New("a line does not end with CR LF")
	}
	verb, text, _ := bytes.Cut(line, []byte(" "))
	switch string(verb) {
	case "INFO", "PING", "PONG", "+OK":
		return natsOp{verb: string(verb), text: text}, nil
	case "-ERR":
		return natsOp{verb: "-ERR", text: bytes.Trim(text, " '")}, nil
	case "MSG":
		return r.message(strings.Fields(string(text)), false)
	case "HMSG":
		return r.message(strings.Fields(string(text)), true)
	}
	return op, fmt.Errorf("%.16q is nothing that an engine says", verb)
}

// message reads the bytes that follow a line MSG or HMSG with these arguments.
func (r natsReader) message(args []string, withHeader bool) (natsOp, error) {
	op := natsOp{verb: "MSG"}
	numbers := 1
	if withHeader {
		numbers = 2
	}
	reply := len(args) == 3+numbers
	if !reply && len(args) != 2+numbers {
		return op, fmt.Errorf("a message has %d arguments", len(args))
	}
	op.message.subject = args[0]
	if reply {
		op.message.reply = args[2]
	}
	sid, errSid := strconv.ParseUint(args[1], 10, 64)
	total, errTotal := strconv.ParseUint(args[len(args)-1], 10, 31)
	header, errHeader := uint64(0), error(nil)
	if withHeader {
		header, errHeader = strconv.ParseUint(args[len(args)-2], 10, 31)
	}
	if err := errors.Join(errSid, errTotal, errHeader); err != nil {
		return op, fmt.Errorf("a number of a message is none: %q", args)
	}
	switch {
	case total > maxNATSMessage:
		return op, fmt.Errorf("a message has %d bytes, more than the %d that are taken", total, maxNATSMessage)
	case header > total:
		return op, fmt.Errorf("a header has %d bytes in a message of %d", header, total)
	case header > maxNATSHeader:
		return op, fmt.Errorf("a header has %d bytes, more than the %d that are taken", header, maxNATSHeader)
	}
	all := make([]byte, total+2)
	if _, err := io.ReadFull(r, all); err != nil {
		return op, err
	}
	if string(all[total:]) != "\r\n" {
		return op, fmt.Errorf("after the %d bytes of a message there is no CR LF", total)
	}
	op.sid = sid
	op.message.status, op.message.fields = parseNATSHeader(all[:header])
	op.message.body = all[header:total:total]
	return op, nil
}

// parseNATSHeader takes a header block apart. Whoever may publish has written it, and the engine
// does not look at it: what is no field is stepped over.
func parseNATSHeader(block []byte) (status int, fields []natsField) {
	first, rest, _ := strings.Cut(string(block), "\r\n")
	if line, ok := strings.CutPrefix(first, natsHeaderStart+" "); ok && len(line) >= 3 {
		if n, err := strconv.ParseUint(line[:3], 10, 16); err == nil {
			status = int(n)
		}
	}
	for line := range strings.SplitSeq(rest, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && name != "" {
			fields = append(fields, natsField{name, strings.TrimSpace(value)})
		}
	}
	return status, fields
}

// appendNATSPublish appends a message to be sent, whose header and body have up to limit bytes.
// Nothing in it may be able to end its line. After an error dst is as it was.
func appendNATSPublish(dst []byte, limit int, subject, reply string, header []natsField, body []byte) ([]byte,
	error) {
	if !plainNATSName(subject) || reply != "" && !plainNATSName(reply) {
		return dst, fmt.Errorf("%q is no subject", subject+" "+reply)
	}
	var block []byte
	for _, f := range header {
		if strings.ContainsAny(f.name+f.value, "\r\n") || f.name == "" || strings.Contains(f.name, ":") {
			return dst, fmt.Errorf("%q is no field of a header", f.name+": "+f.value)
		}
		if block == nil {
			block = append(block, natsHeaderStart+"\r\n"...)
		}
		block = append(append(append(append(block, f.name...), ": "...), f.value...), "\r\n"...)
	}
	if block != nil {
		block = append(block, "\r\n"...)
	}
	if n := len(block) + len(body); n > limit {
		return dst, fmt.Errorf("%w: %d bytes, more than %d", errNATSTooLong, n, limit)
	}
	if block != nil {
		dst = append(dst, 'H')
	}
	dst = append(append(append(dst, "PUB "...), subject...), ' ')
	if reply != "" {
		dst = append(append(dst, reply...), ' ')
	}
	if block != nil {
		dst = append(strconv.AppendInt(dst, int64(len(block)), 10), ' ')
	}
	dst = append(strconv.AppendInt(dst, int64(len(block)+len(body)), 10), "\r\n"...)
	return append(append(append(dst, block...), body...), "\r\n"...), nil
}

// plainNATSName reports whether a subject is one that can stand in a line.
func plainNATSName(subject string) bool {
	return subject != "" && len(subject) <= maxNATSLine/8 &&
		!strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r == 0x7f })
}
