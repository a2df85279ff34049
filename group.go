package main

import "encoding/binary"

// groupMax is the size from which a group takes no more, in bytes. Two of them exist at a time.
const groupMax = 512 << 10

// A group is what one record of the log and one sync make durable: messages of any number of connections, in the order of their submission.
type group struct {
	buf      []byte // the record: head, fixed part, rows; seal appends the rest
	count    uint32 // rows
	messages int
	marks    []sourceMark
	sources  []*source // of marks
	winners  []byte    // as in the record
	nwinners uint32
	finished []byte
	draw     bool
	done     chan struct{} // closed when err is final
	err      error         // nil: durable; a fatalError: nothing may be said of it; else: nothing of it is stored
}

// rowsAt is where the rows start in a group's buffer.
const rowsAt = walRecordHead + recordRowsAt

// A source is a file that a connection is sending now: it lives from the HELLO to the settling of the last group that it has a part in.
type source struct {
	key       sourceKey
	submitted Resume   // how far it got, with all groups under way
	owner     *session // nil: its connection is gone
	group     *group   // the last one under way that it has a part in
	mark      int      // its index in group's marks
	fresh     bool     // the state does not know it yet
}

// A session is a connection's part in the store. Only its connection uses it, but for what the store's lock guards.
type session struct {
	src    *source // nil: no HELLO
	at     Resume  // how far the source got with all that this session submitted
	fence  func()  // closes the connection; called with the store locked
	fenced bool    // another session has taken the source over, or a group failed; guarded by the store's lock
}

// A decision is what a connection found about one BATCH or BET: which bets are good, and the source's state after it.
type decision struct {
	rows    []byte // of the good bets
	count   int    // of rows
	winners []byte // appendPacked for each good bet that wins if there is a draw
	won     int    // of winners
	total   int    // bets, good or not
	at      Resume // of the source; with HELLO only
}

// newGroup returns a group that fills buf.
func newGroup(buf []byte) *group {
	if cap(buf) < rowsAt {
		buf = make([]byte, rowsAt, 64<<10)
	}
	return &group{buf: buf[:rowsAt], done: make(chan struct{})}
}

// takesMore tells whether the group is not full.
func (g *group) takesMore() bool {
	return len(g.buf)+len(g.winners)+len(g.marks)*(maxSource+14) < groupMax
}

// seal completes the record of a group whose rows start at length in the bets file.
func (g *group) seal(length int64) (rec, rows []byte) {
	le := binary.LittleEndian
	end := len(g.buf)
	le.PutUint64(g.buf[walRecordHead:], uint64(length))
	le.PutUint32(g.buf[walRecordHead+8:], g.count)
	le.PutUint32(g.buf[walRecordHead+12:], uint32(end-rowsAt))
	g.buf = le.AppendUint16(g.buf, uint16(len(g.marks)))
	for _, m := range g.marks {
		g.buf = appendMark(g.buf, m)
	}
	g.buf = append(le.AppendUint32(g.buf, g.nwinners), g.winners...)
	g.buf = append(append(g.buf, byte(len(g.finished))), g.finished...)
	draw := byte(0)
	if g.draw {
		draw = 1
	}
	g.buf = append(g.buf, draw)
	return g.buf, g.buf[rowsAt:end]
}

// enter makes src part of g. The store is locked.
func (src *source) enter(g *group) {
	if src.group != g {
		src.group, src.mark = g, len(g.marks)
		g.sources = append(g.sources, src)
		g.marks = append(g.marks, sourceMark{key: src.key})
	}
	g.marks[src.mark].at = src.submitted
}
