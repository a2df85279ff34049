package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// connBuffer is what a connection reads at once: several batches, so that a read costs
	// little a bet.
	connBuffer = 64 << 10
	// largeBuffers is how many connections read so much at once; those beyond read a message at
	// a time. So 255 agencies that send at once fit into the memory of a small board.
	largeBuffers = 64
	// calmAfter is how long all connections must have been idle before memory is given back.
	calmAfter = 3 * time.Second
)

// The buffers of connections that are not idle. Each takes a message at least.
type buffers struct {
	pool sync.Pool    // of *[connBuffer]byte
	lent atomic.Int32 // of either size
	calm atomic.Bool  // calmAfter runs
}

// take returns a buffer, until give.
func (b *buffers) take() []byte {
	if b.lent.Add(1) > largeBuffers {
		return make([]byte, maxMessage)
	}
	if large, ok := b.pool.Get().(*[connBuffer]byte); ok {
		return large[:]
	}
	return make([]byte, connBuffer)
}

// give takes a buffer back. Once none has been lent for calmAfter, the system gets back what the
// work took.
func (b *buffers) give(buffer []byte) {
	if len(buffer) == connBuffer {
		b.pool.Put((*[connBuffer]byte)(buffer))
	}
	if b.lent.Add(-1) > 0 || !b.calm.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(calmAfter, func() {
		b.calm.Store(false)
		if b.lent.Load() == 0 {
			returnMemory()
		}
	})
}

// A framer cuts the bytes of a connection into messages. It owns its buffer; what unread
// returns is valid until the next fill or discard.
type framer struct {
	src  io.Reader
	buf  []byte // buf[r:w] is read from src but not yet consumed
	r, w int
}

// unread returns the bytes that are there and not consumed.
func (f *framer) unread() []byte { return f.buf[f.r:f.w] }

// discard consumes n bytes.
func (f *framer) discard(n int) {
	f.r += n
	if f.r == f.w {
		f.r, f.w = 0, 0
	}
}

// fill reads once more, after what is there. It moves the rest of the buffer to its front only
// when the room behind it would not take a whole message. It fails with io.ErrShortBuffer if
// the buffer is full of one message that goes on.
func (f *framer) fill() error {
	if len(f.buf)-f.r < maxMessage || f.w == len(f.buf) {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if f.w == len(f.buf) {
		return io.ErrShortBuffer
	}
	n, err := f.src.Read(f.buf[f.w:])
	f.w += n
	if n > 0 {
		return nil // an error will come again
	}
	return err
}
