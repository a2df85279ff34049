package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// overTLS reports whether every process is given keys and every connection speaks TLS: with
// `TLS=1 go test ./e2e -run …` the tests of the wire, of kills, of bad networks and of the draw
// run once more like that.
var overTLS = os.Getenv("TLS") == "1"

// sharedKeys returns a folder with the keys of a server and of all agencies, made once.
var sharedKeys = sync.OnceValue(func() string {
	path, err := program()
	if err != nil {
		panic(err)
	}
	if programDir == "" { // the program was built before
		if programDir, err = os.MkdirTemp("", "tp0-e2e-"); err != nil {
			panic(err)
		}
	}
	cmd := exec.Command(path, "-mode=keys", "-agencies=255")
	cmd.Dir = programDir
	if output, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %v\n%s", cmd, err, output))
	}
	return filepath.Join(programDir, "keys")
})

// keyVariables returns what gives a process with these arguments its keys.
func keyVariables(args []string) []string {
	file := "agency-{id}.pem"
	switch {
	case !overTLS || slices.Contains(args, "-mode=keys"):
		return nil
	case slices.Contains(args, "-mode=server"):
		return []string{"TLS_CERT=" + filepath.Join(sharedKeys(), "server.pem"), "TLS_KNOWN=" +
			filepath.Join(sharedKeys(), "known")}
	case slices.Contains(args, "-mode=health"):
		file = "server.pem"
	}
	return []string{"TLS_CERT=" + filepath.Join(sharedKeys(), file)}
}

// agencyIn returns the agency that a client's first message is of, 1 where it is of none.
func agencyIn(m []byte) int {
	at := map[byte]int{1: 1, 3: 4, 4: 1, 6: 2}[append(m, 0)[0]]
	if at == 0 || at >= len(m) || m[at] == 0 {
		return 1
	}
	return int(m[at])
}

// dialAs connects to the server as an agency.
func (o *office) dialAs(t *testing.T, agency int) *wire {
	t.Helper()
	w := dialWire(t, o.address())
	if overTLS {
		w.Conn = tls.Client(w.Conn, keyConfig(t, filepath.Join(sharedKeys(), fmt.Sprintf("agency-%d.pem", agency))))
	}
	return w
}

// keyConfig returns how a client in another language would come with the keys of a file: it
// takes the key, and the certificates of which the first is its own.
func keyConfig(t *testing.T, path string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	pair.Certificate = pair.Certificate[:1]
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
}

// manyAgencies names the transcripts in which one connection speaks for several agencies, which
// no key may.
const manyAgencies = "several messages, one after the other; quotes where they are needed; " +
	"the draw, as the course's clients ask"

// skipOverTLS reports whether a transcript cannot be held with a key.
func (tr *transcript) skipOverTLS() bool { return overTLS && strings.Contains(manyAgencies, tr.name) }
