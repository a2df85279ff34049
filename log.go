package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// The log is the program's only voice on standard output. One event is one line:
//
//	2024-09-03 16:15:58 INFO     action: NAME | result: RESULT | key: value | key: value
//
// Language: what the course fixed stands as it is. Lines about bets, agency files and
// the draw are in its Spanish, actions and keys (apuesta_rechazada | linea | motivo).
// All else is English: actions, keys (file, reason, todo, bets, sources) and sentences.

// The actions: every line of the program has one of these.
const (
	// Of both sides.
	actLog           = "log" // lines of it are missing
	actConfig        = "config"
	actConfigOrigin  = "config_origin"
	actReceiveSignal = "receive_signal"
	actShutdown      = "shutdown"

	// Of the server: its connections.
	actListen            = "listen"
	actAcceptConnections = "accept_connections"
	actConnection        = "connection"
	actProtocol          = "protocol"
	actHandshake         = "handshake" // of a connection that was refused
	actKnown             = "known"     // the file of known keys was read
	actCloseConnection   = "close_connection"
	actCloseListener     = "close_listener"

	// Of the server: its store.
	actRecover    = "recover"
	actAdopt      = "adopt"
	actStore      = "store"
	actDurability = "durability"
	actCheckpoint = "checkpoint"
	actForget     = "forget"
	actCloseStore = "close_store"
	actStream     = "stream"
	actReplicate  = "replicate"
	actEngine     = "engine"  // a connection to a server of the replicated engine
	actReplica    = "replica" // whether its replicas are whole
	actTerm       = "term"    // which server takes bets
	actFollow     = "follow"  // the shared log

	// Of the server: its status page.
	actStatus      = "status"
	actCloseStatus = "close_status"

	// Of the server: bets and the draw.
	actApuestaRecibida   = "apuesta_recibida"
	actApuestaAlmacenada = "apuesta_almacenada"
	actSorteo            = "sorteo"
	actSorteoSello       = "sorteo_sello"

	// Of the client: its connection and its files.
	actConnect      = "connect"
	actHint         = "hint" // what the agency file seems to be
	actResume       = "resume"
	actResend       = "resend"
	actVerify       = "verify"
	actCloseSocket  = "close_socket"
	actCloseFile    = "close_file"
	actCloseRejects = "close_rejects"

	// Of the client: bets and the draw.
	actApuestasEnviadas  = "apuestas_enviadas"
	actApuestaEnviada    = "apuesta_enviada"
	actApuestaRechazada  = "apuesta_rechazada"
	actLoopFinished      = "loop_finished"
	actConsultaGanadores = "consulta_ganadores"
	actGanadores         = "ganadores"
)

// The results: what became of the action. Each line has one as its first attribute.
var (
	success    = slog.String("result", "success")
	fail       = slog.String("result", "fail")
	inProgress = slog.String("result", "in_progress")
)

// closed is the result of closing something.
func closed(err error) slog.Attr {
	if err != nil {
		return fail
	}
	return success
}

const (
	// logPatience is for how long standard output may take nothing before the program goes on
	// without it.
	logPatience = 5 * time.Second
	// tellPatience is for how long standard error may take nothing.
	tellPatience = time.Second
	// logDelay is how long a line may wait for others, with which it shares a write: a wake and
	// a write for each cost 7 % of the server.
	logDelay = 10 * time.Millisecond
	// logQueue is how many bytes of lines wait for standard output: then nobody adds to them.
	logQueue = 64 << 10
	// takesNothing is what is said of a standard output that is stuck.
	takesNothing = "it takes nothing"
)

// A lineWriter writes whole lines, one after another, whichever goroutine they come from.
// It is shared by all loggers of a program.
//
// The program does not stop for its log. Lines wait in a queue for the goroutine that
// writes them. Where standard output has gone, or has taken nothing for logPatience, lines
// are dropped and counted, and standard error is told so once. When it takes lines again,
// a line says how many are missing.
type lineWriter struct {
	out    io.Writer
	errors io.Writer                // where it is said that lines are dropped
	told   sync.Once                // it was said
	bar    atomic.Pointer[progress] // shares the terminal and steps aside for a line; nil: there is none
	hurry  chan struct{}            // has something where somebody waits for the queue: no logDelay then

	mu      sync.Mutex // protects following
	changed sync.Cond  // for all who wait: lines have come or have left, or a write takes too long
	queued  []byte     // lines that wait
	began   time.Time  // when the write that is under way began; zero: none is
	dropped int        // lines, since the last that was written
}

