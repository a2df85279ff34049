package e2e

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A courseServer is what students write: it knows BET, BATCH and ACK alone.
type courseServer struct {
	t        *testing.T
	listener net.Listener
	closes   bool                   // the connection after each answer
	answer   func(batch int) []byte // to the batch, from 0
	served   sync.WaitGroup         // connections
	mu       sync.Mutex             // protects following
	rows     []string               // of the bets that came, as in bets.csv
	sizes    []int                  // of the batches
}

// openCourseServer starts a course server.
func openCourseServer(t *testing.T, closes bool, answer func(batch int) []byte) *courseServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &courseServer{t: t, listener: listener, closes: closes, answer: answer}
	beside(&s.served, func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			beside(&s.served, func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		s.served.Wait()
	})
	return s
}

func (s *courseServer) address() string { return s.listener.Addr().String() }

// serve serves one connection.
func (s *courseServer) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		head := make([]byte, 3)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		if head[0] != 3 {
			s.t.Errorf("a course server got op %d, want a BATCH", head[0])
			return
		}
		bytes := 3
		var rows []string
		for range binary.BigEndian.Uint16(head[1:]) {
			row, size, err := readBet(in)
			if err != nil {
				return
			}
			rows, bytes = append(rows, row), bytes+size
		}
		s.mu.Lock()
		batch := len(s.sizes)
		s.rows = append(s.rows, rows...)
		s.sizes = append(s.sizes, len(rows))
		s.mu.Unlock()
		if bytes > 8192 || len(rows) == 0 {
			s.t.Errorf("got a BATCH of %d bets and %d bytes, want 1 or more and at most 8,192", len(rows), bytes)
		}
		conn.Write(s.answer(batch))
		if s.closes {
			return
		}
	}
}

// readBet reads a BET and returns its row in bets.csv.
func readBet(in io.Reader) (row string, size int, err error) {
	head := make([]byte, 2)
	if _, err = io.ReadFull(in, head); err != nil {
		return "", 0, err
	}
	size = 4
	fields := []string{fmt.Sprint(head[1])}
	for range 4 {
		if _, err = io.ReadFull(in, head); err != nil {
			return "", 0, err
		}
		text := make([]byte, binary.BigEndian.Uint16(head))
		if _, err = io.ReadFull(in, text); err != nil {
			return "", 0, err
		}
		fields = append(fields, quoteField(string(text)))
		size += 2 + len(text)
	}
	_, err = io.ReadFull(in, head)
	return strings.Join(append(fields, fmt.Sprint(binary.BigEndian.Uint16(head))), ",") + "\r\n", size, err
}

// ackOf returns an ACK.
func ackOf(code byte, status string) []byte { return append([]byte{2, code}, wireString(status)...) }

// TestE2ECourseServer has our client with -resume=false send to servers that close after each
// batch, and to servers that do not.
func TestE2ECourseServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		closes bool
		ack    []byte
	}{
		{"closes", true, ackOf(0, "")},
		{"keeps open", false, ackOf(0, "")},
		{"closes, with a status", true, ackOf(0, "todo bien | ok\n")},
		{"keeps open, with a long status", false, ackOf(0, strings.Repeat("bien ", 13_000))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l := newLot(4)
			for i := range 1000 {
				l.addBet("", "Ana", "Gómez", fmt.Sprint(i), "2000-01-01", "7")
			}
			writeFile(t, dir, "agency-4.csv", l.file.String())
			s := openCourseServer(t, tt.closes, func(int) []byte { return tt.ack })
			c := startClient(t, dir, 4, s.address(), "-resume=false", "-batch.maxAmount=30")
			c.wantExit(exitDone)
			c.wantSummary(l)
			c.wantNoFail()
			wantSame(t, "bets that came", s.rows, l.rows)
		})
	}
}

