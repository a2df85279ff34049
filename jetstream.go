//go:build !nostream && !notls

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// What the engine, NATS JetStream, is asked about one of its streams, and what it answers: JSON on
// subjects of its own, and messages as they are. docs/replication.md says what it is trusted with.

const (
	// apiWait is how long an answer is waited for. Then a record is looked for in the stream, and
	// sent again.
	apiWait = 2 * time.Second
	// goneAfter is for how long the engine has to say that there is no such stream until that is
	// believed: one that is just starting may not know of it yet. On a busy machine more than 3 s
	// were seen.
	goneAfter = 30 * time.Second
	// maxShared is how long a record may be: a longer one does not go into the redo log.
	maxShared = walMaxRecord - walRecordHead
	// storeKey is where the stream's metadata has the identity of the store.
	storeKey = "tp0-store"
)

// The engine's error codes that decide something here.
const (
	codeNoPeers     = 10005 // too few servers are up, or so it seems to one that has just started
	codeNoMessage   = 10037
	codeTooLarge    = 10054
	codeNameInUse   = 10058
	codeStreamGone  = 10059
	codeWrongStream = 10060
	codeStoreFailed = 10077
)

// An apiError is an error that the engine answers with.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%.200s (code %d)", e.Description, cmp.Or(e.ErrCode, e.Code))
}

// isCode reports whether err is the engine's error of that code.
func isCode(err error, code int) bool {
	var answered *apiError
	return errors.As(err, &answered) && answered.ErrCode == code
}

// errNotThere says that whoever was asked does not have the record. Another one may.
var errNotThere = errors.New("the record is not there")

// A jetStream asks about one stream.
type jetStream struct {
	engine *nats
	name   string
	wait   time.Duration // apiWait, but in tests
	took   *histogram    // by the records that were acknowledged
	gone   time.Time     // since when the engine says that there is no such stream; zero: it does not
}

// subject returns where records go ("log"), or signs of life ("alive").
func (s *jetStream) subject(what string) string { return strings.ToLower(s.name) + "." + what }

// errorf returns an error about the stream.
func (s *jetStream) errorf(format string, args ...any) error {
	return sharedError{fmt.Errorf("stream %s: "+format, append([]any{s.name}, args...)...)}
}

// fatalf returns an error about the stream after which nothing may be answered any more.
func (s *jetStream) fatalf(format string, args ...any) error {
	return &fatalError{s.errorf(format, args...)}
}

// send sends record, which is taken only if the last one has the number before.
func (s *jetStream) send(number uint64, record []byte) (*natsCall, error) {
	header := []natsField{{"Nats-Expected-Stream", s.name},
		{"Nats-Expected-Last-Sequence", strconv.FormatUint(number-1, 10)}}
	return s.engine.send(s.subject("log"), header, record)
}

// A pubAck is the engine's answer to a record.
type pubAck struct {
	Error  *apiError `json:"error"`
	Stream string    `json:"stream"`
	Seq    uint64    `json:"seq"`
}

// sent waits for the answer to a record that was sent. nil: it is stored. Any error but a fatal one
// says nothing of whether it is.
func (s *jetStream) sent(ctx context.Context, call *natsCall, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	m, err := call.wait(ctx)
	if err != nil {
		return s.unanswered(err)
	}
	var ack pubAck
	switch err := json.Unmarshal(m.body, &ack); {
	case err != nil:
		return s.errorf("record %d got an answer that is none: %v", number, err)
	case ack.Error != nil:
		return s.judge(ack.Error)
	case ack.Stream != s.name || ack.Seq != number:
		return s.fatalf("record %d was stored as number %d of %.40q: this is not the stream any more that it was: "+
			"stop all servers and look into it", number, ack.Seq, ack.Stream)
	}
	s.took.observe(time.Since(call.began))
	return nil
}

// unanswered says what it may mean that a request got no answer.
func (s *jetStream) unanswered(err error) error {
	var refused *natsError
	switch {
	case errors.As(err, &refused):
		return s.errorf("%w: give stream.user the rights that docs/replication.md lists", err)
	case errors.Is(err, errNoResponders):
		return s.errorf("it has no leader now")
	case errors.Is(err, context.DeadlineExceeded):
		return s.errorf("no answer came: there is no quorum, or stream.user may not ask")
	case errors.Is(err, errNATSTooLong):
		return s.fatalf("%w: set max_payload of each server to 1 MiB or more", err)
	}
	return s.errorf("%w", err)
}

