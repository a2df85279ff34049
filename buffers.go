package main

import (
	"sync"
	"sync/atomic"
)

const (
	// connBuffer is what a connection reads at once: several batches, so that a read costs
	// little a bet.
	connBuffer = 64 << 10
	// largeBuffers is how many connections read so much at once; those beyond read a message at
	// a time. So 255 agencies that send at once fit into the memory of a small board.
	largeBuffers = 64
)

// The buffers of connections that are not idle. Each takes a message at least.
type buffers struct {
	pool sync.Pool    // of *[connBuffer]byte
	lent atomic.Int32 // out of it
}

// take returns a buffer, until give.
func (b *buffers) take() []byte {
	if b.lent.Add(1) > largeBuffers {
		b.lent.Add(-1)
		return make([]byte, maxMessage)
	}
	if large, ok := b.pool.Get().(*[connBuffer]byte); ok {
		return large[:]
	}
	return make([]byte, connBuffer)
}

// give takes a buffer back.
func (b *buffers) give(buffer []byte) {
	if len(buffer) == connBuffer {
		b.pool.Put((*[connBuffer]byte)(buffer))
		b.lent.Add(-1)
	}
}
