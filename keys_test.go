//go:build !notls

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	someKey  = "sha256:oXYBYxQNBkg6SkYPAd6hb0PFgPr9FILfUiqBYEmxKfk="
	otherKey = "sha256:gEn+Ya0RToBnmaGsuY46DHrYiUgKspm+oiRPK/S1fdc="
)

// TestKnown reads known files, and wants of each that does not parse the line and what is wrong.
func TestKnown(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"agency-7 " + someKey + " 2026-11-24\n", ""},
		{"# a comment\r\n\r\n  " +
			"agency-255\t" + someKey + " 1970-01-01 # theirs\r\nagency-255 " + otherKey + " 2026-11-24", ""},
		{"# nobody\n", ""},
		{"", "is empty"},
		{"\n \n", "is empty"},
		{"agency-7 " + someKey + "\n", "line 1: has 2 words"},
		{"#\nagency-7 " + someKey + " 2026-11-24 x", "line 2: has 4 words"},
		{"agency-0 " + someKey + " 2026-11-24", `"agency-0"`},
		{"agency-256 " + someKey + " 2026-11-24", `"agency-256"`},
		{"agency-07 " + someKey + " 2026-11-24", `"agency-07"`},
		{"agency " + someKey + " 2026-11-24", `"agency"`},
		{"7 " + someKey + " 2026-11-24", `"7"`},
		{"agency-7 " + someKey[:50] + " 2026-11-24", "44 characters"},
		{"agency-7 " + someKey[7:] + " 2026-11-24", "44 characters"},
		{"agency-7 " + someKey[:49] + "l= 2026-11-24", "44 characters"}, // another spelling of the same bytes
		{"agency-7 " + someKey + " 2026-11-2", "a date"},
		{"agency-7 " + someKey + " 2026-02-30", "a date"},
		{"agency-7 " + someKey + " 2026-11-24\nagency-8 " + someKey + " 2026-11-24", "line 2: the key stands " +
			"above already, as agency 7's"},
	} {
		_, err := parseKnown([]byte(test.text))
		if got := fmt.Sprint(err); test.want == "" && err != nil || !strings.Contains(got, test.want) {
			t.Errorf("%q: got %v, want %q", test.text, err, test.want)
		}
	}
}

// FuzzKnown wants that a text which parses says the same when it is written anew, and that no
// text at all makes two agencies of one key.
func FuzzKnown(f *testing.F) {
	f.Add([]byte("# x\nagency-7 " + someKey + " 2026-11-24\r\nagency-1 " + otherKey + " 1970-01-01 # y"))
	f.Add([]byte("agency-7 " + someKey[:20]))
	f.Fuzz(func(t *testing.T, text []byte) {
		known, err := parseKnown(text)
		if err != nil {
			return
		}
		again := []byte("#\n")
		for key, k := range known {
			if k.agency == 0 || !bytes.Contains(text, []byte(key.String())) {
				t.Fatalf("%q: got %v of agency %d, which it does not hold", text, key, k.agency)
			}
			again = fmt.Appendf(again, "agency-%d %v %s\n", k.agency, key, k.made.Format(time.DateOnly))
		}
		same, err := parseKnown(again)
		if err != nil || len(same) != len(known) {
			t.Fatalf("%q: written anew %q: got %v, %v", text, again, same, err)
		}
		for key, k := range known {
			if same[key] != k {
				t.Fatalf("%q: got %v of %v, want %v", again, same[key], key, k)
			}
		}
	})
}

// makeKeys runs mode keys in a folder of its own, which is the test's from then on.
func makeKeys(t *testing.T, agencies int) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := runKeys(&config{agencies: agencies}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
}

