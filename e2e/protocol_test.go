package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// docSession finds the sessions of docs/protocol.md: name, agencies of the draw, contents.
var docSession = regexp.MustCompile("(?ms)^```hex name=(session-[a-z-]+) agencies=([0-9]+)\n(.*?)^```$")

// TestE2EProtocolDocument plays the sessions of docs/protocol.md against a server, byte for byte.
// Each ends with an ACK 6.
func TestE2EProtocolDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	sessions := docSession.FindAllStringSubmatch(string(text), -1)
	if marks := strings.Count(string(text), "```hex name=session-"); marks != len(sessions) || marks < 2 {
		t.Fatalf("got %d sessions that can be read, want all %d, and at least 2", len(sessions), marks)
	}
	for _, session := range sessions {
		t.Run(session[1], func(t *testing.T) {
			t.Parallel()
			o := openOffice(t, "-draw.agencies="+session[2])
			w := o.dial(t)
			for line := range strings.Lines(session[3]) {
				line, _, _ = strings.Cut(line, "#")
				m := wireBytes(t, line[1:])
				if line[0] == '>' {
					w.send(m)
				} else if got := w.receive(len(m)); string(got) != string(m) {
					t.Fatalf("got %x, want %x", got, m)
				}
			}
			w.wantEnd()
			o.stop()
		})
	}
}
