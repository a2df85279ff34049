package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"testing"
	"testing/iotest"
)

// TestBuffers: so many connections read much at once, those beyond a message, whoever gives back.
func TestBuffers(t *testing.T) {
	var b buffers
	var taken [][]byte
	for i := range 2 * largeBuffers {
		want := connBuffer
		if i >= largeBuffers {
			want = maxMessage
		}
		taken = append(taken, b.take())
		if got := len(taken[i]); got != want {
			t.Fatalf("buffer %d: got %d bytes, want %d", i, got, want)
		}
	}
	for _, buffer := range taken {
		b.give(buffer)
	}
	if got := len(b.take()); got != connBuffer || b.lent.Load() != 1 {
		t.Errorf("got %d bytes and %d lent after all were given back, want %d and 1", got, b.lent.Load(), connBuffer)
	}
}

// TestFramer cuts a stream of all golden messages and one of the longest, several buffers of
// it, however the bytes come.
func TestFramer(t *testing.T) {
	var stream []byte
	var want []string
	for len(stream) < 200<<10 {
		for _, tt := range goldenMessages {
			stream = append(stream, wireHex(t, tt.hex)...)
			want = append(want, fmt.Sprintf("%q", tt.value))
		}
		longest := Bet{Agency: 9, First: bytes.Repeat([]byte("x"), maxMessage-minBet)}
		stream = appendBet(stream, &longest)
		want = append(want, fmt.Sprintf("%q", longest))
	}
	rnd := rand.New(rand.NewSource(1))
	sources := map[string]func() io.Reader{
		"all at once":            func() io.Reader { return bytes.NewReader(stream) },
		"a byte at a time":       func() io.Reader { return iotest.OneByteReader(bytes.NewReader(stream)) },
		"half of what is asked":  func() io.Reader { return iotest.HalfReader(bytes.NewReader(stream)) },
		"the end with the bytes": func() io.Reader { return iotest.DataErrReader(bytes.NewReader(stream)) },
		"random":                 func() io.Reader { return &randomReader{bytes.NewReader(stream), rnd} },
	}
	for name, src := range sources {
		for _, size := range []int{maxMessage, maxMessage + 1, 12345, 64 << 10} {
			f := &framer{src: src(), buf: make([]byte, size)}
			got := frameAll(t, f)
			if len(got) != len(want) {
				t.Fatalf("%s, buffer of %d: got %d messages, want %d", name, size, len(got), len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%s, buffer of %d, message %d: got %s, want %s", name, size, i, got[i], want[i])
				}
			}
		}
	}
}

// frameAll reads all messages of f.
func frameAll(t *testing.T, f *framer) (all []string) {
	t.Helper()
	for {
		v, size, err := wireParse(f.unread())
		if err == nil {
			all = append(all, fmt.Sprintf("%q", v))
			f.discard(size)
			continue
		}
		if err != errShort {
			t.Fatalf("message %d: %v", len(all), err)
		}
		if err := f.fill(); err != nil {
			if err != io.EOF || len(f.unread()) > 0 {
				t.Fatalf("after message %d: got %v with %d bytes unread, want EOF "+
					"with none", len(all), err, len(f.unread()))
			}
			return all
		}
	}
}

// A randomReader returns a random number of bytes, sometimes none.
type randomReader struct {
	src io.Reader
	rnd *rand.Rand
}

func (r *randomReader) Read(p []byte) (int, error) {
	return r.src.Read(p[:r.rnd.Intn(min(len(p), 3000)+1)])
}

// TestFramerFull has a message that is longer than the buffer: the reader must be told, or it
// would ask for more for ever.
func TestFramerFull(t *testing.T) {
	f := &framer{src: bytes.NewReader(make([]byte, 100)), buf: make([]byte, 64)}
	if err := f.fill(); err != nil || len(f.unread()) != 64 {
		t.Fatalf("got %d bytes, %v, want 64", len(f.unread()), err)
	}
	if err := f.fill(); err == nil {
		t.Error("fill of a full buffer: got no error, want one")
	}
	f.discard(1)
	if err := f.fill(); err != nil || len(f.unread()) != 64 {
		t.Errorf("after discard: got %d bytes, %v, want 64", len(f.unread()), err)
	}
}
