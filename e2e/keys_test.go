package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A keyring is a folder of keys, as mode keys leaves it.
type keyring struct {
	t   *testing.T
	dir string // holds the folder keys
}

// newKeyring makes the keys of a server and of agencies 1 to n.
func newKeyring(t *testing.T, n int) *keyring {
	t.Helper()
	k := &keyring{t, t.TempDir()}
	k.run("-agencies=" + strconv.Itoa(n))
	return k
}

// run runs mode keys and returns what it printed.
func (k *keyring) run(args ...string) (lines string) {
	k.t.Helper()
	out, errs, status := runProgram(k.t, k.dir, nil, append([]string{"-mode=keys"}, args...)...)
	if status != exitDone {
		k.t.Fatalf("mode keys: got status %d and %q", status, errs)
	}
	return out
}

// file returns the path of a key file.
func (k *keyring) file(name string) string { return filepath.Join(k.dir, "keys", name) }

// read returns what a key file holds.
func (k *keyring) read(name string) string {
	k.t.Helper()
	text, err := os.ReadFile(k.file(name))
	if err != nil {
		k.t.Fatal(err)
	}
	return string(text)
}

// write writes the known file anew.
func (k *keyring) write(known string) { writeFile(k.t, k.dir, "keys/known", known) }

// without returns the known file less the lines of an owner.
func (k *keyring) without(owner string) (known string) {
	for line := range strings.Lines(k.read("known")) {
		if !strings.HasPrefix(line, owner+" ") {
			known += line
		}
	}
	return known
}

// office opens a server with these keys.
func (k *keyring) office(args ...string) *office {
	k.t.Helper()
	return openOffice(k.t, append([]string{"-tls.cert=" + k.file("server.pem"), "-tls.known=" + k.file("known")},
		args...)...)
}

// dial connects with TLS, as c says; the handshake is made with the first byte that is sent.
func (o *office) dialTLS(t *testing.T, c *tls.Config) *wire {
	t.Helper()
	w := dialWire(t, o.address())
	w.Conn = tls.Client(w.Conn, c)
	return w
}

// pose returns a client's configuration with a certificate for key that others have signed, or
// that says what it should not.
func pose(t *testing.T, key crypto.Signer, change func(c *x509.Certificate), chain ...[]byte) *tls.Config {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0),
		NotAfter: time.Unix(1<<32, 0)}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true}
}

// fingerprintOf is the fingerprint of a public key, made without the program's own code.
func fingerprintOf(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return "sha256:" + base64.StdEncoding.EncodeToString(sum[:])
}

// says are the messages of the matrix, all of agency 1.
var says = []struct {
	name string
	m    []byte
}{
	{"BET", wireBet(1, "A", "B", "1", "2000-01-01", 1)},
	{"BATCH", wireBatch(wireBet(1, "A", "B", "2", "2000-01-01", 2))},
	{"HELLO", wireHello(1, "x")},
	{"NOTIFY 0", []byte{4, 1, 0}},
	{"NOTIFY 1", []byte{4, 1, 1}},
	{"health", wireBatch()},
}