// TestE2ECourseServerRefuses has answers other than ACK 0 in many spellings.
func TestE2ECourseServerRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, status string
		rejects      []string // line and reason, * for any
	}{
		{"ours", "#2 too old; #3 no", []string{"2 too old", "3 no"}},
		{"a reason with semicolons", "#1 a; b; c", []string{"1 a; b; c"}},
		{"no reason", "#3", []string{"3 "}},
		{"no form at all", "database is down", []string{"1 database is down", "2 database is down",
			"3 database is down"}},
		{"no status", "", []string{"1 *", "2 *", "3 *"}},
		{"a position that is not in the batch", "#4 y", []string{"1 *", "2 *", "3 *"}},
		{"a position of 0", "#0 y", []string{"1 *", "2 *", "3 *"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, dir, "agency-4.csv", "A,B,1,2000-01-01,1\nA,B,2,2000-01-01,1\nA,B,3,2000-01-01,1\n")
			s := openCourseServer(t, true, func(int) []byte { return ackOf(1, tt.status) })
			c := startClient(t, dir, 4, s.address(), "-resume=false")
			c.wantExit(exitDone)
			var got []string
			for _, line := range c.lines("action: apuesta_rechazada | result: fail") {
				got = append(got, field(line, "linea")+" "+field(line, "motivo"))
			}
			for i, want := range tt.rejects {
				if reject, any := strings.CutSuffix(want, "*"); any && i < len(got) &&
					strings.HasPrefix(got[i], reject) {
					got[i] = want
				}
			}
			wantSame(t, "rejected", got, tt.rejects)
		})
	}
}

// TestE2ECourseServerFails has answers that end the client, or that it tries again.
func TestE2ECourseServerFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer func(batch int) []byte
		status int
		errs   string
		rows   int // that came
	}{
		{"ACK 6", func(int) []byte { return ackOf(6, "que es esto") }, exitFailed, "que es esto", 3},
		{"ACK 9", func(int) []byte { return ackOf(9, "nine") }, exitFailed, "ACK 9", 3},
		{"no ACK", func(int) []byte { return []byte{9, 9, 9, 9} }, exitFailed, "", 3},
		{"ACK 5, then 0", func(batch int) []byte { return ackOf(byte(5-min(batch, 1)*5), "") }, exitDone, "", 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, dir, "agency-4.csv", "A,B,1,2000-01-01,1\nA,B,2,2000-01-01,1\nA,B,3,2000-01-01,1\n")
			s := openCourseServer(t, true, tt.answer)
			c := startClient(t, dir, 4, s.address(), "-resume=false")
			c.wantExit(tt.status)
			if tt.status != exitDone {
				wantOneLine(t, "standard error", c.errs.String(), tt.errs)
			}
			if len(s.rows) != tt.rows {
				t.Errorf("got %d bets sent, want %d", len(s.rows), tt.rows)
			}
		})
	}
}

// TestE2EHelloToCourseServer has a server that closes at HELLO: the client says so and never
// falls back to sending without it.
func TestE2EHelloToCourseServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-4.csv", "A,B,1,2000-01-01,1\n")
	for _, answer := range [][]byte{nil, ackOf(0, ""), ackOf(6, "unknown")} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		var served sync.WaitGroup
		beside(&served, func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.SetDeadline(time.Now().Add(patience))
				hello := make([]byte, len(wireHello(4, "agency-4.csv")))
				io.ReadFull(conn, hello)
				conn.Write(answer)
				got = append(got, hello[0])
				conn.Close()
			}
		})
		c := startClient(t, dir, 4, listener.Addr().String(), "-retry.timeout=300ms")
		c.wantExit(exitFailed)
		listener.Close()
		served.Wait()
		wantOneLine(t, "standard error", c.errs.String())
		if strings.Trim(string(got), "\x06") != "" || len(got) == 0 {
			t.Errorf("answer %x: got ops %x, want HELLOs alone", answer, got)
		}
	}
}

