package main

import "testing"

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
