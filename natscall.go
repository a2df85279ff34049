//go:build !nostream && !notls

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// maxNATSUnread is how many bytes of answers wait for whoever asked.
const maxNATSUnread = 4 * maxNATSMessage

var (
	// errNATSLost: there is no connection, or it was lost while the request was outstanding. Then
	// nobody knows whether the request was heard.
	errNATSLost = errors.New("the engine cannot be reached")
	// errNoResponders: the engine says that nobody took the request.
	errNoResponders = errors.New("the engine has nobody for it now")
)

// The natsCalls of a connection are the requests that are outstanding.
type natsCalls struct {
	mu    sync.Mutex // protects following
	all   map[uint64]*natsCall
	begun uint64 // how many there were
	err   error  // why there are no more; nil: there may be
}

// begin returns a new one, which is abandoned already if there can be none.
func (c *natsCalls) begin(subject string) (*natsCall, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	k := &natsCall{of: c, id: c.begun, subject: subject, began: time.Now(), ready: make(chan struct{}, 1)}
	if c.err == nil {
		c.all[k.id] = k
	}
	return k, c.err
}

// answer hands over an answer, if it is still waited for.
func (c *natsCalls) answer(id uint64, m natsMessage) {
	c.mu.Lock()
	k := c.all[id]
	c.mu.Unlock()
	if k != nil {
		k.add(m)
	}
}

// forbid ends those whose subject stands quoted at the end of text.
func (c *natsCalls) forbid(text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.all {
		if strings.HasSuffix(text, `"`+k.subject+`"`) {
			k.fail(err)
		}
	}
}

// end ends all of them, and those to come.
func (c *natsCalls) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, k := range c.all {
		k.fail(err)
	}
}

// waiting returns how many there are.
func (c *natsCalls) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// A natsCall is a request that is outstanding. One goroutine takes its answers.
type natsCall struct {
	of      *natsCalls
	id      uint64
	subject string
	began   time.Time
	ready   chan struct{} // holds something when something below has changed

	mu      sync.Mutex    // protects following; is taken after that of the natsCalls
	answers []natsMessage // that nobody has taken
	unread  int           // bytes in them
	err     error         // why no more will come; nil: they may
}

// wait returns the answer, and ends the call. After an error of ctx nobody knows whether the
// request was heard.
func (k *natsCall) wait(ctx context.Context) (natsMessage, error) {
	defer k.abandon()
	return k.next(ctx)
}

// abandon ends the call: what still comes is dropped.
func (k *natsCall) abandon() {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	delete(k.of.all, k.id)
}

// next returns the next answer.
func (k *natsCall) next(ctx context.Context) (natsMessage, error) {
	for {
		m, found, err := k.take()
		if found && m.noResponders() {
			return natsMessage{}, errNoResponders
		}
		if found || err != nil {
			return m, err
		}
		select {
		case <-k.ready:
		case <-ctx.Done():
			return natsMessage{}, ctx.Err()
		}
	}
}

// take returns what is there now: an answer, or else why none will come.
func (k *natsCall) take() (m natsMessage, found bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.answers) == 0 {
		return m, false, k.err
	}
	m = k.answers[0]
	k.answers[0] = natsMessage{}
	k.answers = k.answers[1:]
	k.unread -= m.size()
	return m, true, nil
}

// add adds an answer.
func (k *natsCall) add(m natsMessage) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return
	}
	if size := m.size(); k.unread+size <= maxNATSUnread {
		k.answers = append(k.answers, m)
		k.unread += size
	} else {
		k.err = fmt.Errorf("%w: more answers came than can be held", errNATSLost)
	}
	k.signal()
}

// fail says that no answer will come any more. What came before can still be taken.
func (k *natsCall) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = err
	}
	k.signal()
}

// signal wakes whoever waits.
func (k *natsCall) signal() {
	select {
	case k.ready <- struct{}{}:
	default:
	}
}