// hear returns what comes back to a message, in a word: an ACK's code, "resume", "nothing" where
// the next message is answered, or why the connection ended.
func hear(w *wire, m []byte) string {
	next := wireBatch() // is answered by ACK 0
	w.SetDeadline(time.Now().Add(patience))
	if _, err := w.Write(append(append([]byte{}, m...), next...)); err != nil &&
		!strings.Contains(err.Error(), "reset") {
		return err.Error()
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(w, head); err != nil {
		return err.Error()
	}
	if head[0] == 7 {
		return "resume"
	}
	status := make([]byte, int(head[2])<<8|int(head[3]))
	if _, err := io.ReadFull(w, status); err != nil {
		return err.Error()
	}
	if m[0] == 4 && m[2] == 0 && head[1] == 0 {
		return "nothing"
	}
	return fmt.Sprintf("ack %d %s", head[1], status)
}

// TestE2EKeyMatrix has all kinds of peers say all kinds of messages.
func TestE2EKeyMatrix(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 3)
	one := keyConfig(t, k.file("agency-1.pem"))
	key := one.Certificates[0].PrivateKey.(crypto.Signer)
	unknown, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	old := one.Clone()
	old.MaxVersion = tls.VersionTLS12
	k.write(k.read("known") + "agency-9 " + fingerprintOf(t, rsaKey.Public()) + " 2026-11-24\n")
	o := k.office("-draw.agencies=200")
	removed := keyConfig(t, k.file("agency-3.pem"))
	k.write(k.without("agency-3"))
	o.waitFor("action: known | result: success", "keys: 3", "closed: 0")
	nothing := func(*x509.Certificate) {}
	takes := []string{"ack 0", "ack 0", "resume", "nothing", "ack 3", "ack 0"}
	same := func(s string) []string { return []string{s, s, s, s, s, s} }
	for _, peer := range []struct {
		name   string
		config *tls.Config
		want   []string // to each of says
		reason string   // in the server's log, where it is refused
	}{
		{"no TLS", nil, same("ack 6 this port takes TLS alone"), "the client speaks without TLS"},
		{"known", one, takes, ""},
		{"unknown", pose(t, unknown, nothing), same("bad certificate"), "its key is not known: sha256:"},
		{"removed", removed, same("bad certificate"), "its key is not known: sha256:"},
		{"no certificate", &tls.Config{InsecureSkipVerify: true}, same("certificate required"),
			"the client shows no certificate"},
		{"other agency's", keyConfig(t, k.file("agency-2.pem")),
			[]string{"ack 1 #1 agency is not the one", "ack 1 #1 agency is not the one",
				"ack 6 HELLO of another agency", "ack 6 NOTIFY of another agency", "ack 6 NOTIFY of another agency",
				"ack 0"}, ""},
		{"server's own", keyConfig(t, k.file("server.pem")),
			append(same("ack 6 the server's own key may ask for health")[:5], "ack 0"), ""},
		{"expired", pose(t, key, func(c *x509.Certificate) { c.NotAfter = time.Unix(1000, 0) }), takes, ""},
		{"not yet valid", pose(t, key, func(c *x509.Certificate) { c.NotBefore = time.Unix(1<<32-1, 0) }), takes, ""},
		{"RSA", pose(t, rsaKey, nothing), same("bad certificate"), "its key is RSA"},
		{"TLS 1.2", old, same("protocol version not supported"), "the client offers no TLS 1.3"},
		{"self-made chain", pose(t, unknown, nothing, one.Certificates[0].Certificate[0]), same("bad certificate"),
			"its key is not known: sha256:"},
	} {
		say := func(i int) {
			w := dialWire(t, o.address())
			if peer.config != nil {
				w.Conn = tls.Client(w.Conn, peer.config)
			}
			if got := hear(w, says[i].m); !strings.Contains(got, peer.want[i]) {
				t.Errorf("%s, %s: got %q, want %q", peer.name, says[i].name, got, peer.want[i])
			}
			w.Close()
		}
		for i := range says {
			say(i)
		}
		// The log has ten such lines a second and no more: it may take another try.
		for range 100 {
			if peer.reason == "" || len(o.lines("action: handshake | result: fail | ip: 127.0.0.1", peer.reason)) > 0 {
				peer.reason = ""
				break
			}
			time.Sleep(100 * time.Millisecond)
			say(5)
		}
		if peer.reason != "" {
			t.Errorf("%s: got no line with %q in the server's log", peer.name, peer.reason)
		}
	}
	o.stop()
	if got := strings.Count(o.stored(t), "\r\n"); got != 6 {
		t.Errorf("got %d rows, want the 6 of those with agency 1's key:\n%s", got, o.stored(t))
	}
}

