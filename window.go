package main

import (
	"context"
	"sync"
)

// A window holds where the batches stand in the agency file that are sent, or
// about to be, and not answered, in order. The sender puts batches in and waits
// for room; the receiver waits for the first batch, and takes it out when its
// answer has come. Its contents outlive the connection: the next one needs them
// to know which answers were lost.
type window struct {
	size    int        // batches at most
	mu      sync.Mutex // protects following
	changed sync.Cond
	spans   []span
	popped  int   // batches that were answered
	ended   bool  // nothing more is put in
	err     error // why the session ends before its time; nil: it does not
}

// newWindow returns an empty window for size batches.
func newWindow(size int) *window {
	w := &window{size: size}
	w.changed.L = &w.mu
	return w
}

// push puts in a batch. There must be room.
func (w *window) push(s span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spans = append(w.spans, s)
	w.changed.Broadcast()
}

// count returns how many batches are in the window: size of them leave no room.
func (w *window) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.spans)
}

// awaitRoom waits until there is room for a batch or ctx is cancelled (wake must
// be called then), and returns why the session ends if it does. answered is how
// many batches were answered.
func (w *window) awaitRoom(ctx context.Context) (answered int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.spans) >= w.size && w.err == nil && ctx.Err() == nil {
		w.changed.Wait()
	}
	return w.popped, w.err
}

// oldest returns the batch whose answer comes next, once there is one; more is
// false when none will come.
func (w *window) oldest() (s span, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.spans) == 0 && !w.ended && w.err == nil {
		w.changed.Wait()
	}
	if len(w.spans) == 0 || w.err != nil {
		return span{}, false
	}
	return w.spans[0], true
}

// pop takes out the oldest batch, whose answer has been dealt with.
func (w *window) pop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spans = w.spans[:copy(w.spans, w.spans[1:])]
	w.popped++
	w.changed.Broadcast()
}

// wake lets those who wait look again, at ctx.
func (w *window) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed.Broadcast()
}

// end says that nothing more is put in: with nil the receiver ends once the window is empty, with
// an error both sides end their waits now, and with the first error.
func (w *window) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.err == nil {
		w.err = err
	}
	w.changed.Broadcast()
}
