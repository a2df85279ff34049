//go:build unix && !nostream && !notls

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tp0/tools/proc"
)

// Tests with the real engine. They are left out where there is none.

// startEngines starts engines that end with the test.
func startEngines(t *testing.T, n int, edits ...func(engine int, config string) string) *proc.Engines {
	t.Helper()
	if _, err := proc.NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	es, err := proc.StartEngines(t.TempDir(), n, edits...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(es.Kill)
	return es
}

// dialEngines returns a connection to engines, which ends with the test.
func dialEngines(t *testing.T, es *proc.Engines, change func(o *natsOptions)) (*nats, *natsLog) {
	t.Helper()
	log := &natsLog{}
	o := natsOptions{servers: strings.Split(es.Servers(), ","), user: proc.EngineUser, password: proc.EnginePassword,
		name: "test", log: newLogger(log, slog.LevelInfo)}
	if change != nil {
		change(&o)
	}
	c := dialNATS(o)
	t.Cleanup(c.close)
	return c, log
}

// await waits until the connection is at a server that pleases.
func await(t *testing.T, c *nats, pleases func(server string) bool) (server string) {
	t.Helper()
	waitFor(t, "a connection", func() bool {
		at, _, ok := c.connected()
		server = at
		return ok && pleases(at)
	})
	return server
}

func anywhere(string) bool { return true }

// mustRequest makes a request that must be answered.
func mustRequest(t *testing.T, c *nats, subject string, header []natsField, body string) natsMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), natsPatience)
	defer cancel()
	m, err := c.request(ctx, subject, header, []byte(body))
	for errors.Is(err, errNoResponders) && pauseFor(ctx, streamPauseMin) == nil { // a stream that has no leader yet
		m, err = c.request(ctx, subject, header, []byte(body))
	}
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	return m
}

// streamR1 makes a stream of one replica.
const streamR1 = `{"name":"TP0","subjects":["tp0.log"],"storage":"file","num_replicas":1,"allow_direct":true}`

// TestNATSEngine: requests, many at once, many answers to one, headers, rights, as a real engine
// has them.
func TestNATSEngine(t *testing.T) {
	t.Parallel()
	es := startEngines(t, 1)
	connections := make(chan bool, 10)
	c, log := dialEngines(t, es, func(o *natsOptions) { o.onConnect = func() { connections <- true } })
	<-connections
	mustRequest(t, c, "$JS.API.STREAM.CREATE.TP0", nil, streamR1)
	const records = 20
	body := bytes.Repeat([]byte("record "), 20<<10)
	var calls []*natsCall
	for n := range records {
		k, err := c.send("tp0.log", []natsField{{"Nats-Expected-Last-Sequence", fmt.Sprint(n)}}, body)
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, k)
	}
	for n, k := range calls {
		m, err := k.wait(t.Context())
		if want := fmt.Sprintf(`{"stream":"TP0","seq":%d}`, n+1); err != nil || string(m.body) != want {
			t.Fatalf("append: got %s, %v, want %s", m.body, err, want)
		}
	}
	read := 0
	err := c.ask(t.Context(), "$JS.API.DIRECT.GET.TP0", []byte(`{"seq":1,"batch":100}`), func(m natsMessage) bool {
		if m.status != 0 {
			return false
		}
		if read++; m.field("Nats-Sequence") != fmt.Sprint(read) || !bytes.Equal(m.body, body) {
			t.Errorf("record %d: got number %s and %d bytes", read, m.field("Nats-Sequence"), len(m.body))
		}
		return true
	})
	if err != nil || read != records {
		t.Errorf("got %d records, %v, want %d", read, err, records)
	}
	if _, err := c.request(t.Context(), "$JS.API.STREAM.DELETE.TP0", nil, nil); !errors.As(err, new(*natsError)) {
		t.Errorf("a request that is forbidden: got %v, want an error of the engine", err)
	}
	if _, err := c.request(t.Context(), "tp0.alive", nil, nil); err != errNoResponders {
		t.Errorf("a request that nobody hears: got %v, want %v", err, errNoResponders)
	}
	if _, err := c.request(t.Context(), "tp0.log", nil, make([]byte, 2<<20)); !errors.Is(err, errNATSTooLong) {
		t.Errorf("a request that is too long: got %v, want %v", err, errNATSTooLong)
	}
	if got := strings.Count(log.String(), "action: engine | result: success"); got != 1 {
		t.Errorf("got %d connections, want that nothing ended the first:\n%s", got, log)
	}
}

// TestNATSEngineLoss: the connection finds another server when its own is killed, is about to go or
// hangs; what it has subscribed to it hears on.
func TestNATSEngineLoss(t *testing.T) {
	t.Parallel()
	es := startEngines(t, 3)
	quick := func(o *natsOptions) { o.ping, o.pingWait = 100*time.Millisecond, 400*time.Millisecond }
	c, log := dialEngines(t, es, quick)
	heard := make(chan string, 100)
	c.subscribe("tp0.alive", func(m natsMessage) { heard <- string(m.body) })
	for _, loss := range []struct {
		name string
		do   func(e *proc.Engine) error
	}{
		{"is about to go", func(e *proc.Engine) error { return e.Cmd.Process.Signal(syscall.SIGUSR2) }},
		{"hangs", (*proc.Engine).Pause},
	} {
		at := await(t, c, anywhere)
		var server *proc.Engine
		for _, e := range es.All {
			if e.Listen == at {
				server = e
			}
		}
		if err := loss.do(server); err != nil {
			t.Fatal(err)
		}
		await(t, c, func(server string) bool { return server != at })
		waitFor(t, "a message that is heard", func() bool {
			c.publish("tp0.alive", []byte(loss.name))
			select {
			case got := <-heard:
				return got == loss.name
			default:
				return false
			}
		})
	}
	if text := log.String(); !strings.Contains(text, "the connection is lost: the server is about to go") {
		t.Errorf("got a log that does not name the server's farewell:\n%s", text)
	}
}

// TestNATSEngineTLS: with TLS and a token, as a real engine has them.
func TestNATSEngineTLS(t *testing.T) {
	t.Parallel()
	cert := natsCertificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "engine.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	es := startEngines(t, 1, func(_ int, config string) string {
		config, _, _ = strings.Cut(config, "accounts {")
		const secured = "authorization { token: secret }\ntls { cert_file: %q, key_file: %q }\n"
		return config + fmt.Sprintf(secured, file, file)
	})
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	token := func(o *natsOptions) {
		o.user, o.password, o.token, o.tls = "", "", "secret", &tls.Config{RootCAs: roots}
	}
	c, _ := dialEngines(t, es, token)
	await(t, c, anywhere)
	if _, err := c.request(t.Context(), "nobody", nil, make([]byte, 1<<20)); err != errNoResponders {
		t.Errorf("got %v, want %v", err, errNoResponders)
	}
	wrong, log := dialEngines(t, es, func(o *natsOptions) { token(o); o.token = "wrong" })
	waitFor(t, "a refusal in the log", func() bool {
		return strings.Contains(log.String(), "the engine says: Authorization Violation")
	})
	if _, err := wrong.send("a", nil, nil); !errors.Is(err, errNATSLost) {
		t.Errorf("with a wrong token: got %v, want errNATSLost", err)
	}
	_, log = dialEngines(t, es, func(o *natsOptions) { token(o); o.tls = &tls.Config{RootCAs: x509.NewCertPool()} })
	waitFor(t, "a refusal in the log", func() bool {
		return strings.Contains(log.String(), "certificate signed by unknown authority")
	})
}