// TestE2EModeKeys makes keys, more keys, and keys where they are to stay.
func TestE2EModeKeys(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 2)
	before := map[string]string{}
	for _, name := range []string{"server.pem", "server-next.pem", "agency-1.pem", "agency-2.pem", "known"} {
		before[name] = k.read(name)
		if info, _ := os.Stat(k.file(name)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", name, info.Mode())
		}
	}
	lines := k.run("-agencies=4") + k.run("-id=1") + k.run("-id=1")
	for name, text := range before {
		if got := k.read(name); !strings.HasPrefix(got, text) || got != text && name != "known" {
			t.Errorf("%s: got it changed", name)
		}
	}
	if got := k.read("known"); got != before["known"]+lines {
		t.Errorf("got known\n%swith the printed lines\n%s", got, lines)
	}
	for _, name := range []string{"agency-3.pem", "agency-4.pem", "agency-1-2.pem", "agency-1-3.pem"} {
		pair := keyConfig(t, k.file(name)).Certificates[0]
		want := fingerprintOf(t, pair.PrivateKey.(crypto.Signer).Public())
		if owner, _, _ := strings.Cut(name[:8], "."); strings.Count(lines, owner+" "+want+" ") != 1 {
			t.Errorf("%s: got no line %q among\n%s", name, owner+" "+want, lines)
		}
		if got := strings.Count(k.read(name), "BEGIN CERTIFICATE"); got != 3 {
			t.Errorf("%s: got %d certificates, want its own and two of the server", name, got)
		}
	}
	// What was handed over, or is kept elsewhere, is gone from here: nobody gets a second key by
	// that.
	for _, name := range []string{"agency-2.pem", "server-next.pem", "server.pem"} {
		os.Rename(k.file(name), filepath.Join(k.dir, name))
		if out := k.run("-agencies=4"); out != "" {
			t.Errorf("got %q made anew, want nothing", out)
		}
		if _, err := os.Stat(k.file(name)); err == nil {
			t.Errorf("%s: got it made anew", name)
		}
	}
	os.Rename(filepath.Join(k.dir, "server-next.pem"), k.file("server.pem")) // the server's key is replaced
	k.run("-agencies=4")
	if got := k.read("server-next.pem"); got == before["server-next.pem"] ||
		strings.Count(k.read("servers.crt"), "BEGIN") != 3 {
		t.Errorf("got no new server-next.pem, or not its certificate")
	}
	away := &keyring{t, t.TempDir()}
	writeFile(t, away.dir, "keys", "") // a file where the folder should be
	if _, errs, status := runProgram(t, away.dir, nil, "-mode=keys", "-id=7"); status != exitFailed {
		t.Errorf("got status %d and %q, want 1", status, errs)
	}
	os.Remove(filepath.Join(away.dir, "keys"))
	line := away.run("-id=7") // an agency that keeps its key to itself
	o := k.office()
	k.write(k.read("known") + line)
	o.waitFor("action: known | result: success", "closed: 0")
	health := func() (string, int) {
		_, errs, status := runProgram(t, away.dir, nil, "-mode=health", "-server.address="+o.address(),
			"-tls.cert=keys/agency-7.pem")
		return errs, status
	}
	bet := append(strings.Fields("NOMBRE=A APELLIDO=B DOCUMENTO=1 NACIMIENTO=2000-01-01 NUMERO=1"), "CLI_ID=7",
		"CLI_SERVER_ADDRESS="+o.address(), "TLS_CERT=keys/agency-{id}.pem")
	_, errs, status := runProgram(t, away.dir, bet, "-mode=bet")
	if status != exitUsage {
		t.Errorf("without the server's certificates: got status %d", status)
	}
	wantOneLine(t, "without the server's certificates", errs, "servers.crt")
	f, _ := os.OpenFile(away.file("agency-7.pem"), os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(k.read("servers.crt"))
	f.Close()
	if out, errs, status := runProgram(t, away.dir, bet, "-mode=bet"); status != exitDone {
		t.Errorf("with them: got status %d, %q and %q", status, out, errs)
	}
	if errs, status := health(); status != exitDone {
		t.Errorf("health with an agency's key: got status %d and %q", status, errs)
	}
	if _, errs, status := runProgram(t, k.dir, nil, "-mode=health", "-server.address="+o.address(),
		"-tls.cert=keys/server.pem"); status != exitDone {
		t.Errorf("health with the server's key: got status %d and %q", status, errs)
	}
	o.stop()
}