// TestE2ECourseClients has clients as students write them against our server: a connection for
// each batch, NOTIFY 0 on one of its own, then NOTIFY 1 on a new connection each time until the
// winners come.
func TestE2ECourseClients(t *testing.T) {
	t.Parallel()
	o := openOffice(t, "-draw.agencies=3")
	var done sync.WaitGroup
	for agency := 1; agency <= 3; agency++ {
		beside(&done, func() { courseClient(t, o, agency) })
	}
	done.Wait()
	o.stop()
	if got := strings.Count(o.stored(t), "\r\n"); got != 3*200 {
		t.Errorf("got %d rows, want 600", got)
	}
	if got := len(o.lines("action: sorteo | result: success")); got != 1 {
		t.Errorf("got %d draws, want 1", got)
	}
}

// courseClient sends 20 batches of 10 bets. Agency 3 has 2 winners, 2 has 1, 1 has none.
func courseClient(t *testing.T, o *office, agency int) {
	ask := func(m []byte, answered bool) (code int, documents []string) {
		conn, err := net.DialTimeout("tcp", o.address(), patience)
		if err != nil {
			t.Error(err)
			return -1, nil
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(m)
		if !answered {
			return 0, nil
		}
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Errorf("agency %d: %v", agency, err)
			return -1, nil
		}
		io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(head[2:])))
		if head[1] == 4 {
			documents = readWinnersOf(t, conn)
		}
		return int(head[1]), documents
	}
	for batch := range 20 {
		var bets [][]byte
		for i := range 10 {
			number := 1
			if batch == 7 && i < agency-1 {
				number = 7574
			}
			bets = append(bets, wireBet(agency, "Ana", "Gómez", fmt.Sprint(1000*agency+10*batch+i), "2000-01-01",
				number))
		}
		if code, _ := ask(wireBatch(bets...), true); code != 0 {
			t.Errorf("agency %d, batch %d: got ACK %d, want 0", agency, batch, code)
		}
	}
	ask([]byte{4, byte(agency), 0}, false)
	for {
		code, documents := ask([]byte{4, byte(agency), 1}, true)
		if code == 3 {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		var want []string
		for i := range agency - 1 {
			want = append(want, fmt.Sprint(1000*agency+70+i))
		}
		if code != 4 {
			t.Errorf("agency %d: got ACK %d, want 4", agency, code)
		}
		wantSame(t, fmt.Sprintf("winners of agency %d", agency), documents, want)
		return
	}
}

// readWinnersOf reads WINNERS.
func readWinnersOf(t *testing.T, in io.Reader) (documents []string) {
	head := make([]byte, 3)
	if _, err := io.ReadFull(in, head); err != nil || head[0] != 5 {
		t.Errorf("got %x and %v, want WINNERS", head, err)
		return nil
	}
	for range binary.BigEndian.Uint16(head[1:]) {
		length := make([]byte, 2)
		io.ReadFull(in, length)
		text := make([]byte, binary.BigEndian.Uint16(length))
		if _, err := io.ReadFull(in, text); err != nil {
			t.Error(err)
		}
		documents = append(documents, string(text))
	}
	return documents
}

// TestE2EBatchSizes has our client cut files into batches under both limits: every batch but the
// last is full by one of the two.
func TestE2EBatchSizes(t *testing.T) {
	t.Parallel()
	for _, amount := range []int{1, 7, 150, 65535} {
		dir := t.TempDir()
		l := makeLots(t, dir, 1, 1500, 9)[0]
		s := openCourseServer(t, false, func(int) []byte { return ackOf(0, "") })
		c := startClient(t, dir, 1, s.address(), "-resume=false", fmt.Sprintf("-batch.maxAmount=%d", amount))
		c.wantExit(exitDone)
		at := 0
		for i, n := range s.sizes {
			bytes := 3
			for _, size := range l.sizes[at : at+n] {
				bytes += size
			}
			at += n
			if n > amount || bytes > 8192 {
				t.Errorf("amount %d: got batch %d of %d bets and %d bytes", amount, i, n, bytes)
			}
			if at < len(l.sizes) && n < amount && bytes+l.sizes[at] <= 8192 {
				t.Errorf("amount %d: got batch %d of %d bets and %d bytes, and the next of %d bytes would have fitted",
					amount, i, n, bytes, l.sizes[at])
			}
		}
		if at != len(l.sizes) {
			t.Errorf("amount %d: got %d bets, want %d", amount, at, len(l.sizes))
		}
	}
}