// TestKeyFile wants of each key file that cannot be used what is wrong with it.
func TestKeyFile(t *testing.T) {
	makeKeys(t, 2)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(keysDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	block := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	one, two, servers := read("agency-1.pem"), read("agency-2.pem"), read("servers.crt")
	cut := strings.Index(one, "-----BEGIN CERT")
	key, certs := one[:cut], one[cut:]
	ec, _ := pem.Decode([]byte(key))
	parsed, _ := x509.ParsePKCS8PrivateKey(ec.Bytes)
	sec1, err := x509.MarshalECPrivateKey(parsed.(*ecdsa.PrivateKey))
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	rsa8, err8 := x509.MarshalPKCS8PrivateKey(rsaKey)
	big, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p384, err384 := x509.MarshalPKCS8PrivateKey(big)
	for _, test := range []struct{ name, text, want string }{
		{"as it was made", one, ""},
		{"certificates first", certs + key, ""},
		{"as openssl ecparam makes it", "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC " +
			"PARAMETERS-----\n" +
			block("EC PRIVATE KEY", sec1, err) + certs, ""},
		{"nothing", "", "holds no private key"},
		{"certificates alone", certs, "holds no private key"},
		{"the key alone", key, "none of its 0 certificates"},
		{"another's certificate", key + servers, "none of its 2 certificates belongs"},
		{"two", one + two, "two private keys"},
		{"RSA", block("PRIVATE KEY", rsa8, err8) + certs, "(rsa): takes ECDSA on P-256"},
		{"RSA of old", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil) + certs,
			"(rsa): takes ECDSA on P-256"},
		{"P-384", block("PRIVATE KEY", p384, err384) + certs, "takes ECDSA on P-256"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", rsa8, nil) + certs, "encrypted"},
		{"encrypted of old", strings.Replace(block("EC PRIVATE KEY", sec1, nil), "\n", "\nDEK-Info: AES-128-CBC,00\n\n",
			1),
			"encrypted"},
		{"garbage for a key", block("PRIVATE KEY", []byte("x"), nil) + certs, "its private key: "},
		{"garbage for a certificate", key + block("CERTIFICATE", []byte("x"), nil), "certificate 1 in it"},
	} {
		os.WriteFile("some.pem", []byte(test.text), 0o600)
		k, err := loadKeyFile("some.pem")
		if test.want == "" && (err != nil || len(k.servers) != 2) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if _, usage := err.(*usageError); test.want != "" && (!usage || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want a usage error with %q", test.name, err, test.want)
		}
	}
	os.Chmod("some.pem", 0o640)
	if _, err := loadKeyFile("some.pem"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key file that the group can read: got %v", err)
	}
}

// TestNoClock makes a handshake between two boards whose clocks stand at 1970, and one where
// they stand at the year 2100.
func TestNoClock(t *testing.T) {
	makeKeys(t, 1)
	for _, year := range []int{1970, 2100} {
		server, err := loadKeyFile("keys/server.pem")
		if err != nil {
			t.Fatal(err)
		}
		client, err := loadKeyFile("keys/agency-1.pem")
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		seen := make(chan fingerprint, 1)
		inThatYear := func(k *keyFile, check func(*x509.Certificate) error) *tls.Config {
			c := newTLS(k, check)
			c.Time = func() time.Time { return time.Date(year, 1, 1, 0, 0, 30, 0, time.UTC) }
			return c
		}
		go tls.Server(there, inThatYear(server,
			func(c *x509.Certificate) error { seen <- fingerprintOf(c); return nil })).Handshake()
		c := &clientConn{keys: client, address: "there"}
		if err := tls.Client(here, inThatYear(client, c.checkServer)).Handshake(); err != nil {
			t.Fatalf("in %d: %v", year, err)
		}
		if got := <-seen; got != client.own {
			t.Errorf("in %d: the server saw %v, want %v", year, got, client.own)
		}
	}
}

// TestKeysMade has the dates of a known file: of an agency's keys the newest counts.
func TestKeysMade(t *testing.T) {
	known, err := parseKnown([]byte("# keys\nagency-7 " + someKey + " 2026-11-24\nagency-7 " + otherKey +
		" 2026-11-26 # new\nagency-9 sha256:" + strings.Repeat("A", 43) + "= 2026-01-02"))
	if err != nil {
		t.Fatal(err)
	}
	made, _ := (&gate{known: known}).keyFacts()
	got := made[7].Format(time.DateOnly) + " " + made[9].Format(time.DateOnly)
	if want := "2026-11-26 2026-01-02"; got != want || len(made) != 2 {
		t.Errorf("got %s and %d agencies, want %s", got, len(made), want)
	}
}