// TestE2EKeyMistakes makes each mistake, and wants one line where it can be mended.
func TestE2EKeyMistakes(t *testing.T) {
	t.Parallel()
	k, theirs := newKeyring(t, 2), newKeyring(t, 1)
	makeLots(t, k.dir, 1, 5, 1)
	o := k.office()
	plain := openOffice(t)
	os.WriteFile(k.file("open.pem"), []byte(k.read("agency-1.pem")), 0o644)
	os.WriteFile(k.file("mixed.pem"), []byte(strings.SplitAfter(k.read("agency-1.pem"),
		"END PRIVATE KEY-----\n")[0]+k.read("servers.crt")), 0o600)
	key := keyConfig(t, theirs.file("agency-1.pem")).Certificates[0].PrivateKey
	known := fingerprintOf(t, key.(crypto.Signer).Public())
	// The key is one of theirs, the servers are ours.
	stranger := strings.SplitAfter(theirs.read("agency-1.pem"), "END CERTIFICATE-----\n")[0] + k.read("servers.crt")
	os.WriteFile(k.file("stranger.pem"), []byte(stranger), 0o600)
	for _, test := range []struct {
		name   string
		to     *office
		cert   string
		status int
		want   []string // of the client
		server string   // in the log of the server, if anything
	}{
		{"an unknown key", o, k.file("stranger.pem"), exitFailed,
			[]string{"does not know this key", known, "central office"},
			"its key is not known: " + known},
		{"another server", o, theirs.file("agency-1.pem"), exitFailed,
			[]string{"posing", "sha256:", "nothing was sent"},
			"does not know this server's key"},
		{"another agency's key", o, k.file("agency-2.pem"), exitFailed, []string{"HELLO of another agency"},
			"HELLO of another agency"},
		{"plain at a TLS port", o, "", exitFailed, []string{"TLS alone", "tls.cert"}, "without TLS"},
		{"TLS at a plain port", plain, k.file("agency-1.pem"), exitFailed, []string{"does not speak TLS", "tls.cert"},
			"set tls.cert and tls.known"},
		{"readable by others", o, k.file("open.pem"), exitUsage, []string{"tls.cert", "0644", "chmod 600"}, ""},
		{"not a pair", o, k.file("mixed.pem"), exitUsage, []string{"tls.cert", "belongs to its private key"}, ""},
		{"no such file", o, k.file("none.pem"), exitUsage, []string{"tls.cert", "no such file"}, ""},
		{"a folder", o, k.dir, exitUsage, []string{"tls.cert", "no regular file"}, ""},
		{"no server's certificate", o, k.file("server.pem"), exitUsage, []string{"tls.cert", "servers.crt"}, ""},
	} {
		_, errs, status := runProgram(t, k.dir, nil, "-mode=client", "-id=1", "-data.file=agency-1.csv",
			"-server.address="+test.to.address(), "-tls.cert="+test.cert)
		if status != test.status {
			t.Errorf("%s: got status %d, want %d", test.name, status, test.status)
		}
		wantOneLine(t, test.name, errs, test.want...)
		if test.server != "" {
			test.to.waitFor("result: fail", test.server)
		}
	}
	server, list := "-tls.cert="+k.file("server.pem"), "-tls.known="+k.file("known")
	writeFile(t, k.dir, "bad", "# no key\nagency-1 x\n")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{list}, []string{"tls.known", "without tls.cert"}},
		{[]string{server}, []string{"tls.cert", "without tls.known"}},
		{[]string{server, "-tls.known=none"}, []string{"tls.known", "no such file"}},
		{[]string{server, "-tls.known=bad"}, []string{"tls.known", "line 2"}},
		{[]string{"-tls.cert=" + k.file("open.pem"), list}, []string{"tls.cert", "chmod 600"}},
	} {
		_, errs, status := runProgram(t, k.dir, nil, append(test.args, "-mode=server", "-server.port=0")...)
		if status != exitUsage {
			t.Errorf("%q: got status %d, want 2", test.args, status)
		}
		wantOneLine(t, fmt.Sprint(test.args), errs, test.want...)
	}
	if rows := o.stored(t) + plain.stored(t); rows != "" {
		t.Errorf("got %q stored, want nothing", rows)
	}
	o.stop()
	plain.stop()
}

// TestE2EOpenToAll wants a warning of a server that anyone can reach, and none of others.
func TestE2EOpenToAll(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 1)
	keys := []string{"-tls.cert=" + k.file("server.pem"), "-tls.known=" + k.file("known")}
	for _, test := range []struct {
		args []string
		want int
	}{{nil, 1}, {[]string{"-server.host=127.0.0.1"}, 0}, {keys, 0}} {
		p := launch(t, t.TempDir(), "server", append(test.args, "-mode=server", "-server.port=0")...)
		p.waitFor("action: accept_connections")
		if got := len(p.lines("WARNING", "whoever reaches this port can pose as any agency",
			"tls.cert")); got != test.want &&
			!overTLS {
			t.Errorf("%q: got %d warnings, want %d", test.args, got, test.want)
		}
		p.wantNoFail()
		p.stop()
	}
}