// newLineWriter returns a writer of lines to out.
func newLineWriter(out, errors io.Writer) *lineWriter {
	w := &lineWriter{out: out, errors: errors, hurry: make(chan struct{}, 1)}
	w.changed.L = &w.mu
	go w.writeLoop()
	return w
}

// Write takes lines, which end with a line break. It never fails. Where too many wait it
// waits too, until the write that is under way is stuck.
func (w *lineWriter) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queued) >= logQueue && !w.stuck() {
		w.hurryUp()
		w.changed.Wait()
	}
	if len(w.queued) < logQueue {
		w.queued = append(w.queued, lines...)
		w.changed.Broadcast()
	} else {
		w.dropped += bytes.Count(lines, []byte{'\n'})
	}
	return len(lines), nil
}

// hurryUp has the lines that are queued written without logDelay.
func (w *lineWriter) hurryUp() {
	select {
	case w.hurry <- struct{}{}:
	default: // somebody else has said so
	}
}

// stuck reports whether a write has taken too long already. w.mu is held.
func (w *lineWriter) stuck() bool { return !w.began.IsZero() && time.Since(w.began) >= logPatience }

// writeLoop writes what is queued. The queue and what is being written change places.
func (w *lineWriter) writeLoop() {
	var lines []byte
	delay := time.NewTimer(logDelay)
	w.mu.Lock()
	for {
		for len(w.queued) == 0 {
			w.changed.Wait()
		}
		w.mu.Unlock()
		delay.Reset(logDelay)
		select {
		case <-delay.C:
		case <-w.hurry:
		}
		w.mu.Lock()
		lines, w.queued, w.began = w.queued, lines[:0], time.Now()
		w.changed.Broadcast()
		w.mu.Unlock()
		n, err := w.write(lines)
		w.mu.Lock()
		w.began = time.Time{}
		if err != nil {
			w.dropped += bytes.Count(lines[n:], []byte{'\n'})
		} else if w.dropped > 0 { // behind what is queued: it was full when they came
			missing := slog.NewRecord(time.Now(), slog.LevelWarn, actLog, 0)
			missing.Add(fail, "lines", w.dropped, "reason", "nothing took them: they are missing here")
			w.queued = append(appendLine(missing.Time.AppendFormat(w.queued, lineTime), missing), '\n')
			w.dropped = 0
		}
		w.changed.Broadcast()
	}
}

// write writes lines, and returns how many bytes were written. If that fails, or takes too long,
// standard error is told.
func (w *lineWriter) write(lines []byte) (n int, err error) {
	late := time.AfterFunc(logPatience, func() {
		w.tell(takesNothing)
		w.mu.Lock() // or who is just about to wait would miss it
		defer w.mu.Unlock()
		w.changed.Broadcast()
	})
	defer late.Stop()
	w.bar.Load().around(func() { n, err = w.out.Write(lines) })
	if err != nil {
		w.tell(err.Error())
	}
	return n, err
}

// drain waits until all lines are written, or nothing takes them.
func (w *lineWriter) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for (len(w.queued) > 0 || !w.began.IsZero()) && !w.stuck() {
		w.hurryUp()
		w.changed.Wait()
	}
	if w.stuck() {
		w.tell(takesNothing) // before the program ends, if it does
	}
}

// share makes the lines step around bar, or no longer if bar is nil. Where the lines go
// elsewhere than to a terminal they are not in its way.
func (w *lineWriter) share(bar *progress) {
	if file, ok := w.out.(*os.File); ok && !isTerminal(file) {
		return
	}
	w.drain()
	w.bar.Store(bar)
}

// tell says once on standard error that lines are dropped.
func (w *lineWriter) tell(reason string) {
	w.told.Do(func() {
		tellError(w.errors, "standard output: "+reason+": the program goes on without its log")
	})
}