// TestE2ECourseServerMalformed has a status with ACK 0, and a malformed record in the batch: that
// one alone is rejected.
func TestE2ECourseServerMalformed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-4.csv", "A,B,1,2000-01-01,1\nA,B\nA,B,3,2000-01-01,1\n")
	s := openCourseServer(t, true, func(int) []byte { return ackOf(0, "#1 todo bien") })
	c := startClient(t, dir, 4, s.address(), "-resume=false")
	c.wantExit(exitDone)
	if got := c.lines("action: apuesta_rechazada"); len(got) != 1 || field(got[0], "linea") != "2" {
		t.Errorf("got rejected %q, want line 2 alone", got)
	}
}

// courseDetails are the names of details that the course's tests read, by action.
var courseDetails = map[string][]string{
	"config":             {"client_id", "loop_amount", "loop_period", "log_level", "batch_maxAmount"},
	"accept_connections": {"ip"},
	"apuesta_recibida":   {"cantidad"},
	"apuesta_almacenada": {"dni", "numero"},
	"apuesta_enviada":    {"dni", "numero"},
	"apuestas_enviadas":  {"cantidad"},
	"consulta_ganadores": {"cant_ganadores"},
	"loop_finished":      {"client_id"},
	"receive_signal":     {"signal_number"},
}

// courseParse reads a line as the course's parser does, behind the name of its container: parts
// between bars, and the value of each behind the last colon in it.
func courseParse(line string) map[string]string {
	values := map[string]string{}
	for _, part := range strings.Split("client1  | "+line, "|") {
		at := strings.LastIndexByte(part, ':')
		if at < 0 {
			continue
		}
		name := strings.TrimSpace(part[:at])
		if words := strings.Fields(name); len(words) > 0 && words[len(words)-1] == "action" {
			name = "action" // behind time and level
		}
		values[name] = strings.TrimSpace(part[at+1:])
	}
	return values
}

// TestE2ECourseParser runs what the course's tests run, with a setting from each place, and reads
// all lines as its parser does: what it reads is the whole value.
func TestE2ECourseParser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := makeLots(t, dir, 1, 400, 12)[0]
	writeFile(t, dir, "config.yaml",
		"loop:\n  amount: 100\n  period: \"1ms\"\nbatch:\n  maxAmount: 10\nlog:\n  level: INFO\n")
	o := openOffice(t, "-draw.agencies=1")
	bet := []string{"NOMBRE=Ana", "APELLIDO=Paz", "DOCUMENTO=30904465", "NACIMIENTO=2000-01-01", "NUMERO=7574"}
	b := launchCommand(t, "bet", programCommand(t.TempDir(), bet, "-mode=bet", "-id=2", "-server.address="+o.address()))
	b.wantExit(exitDone)
	c := launchCommand(t, "client", programCommand(dir, []string{"CLI_ID=1", "CLI_DATA_FILE=agency-{id}.csv"},
		"-mode=client", "-draw.agencies=1", "-server.address="+o.address()))
	c.wantExit(exitDone)
	c.wantSummary(l)
	o.stop()
	seen := map[string]bool{}
	for _, p := range []*process{o.process, c, b} {
		for _, line := range p.lines("action: ") {
			got := courseParse(line)
			action := got["action"]
			for _, name := range append([]string{"result"}, courseDetails[action]...) {
				if want := field(line, name); got[name] != want {
					t.Errorf("%s: the course reads %s %q, want %q: %q", p.Name, name, got[name], want, line)
				}
				seen[action+" "+name] = seen[action+" "+name] || got[name] != ""
			}
			if _, origins, _ := strings.Cut(line, " | result: "); action == "config_origin" &&
				strings.Count(origins, ":") != strings.Count(origins, "|") {
				t.Errorf("%s: got a colon in a value of %q", p.Name, line)
			}
		}
	}
	for action, names := range courseDetails {
		for _, name := range names {
			if !seen[action+" "+name] {
				t.Errorf("got no line of action %s with %s", action, name)
			}
		}
	}
}
