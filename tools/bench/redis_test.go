package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestValuesOf(t *testing.T) {
	for _, test := range []struct{ rows, want string }{
		{"", ""}, {"a\n", "a."}, {"a\nb\n", "a b."}, {"a\nb\nc\n", "a b.c."},
	} {
		got := ""
		for _, value := range valuesOf([]byte(test.rows), 2) {
			got += strings.Join(strings.Fields(string(value)), " ") + "."
		}
		if test.want != got {
			t.Errorf("%q: got %q, want %q", test.rows, got, test.want)
		}
	}
}

// TestProduce has values taken by a peer that answers only when a window of them has come.
func TestProduce(t *testing.T) {
	values := [][]byte{[]byte("a\r\n"), []byte("bb"), []byte("ccc"), []byte("d")}
	for _, refused := range []bool{false, true} {
		here, there := net.Pipe()
		var got []string
		go func() {
			defer there.Close()
			in := bufio.NewReader(there)
			for n := 1; n <= len(values); n++ {
				var size int
				if _, err := fmt.Fscanf(in, "*3\r\n$5\r\nRPUSH\r\n$4\r\nbets\r\n$%d\r\n", &size); err != nil {
					return
				}
				value := make([]byte, size+2)
				io.ReadFull(in, value)
				got = append(got, string(value[:size]))
				if n%2 == 0 && refused {
					fmt.Fprintf(there, ":1\r\n-OOM\r\n")
				} else if n%2 == 0 {
					fmt.Fprintf(there, ":%d\r\n:%d\r\n", n-1, n)
				}
			}
		}()
		err := produce(here, values, 2)
		here.Close()
		if refused != (err != nil) {
			t.Errorf("refused %v: got error %v", refused, err)
		}
		if want := []string{"a\r\n", "bb", "ccc", "d"}; !refused && !slices.Equal(got, want) {
			t.Errorf("got values %q, want %q", got, want)
		}
	}
}