// TestE2EKnownChanges removes, adds and breaks lines of the known file while agencies send.
func TestE2EKnownChanges(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 3)
	second := k.run("-id=1")
	lots := makeLots(t, k.dir, 3, 4000, 3)
	o := k.office()
	alive := func(w *wire) {
		t.Helper()
		w.send(wireBatch())
		w.wantAck(0, "")
	}
	dial := func(name string) *wire { return o.dialTLS(t, keyConfig(t, k.file(name))) }
	c := launch(t, k.dir, "client 3", "-mode=client", "-id=3", "-data.file=agency-3.csv",
		"-server.address="+o.address(),
		"-tls.cert="+k.file("agency-3.pem"), "-batch.maxAmount=10", "-loop.period=20ms")
	one, other, two := dial("agency-1.pem"), dial("agency-1-2.pem"), dial("agency-2.pem")
	for _, w := range []*wire{one, other, two} { // both keys of agency 1 hold
		alive(w)
	}
	whole, at := k.read("known"), 0
	wait := func(parts ...string) {
		t.Helper()
		_, at = o.waitFrom(at, append(parts, "action: known")...)
	}
	wait("keys: 4")
	k.write(k.without("agency-2"))
	wait("result: success", "keys: 3", "closed: 1")
	two.wantEnd()
	k.write(whole[:len(whole)-30]) // half written
	wait("result: fail", "line 5", "the keys of before hold")
	k.write("")
	wait("result: fail", "is empty")
	os.Rename(k.file("known"), k.file("elsewhere"))
	wait("result: fail", "no such file")
	alive(dial("agency-3.pem"))
	k.write(strings.Replace(whole, strings.TrimSuffix(second, "\n"), "", 1)) // the old key stays, the new one goes
	o.signal(syscall.SIGHUP)
	wait("result: success", "keys: 3", "closed: 1")
	other.wantEnd()
	again := dial("agency-2.pem")
	alive(again)
	k.write(strings.ReplaceAll(k.read("known"), "agency-2 ", "agency-7 ")) // it is another's from now on
	wait("result: success", "keys: 3", "closed: 1")
	again.wantEnd()
	alive(one)
	c.wantExit(exitDone)
	if got := c.lines("action: connect"); len(got) > 0 {
		t.Errorf("an agency whose key stayed: got %q, want it not to notice", got[0])
	}
	wantRows(t, o.stored(t), lots[2])
	o.stop()
}

// TestE2EServerKeyReplaced replaces the server's key by the next one while a client sends.
func TestE2EServerKeyReplaced(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 1)
	lots := makeLots(t, k.dir, 1, 2000, 9)
	o := k.office()
	c := launch(t, k.dir, "client 1", "-mode=client", "-id=1", "-data.file=agency-1.csv",
		"-server.address="+o.address(),
		"-tls.cert="+k.file("agency-1.pem"), "-batch.maxAmount=20", "-loop.period=10ms")
	c.waitFor("action: apuestas_enviadas")
	o.stop()
	o.args[0] = "-tls.cert=" + k.file("server-next.pem")
	o.start(t)
	c.wantExit(exitDone)
	wantRows(t, o.stored(t), lots...)
	o.stop()
}

// TestE2EAgencyConnections has an agency open more connections than it may.
func TestE2EAgencyConnections(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 2)
	o := k.office()
	one := keyConfig(t, k.file("agency-1.pem"))
	var held []*wire
	for range 32 {
		w := o.dialTLS(t, one)
		w.send(wireBatch())
		w.wantAck(0, "")
		held = append(held, w)
	}
	for _, test := range []struct {
		config *tls.Config
		code   int
		part   string
	}{{one, 5, "32 connections"}, {keyConfig(t, k.file("agency-2.pem")), 0, ""}} {
		w := o.dialTLS(t, test.config)
		w.send(wireBatch())
		w.wantAck(test.code, test.part)
		w.Close()
	}
	held[0].Close()
	for got := ""; !strings.HasPrefix(got, "ack 0"); { // the server may not have seen the end yet
		w := o.dialTLS(t, one)
		got = hear(w, wireBatch())
		w.Close()
	}
	o.stop()
}