// judge says what an error of the engine means: a fatal error, or that it may be tried again.
//
// Most are about a state that passes: no leader, no quorum, overload, no room. Even 10071, a wrong
// last sequence, says nothing yet: what the leader compares with may be a record that was proposed
// and never gets its quorum, even this very one.
func (s *jetStream) judge(e *apiError) error {
	switch e.ErrCode {
	case codeStreamGone:
		if s.gone.IsZero() {
			s.gone = time.Now()
		}
		if time.Since(s.gone) < goneAfter {
			return s.errorf("%w", e)
		}
		return s.fatalf("the engine has no such stream: set stream.name; or, to make one from this store, stop the " +
			"server and start -mode=replicate")
	case codeWrongStream:
		return s.fatalf("%w: its subject %s leads to another stream", e, s.subject("log"))
	case codeTooLarge, codeStoreFailed:
		return s.fatalf("%w: see to it that a record of %d bytes fits (max_payload, max_msg_size)", e, maxShared)
	}
	return s.errorf("%w", e)
}

// api asks a question, or sends none where that is nil, and reads the answer. An error that the
// engine answers with is an apiError.
func (s *jetStream) api(ctx context.Context, what string, question, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	body := []byte(nil)
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return s.errorf("%w", err)
		}
	}
	m, err := s.engine.request(ctx, "$JS.API.STREAM."+what+"."+s.name, nil, body)
	if err != nil {
		s.gone = time.Time{}
		return s.unanswered(err)
	}
	failed := struct {
		Error *apiError `json:"error"`
	}{}
	if err = json.Unmarshal(m.body, &failed); err == nil && failed.Error == nil {
		err = json.Unmarshal(m.body, answer)
	}
	if err != nil {
		return s.errorf("%s got an answer that is none: %v", what, err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	s.gone = time.Time{}
	return nil
}

// info returns what the stream's leader says of it.
func (s *jetStream) info(ctx context.Context) (info streamInfo, err error) {
	err = s.api(ctx, "INFO", nil, &info)
	return info, err
}

// create makes the stream, for the records of the store id. Where there is one with the same
// configuration already, that is it.
func (s *jetStream) create(ctx context.Context, id storeID, replicas int) error {
	c := streamConfig{Name: s.name, Subjects: []string{s.subject("log")}, Retention: "limits", Storage: "file",
		Replicas: replicas, Discard: "new", streamLimits: streamLimits{MaxMsgs: -1, MaxBytes: -1, MaxPerSubject: -1,
			MaxMsgSize: -1, MaxConsumers: -1, Duplicates: int64(2 * time.Minute)},
		AllowDirect: true, DenyDelete: true, DenyPurge: true, Metadata: map[string]string{storeKey: id.String()}}
	return s.api(ctx, "CREATE", c, new(struct{}))
}

// A seqRequest asks for records: one, or a batch from one on.
type seqRequest struct {
	Seq      uint64 `json:"seq"`
	Batch    int    `json:"batch,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
}

// get returns a record from the leader.
func (s *jetStream) get(ctx context.Context, number uint64) ([]byte, error) {
	var found struct {
		Message struct {
			Seq  uint64 `json:"seq"`
			Data []byte `json:"data"`
		} `json:"message"`
	}
	err := s.api(ctx, "MSG.GET", seqRequest{Seq: number}, &found)
	var answered *apiError
	switch {
	case isCode(err, codeNoMessage):
		return nil, errNotThere
	case errors.As(err, &answered):
		return nil, s.judge(answered)
	case err != nil:
		return nil, err
	case found.Message.Seq != number || len(found.Message.Data) > maxShared:
		return nil, s.errorf("asked for record %d it gave %d of %d bytes", number, found.Message.Seq,
			len(found.Message.Data))
	}
	return found.Message.Data, nil
}

// direct returns a record from any replica: that of the server at the other end, if it has one.
func (s *jetStream) direct(ctx context.Context, number uint64) (record []byte, err error) {
	err = s.batch(ctx, seqRequest{Seq: number, Batch: 1}, func(at uint64, found []byte) error {
		if at == number {
			record = append([]byte{}, found...)
		}
		return nil
	})
	if err == nil && record == nil {
		err = errNotThere
	}
	return record, err
}

// batch yields the records that some replica has from a number on. It steps over those that it
// lacks. An error of yield is returned as it is.
func (s *jetStream) batch(ctx context.Context, from seqRequest, yield func(at uint64, record []byte) error) error {
	body, err := json.Marshal(from)
	if err != nil {
		return s.errorf("%w", err)
	}
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.wait, func() { cancel(context.DeadlineExceeded) }) // for each message anew
	defer silence.Stop()
	var stop error
	err = s.engine.ask(limited, "$JS.API.DIRECT.GET."+s.name, body, func(m natsMessage) bool {
		switch m.status {
		case 0:
		case 204, 404: // that was all; there are none
			return false
		default:
			stop = s.errorf("reading record %d: the engine answers %d", from.Seq, m.status)
			return false
		}
		at, err := strconv.ParseUint(m.field("Nats-Sequence"), 10, 64)
		if err != nil || at < from.Seq || at == math.MaxUint64 || len(m.body) > maxShared {
			stop = s.errorf("asked for record %d it gave %.20q of %d bytes", from.Seq, m.field("Nats-Sequence"),
				len(m.body))
			return false
		}
		silence.Stop()
		stop = yield(at, m.body)
		silence.Reset(s.wait)
		return stop == nil
	})
	switch {
	case stop != nil || err == nil:
		return stop
	case limited.Err() != nil:
		err = context.Cause(limited)
	}
	return s.unanswered(err)
}

// A streamInfo is what the engine says of a stream.
type streamInfo struct {
	Config streamConfig `json:"config"`
	State  struct {
		Messages uint64 `json:"messages"`
		LastSeq  uint64 `json:"last_seq"`
	} `json:"state"`
	Cluster struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
}

// missing returns how many records the leader lacks.
func (i *streamInfo) missing() uint64 {
	return i.State.LastSeq - min(i.State.Messages, i.State.LastSeq)
}

// A streamConfig is the configuration of a stream: what create sets, and then what must not be set.
type streamConfig struct {
	Name      string   `json:"name"`
	Subjects  []string `json:"subjects"`
	Retention string   `json:"retention"`
	Storage   string   `json:"storage"`
	Replicas  int      `json:"num_replicas"`
	Discard   string   `json:"discard"`
	streamLimits
	AllowDirect bool              `json:"allow_direct"`
	DenyDelete  bool              `json:"deny_delete"`
	DenyPurge   bool              `json:"deny_purge"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	streamExtras
}

// streamLimits are bounds of what a stream keeps; -1 is none.
type streamLimits struct {
	MaxMsgs       int64 `json:"max_msgs"`
	MaxBytes      int64 `json:"max_bytes"`
	MaxAge        int64 `json:"max_age"` // nanoseconds, as Duplicates; 0: none
	MaxPerSubject int64 `json:"max_msgs_per_subject"`
	MaxMsgSize    int64 `json:"max_msg_size"`
	MaxConsumers  int   `json:"max_consumers"`
	Duplicates    int64 `json:"duplicate_window"`
}

// streamExtras are settings that a log must not have.
type streamExtras struct {
	Sealed    bool            `json:"sealed,omitempty"`
	NoAck     bool            `json:"no_ack,omitempty"`
	Rollup    bool            `json:"allow_rollup_hdrs,omitempty"`
	MsgTTL    bool            `json:"allow_msg_ttl,omitempty"`
	Counter   bool            `json:"allow_msg_counter,omitempty"`
	Schedules bool            `json:"allow_msg_schedules,omitempty"`
	Persist   string          `json:"persist_mode,omitempty"`
	FirstSeq  uint64          `json:"first_seq,omitempty"`
	Mirror    json.RawMessage `json:"mirror,omitempty"`
	Sources   json.RawMessage `json:"sources,omitempty"`
	Transform json.RawMessage `json:"subject_transform,omitempty"`
}

// wrong returns what is wrong with the settings, nothing if they are as a log needs them. It says
// what they are, and what they should be.
func (c *streamConfig) wrong(subject string, replicas int) string {
	unlike := func(key string, got, want any) string {
		return fmt.Sprintf("%s is %v: set it to %v", key, got, want)
	}
	for _, row := range []struct {
		key       string
		got, want any
	}{
		{"retention", c.Retention, "limits"},
		{"storage", c.Storage, "file"},
		{"discard", c.Discard, "new"},
		{"max_msgs", c.MaxMsgs, int64(-1)},
		{"max_bytes", c.MaxBytes, int64(-1)},
		{"max_age", c.MaxAge, int64(0)},
		{"max_msgs_per_subject", c.MaxPerSubject, int64(-1)},
		{"max_msg_size", c.MaxMsgSize, int64(-1)},
		{"allow_direct", c.AllowDirect, true},
		{"deny_delete", c.DenyDelete, true},
		{"deny_purge", c.DenyPurge, true},
		{"sealed", c.Sealed, false},
		{"no_ack", c.NoAck, false},
		{"allow_rollup_hdrs", c.Rollup, false},
		{"allow_msg_ttl", c.MsgTTL, false},
		{"allow_msg_counter", c.Counter, false},
		{"allow_msg_schedules", c.Schedules, false},
		{"mirror", c.Mirror != nil, false},
		{"sources", c.Sources != nil, false},
		{"subject_transform", c.Transform != nil, false},
	} {
		if row.got != row.want {
			return unlike(row.key, row.got, row.want)
		}
	}
	switch {
	case len(c.Subjects) != 1 || c.Subjects[0] != subject:
		return unlike("subjects", fmt.Sprintf("%.80q", c.Subjects), fmt.Sprintf("%q", subject))
	case c.Replicas < replicas:
		return unlike("num_replicas", c.Replicas, replicas)
	case c.Persist == "async": // records are written before they are synced
		return unlike("persist_mode", c.Persist, "default")
	case c.FirstSeq > 1:
		return unlike("first_seq", c.FirstSeq, 1)
	}
	return ""
}