// tellError prints text as one line, whatever is in it. It does not wait for a standard
// error that takes nothing.
func tellError(stderr io.Writer, text string) {
	line := append(appendHarmless([]byte("tp0: "), text), '\n')
	done := make(chan struct{})
	go func() {
		stderr.Write(line)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(tellPatience):
	}
}

// A lineHandler makes slog write lines of the form above.
type lineHandler struct {
	out   io.Writer
	level slog.Level
	// heard is told of each line; nil: nobody is.
	heard func(now time.Time, level slog.Level, action string, line []byte)

	mu     sync.Mutex // protects following
	line   []byte     // the last one; the next has its memory
	time   []byte     // at the start of line; the next has it too if it is of the same second
	second int64      // of time, since 1970
}

// newLogger returns a logger of lines from level up. out should be shared by all loggers of
// a program: see lineWriter.
func newLogger(out io.Writer, level slog.Level) *slog.Logger {
	return slog.New(&lineHandler{out: out, level: level})
}

func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle writes the record as one line in one write. Its first attribute must be one of the
// results.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if second := r.Time.Unix(); second != h.second || h.time == nil {
		h.time, h.second = r.Time.AppendFormat(h.time[:0], lineTime), second
	}
	h.line = appendLine(append(h.line[:0], h.time...), r)
	if h.heard != nil {
		h.heard(r.Time, r.Level, r.Message, h.line)
	}
	h.line = append(h.line, '\n')
	_, err := h.out.Write(h.line)
	return err
}

// WithAttrs and WithGroup return h: the program's loggers have no attributes of their own.
func (h *lineHandler) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *lineHandler) WithGroup(string) slog.Handler      { return h }

// logBatch logs the line of a batch, at INFO, for a third of what Logger.Info takes: it does not
// look up where in the program it was called.
func logBatch(log *slog.Logger, action string, details ...slog.Attr) {
	if ctx := context.Background(); log.Enabled(ctx, slog.LevelInfo) {
		r := slog.NewRecord(time.Now(), slog.LevelInfo, action, 0)
		r.AddAttrs(details...)
		log.Handler().Handle(ctx, r)
	}
}

// levelName returns the name that the course gives to level.
func levelName(level slog.Level) string {
	if level == slog.LevelWarn {
		return "WARNING"
	}
	return level.String()
}

// lineTime is the form of the time at the start of a line.
const lineTime = "2006-01-02 15:04:05"

// appendLine appends to a line that has its time the rest of it, without the line break.
func appendLine(line []byte, r slog.Record) []byte {
	name := levelName(r.Level)
	line = append(append(append(line, ' '), name...), "         "[len(name):]...)
	line = append(append(line, "action: "...), r.Message...)
	r.Attrs(func(a slog.Attr) bool {
		line = append(append(append(line, " | "...), a.Key...), ": "...)
		line = appendValue(line, a.Value)
		return true
	})
	return line
}

// maxValue is how many bytes of a value a line shows: what a peer or a file says may be long.
const maxValue = 512

// appendValue appends the value of a key. All values pass through here, so whatever a peer or a
// file says is made harmless and cut to maxValue bytes.
func appendValue(line []byte, value slog.Value) []byte {
	if value.Kind() == slog.KindInt64 { // as in the lines of batches
		return strconv.AppendInt(line, value.Int64(), 10)
	}
	text, start := value.String(), len(line)
	line = appendHarmless(line, text[:min(len(text), maxValue+1)])
	if len(line)-start <= maxValue {
		return line
	}
	end := start + maxValue - len("…")
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return append(line[:end], "…"...)
}

// appendHarmless appends s with all that could break or forge a line as \x or \u escapes:
// line breaks of any alphabet, control characters, '|', bytes that are not UTF-8.
func appendHarmless(line []byte, s string) []byte {
	for i := 0; i < len(s); {
		char, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case char == utf8.RuneError && size == 1, char == '|', char < ' ', char == 0x7f:
			line = fmt.Appendf(line, `\x%02x`, s[i])
		case unicode.IsControl(char), char == '\u2028', char == '\u2029':
			line = fmt.Appendf(line, `\u%04x`, char)
		default:
			line = append(line, s[i:i+size]...)
		}
		i += size
	}
	return line
}
